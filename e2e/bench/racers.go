package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// racer is one way to carry connections from the client's LAN, encrypted
// over the uplink, to the origin.
type racer struct {
	name  string
	peer  bool    // of another make's, that hawser is measured against
	gates bounds  // what is wanted of it, as multiples of the best peer
	start starter // the caller stops the carrier
}

// bounds are least multiples of the best peer; 0 is none.
type bounds struct{ rate, churn float64 }

type starter func(*arena) (*carrier, error)

var racers = []racer{
	{name: "hawser, tproxy to socket", gates: bounds{rate: 1.3, churn: 1.5}, start: hawser("tproxy", "socket")},
	{name: "hawser, hub to hub", gates: bounds{rate: 1}, start: hawser("hub", "hub")},
	{name: "hawser, stand-alone relay", gates: bounds{rate: 1.3, churn: 1.5}, start: standAlone},
	{name: "stunnel pair", peer: true, start: tlsPair("stunnel", stunnelFile)},
	{name: "haproxy TLS pair", peer: true, start: tlsPair("haproxy", haproxyFile, "-db", "-f")},
	{name: "shadowsocks-libev pair", peer: true, start: shadowsocks},
	{name: nothingBetween, start: nothing},
}

const nothingBetween = "direct, nothing between"

// arena is a world in which the racers take turns.
type arena struct {
	*world
	spec  lab.Spec
	churn *churnServer
	files map[string]string
}

// bulkPort is the port of a racer's bulk loads at the origin; churnBeside it
// is that of its short connections, echoBeside that of its ping-pong. Each has ports of its own: a TIME_WAIT that
// one leaves in the edge's kernel must not meet the next one's SYN.
func bulkPort(racer int) uint16 { return uint16(1000 + 10*racer) }

const (
	churnBeside = 1
	echoBeside  = 2
)

// openArena lays a lab of one bare uplink with the origin's servers.
func openArena() (*arena, error) {
	a := &arena{spec: lab.Spec{Name: "peers", Uplinks: bareLines()[:1], Seed: 1}}
	l, err := lab.New(a.spec)
	if err != nil {
		return nil, err
	}
	a.world = &world{Lab: l}
	if err := a.serve(); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// serve starts the servers and writes the peers' files.
func (a *arena) serve() (err error) {
	var bulk, churn []uint16
	for i := range racers {
		bulk, churn = append(bulk, bulkPort(i)), append(churn, bulkPort(i)+churnBeside)
	}
	if a.service, err = newService(a.Lab, newPayloads(), bulk...); err != nil {
		return err
	}
	if a.churn, err = newChurnServer(a.Lab, churn...); err != nil {
		return err
	}
	a.files, err = peerFiles(a.Lab)
	return err
}

func (a *arena) close() error {
	var err error
	if a.churn != nil {
		err = a.churn.close()
	}
	return errors.Join(err, a.world.close())
}

// forward is one port that is carried.
type forward struct {
	name            string
	accept, connect netip.AddrPort
}

// relayed is added to ports between the near and the far side of pairs without
// steering.
const relayed = 9000

// forwards returns what the near side and the far side of a pair forward: the
// edge's LAN address to the cloud, and there to the origin.
func (a *arena) forwards() (near, far []forward) {
	edge, cloud, origin := a.Address("edge", lab.IPv4), a.Address("cloud", lab.IPv4), a.Address("origin", lab.IPv4)
	for name, port := range map[string]uint16{"bulk": a.port, "churn": a.port + churnBeside, "echo": a.port + echoBeside} {
		middle := netip.AddrPortFrom(cloud, relayed+port)
		near = append(near, forward{name, netip.AddrPortFrom(edge, port), middle})
		far = append(far, forward{name, middle, netip.AddrPortFrom(origin, port)})
	}
	return near, far
}

// hawser is both agents with one TCP link.
func hawser(intercept, egress string) starter {
	return func(a *arena) (*carrier, error) {
		p, err := pair.New(a.Lab, a.spec, pair.Options{Intercept: intercept, Egress: egress, Transport: "tcp"})
		if err != nil {
			return nil, err
		}
		if err := p.Start(); err != nil {
			return nil, errors.Join(err, p.Stop())
		}
		return ofPair(p), nil
	}
}

// standAlone is both sides of the stand-alone relay.
func standAlone(a *arena) (*carrier, error) {
	near, far := a.forwards()
	var forwards []pair.Forward
	for i, f := range near {
		forwards = append(forwards, pair.Forward{Port: f.accept.Port(), To: far[i].connect})
	}
	r, err := pair.NewRelay(a.Lab, forwards...)
	if err != nil {
		return nil, err
	}
	if err := r.Start(); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return ofRelay(a.Lab, r), nil
}

// tlsPair is two instances of a program that reads a file.
func tlsPair(program string, file func(client bool, files map[string]string, f []forward) string, args ...string) starter {
	return func(a *arena) (*carrier, error) {
		c := a.emptyCarrier()
		near, far := a.forwards()
		for _, side := range []struct {
			node string
			to   *[]*lab.Proc
			f    []forward
		}{{"cloud", &c.cloud, far}, {"edge", &c.edge, near}} {
			conf, err := a.WriteFile("peers/"+program+"-"+side.node+".conf", file(side.node == "edge", a.files, side.f))
			if err != nil {
				return c, err
			}
			if err := a.launch(side.to, side.node, append(append([]string{program}, args...), conf)...); err != nil {
				return c, err
			}
		}
		return c, nil
	}
}

// shadowsocks is a server and a tunnel per port.
func shadowsocks(a *arena) (*carrier, error) {
	c := a.emptyCarrier()
	near, far := a.forwards()
	cloud := a.Address("cloud", lab.IPv4).String()
	const port = "8388"
	shared := []string{"-s", cloud, "-p", port, "-k", "of the bench", "-m", "aes-256-gcm", "-t", "60", "--no-delay"}
	if err := a.launch(&c.cloud, "cloud", append([]string{"ss-server"}, shared...)...); err != nil {
		return c, err
	}
	for i, f := range near {
		args := append([]string{"ss-tunnel", "-b", f.accept.Addr().String(), "-l", fmt.Sprint(f.accept.Port()), "-L", far[i].connect.String()}, shared...)
		if err := a.launch(&c.edge, "edge", args...); err != nil {
			return c, err
		}
	}
	return c, nil
}

// nothing is the bare path.
func nothing(a *arena) (*carrier, error) { return &carrier{idle: atOnce}, nil }

func atOnce(time.Duration) error { return nil }

// emptyCarrier is one to whose near side clients connect.
func (a *arena) emptyCarrier() *carrier {
	return &carrier{at: a.Address("edge", lab.IPv4), idle: atOnce}
}

func (a *arena) launch(to *[]*lab.Proc, node string, argv ...string) error {
	p, err := a.Start(node, argv...)
	if err == nil {
		*to = append(*to, p)
	}
	return err
}
