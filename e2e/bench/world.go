package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

const ms = time.Millisecond

// world is a lab with both agents and the origin's server at work.
type world struct {
	*lab.Lab
	pair    *pair.Pair  // nil in a world of peers
	relay   *pair.Relay // stopped with the world; nil: none
	carrier *carrier
	port    uint16 // of the origin's server, steered into the tunnel
	service *service
	loads   uint64 // numbers of loads given out

	clientNodes int
}

// open builds a world. The caller closes it.
func open(uplinks []lab.Uplink, o pair.Options) (*world, error) { return openWith(uplinks, 1, o) }

// openWith is open with several client nodes.
func openWith(uplinks []lab.Uplink, clients int, o pair.Options) (*world, error) {
	return openSpec(lab.Spec{Name: "bench", Uplinks: uplinks, Seed: 1, Clients: clients}, o)
}

// openSpec is open for any lab.
func openSpec(spec lab.Spec, o pair.Options) (*world, error) {
	l, err := lab.New(spec)
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l, port: tunnelPort, clientNodes: max(spec.Clients, 1)}
	if w.pair, err = pair.New(l, spec, o); err == nil {
		err = w.start()
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) start() (err error) {
	if w.service, err = newService(w.Lab, newPayloads(), tunnelPort, pair.DirectPort); err != nil {
		return err
	}
	if err := w.pair.Start(); err != nil {
		return err
	}
	w.carrier = ofPair(w.pair)
	return nil
}

// close stops the agents first, so that they clean up and write profiles.
func (w *world) close() error {
	var errs []error
	if w.pair != nil {
		errs = append(errs, w.pair.Stop())
	}
	if w.relay != nil {
		errs = append(errs, w.relay.Stop())
	}
	if w.service != nil {
		errs = append(errs, w.service.close())
	}
	return errors.Join(append(errs, w.Lab.Close())...)
}

// way is how a flow reaches the origin.
type way struct {
	direct     bool
	congestion string // of the sender's socket; "" leaves the kernel's choice
}

// address is the origin's on this way.
func (w *world) address(v way) string {
	port := w.port
	if v.direct {
		port = pair.DirectPort
	}
	return netip.AddrPortFrom(w.host(v), port).String()
}

// host is the address that clients connect to.
func (w *world) host(v way) netip.Addr {
	if !v.direct && w.carrier.at.IsValid() {
		return w.carrier.at
	}
	return w.Address("origin", lab.IPv4)
}

// dialLimit bounds a connection's establishment.
const dialLimit = 10 * time.Second

// dial connects from the client and returns when that was begun.
func (w *world) dial(v way) (c *net.TCPConn, began time.Time, err error) {
	var conn net.Conn
	err = w.Do("client", func() (err error) {
		began = time.Now()
		conn, err = net.DialTimeout("tcp", w.address(v), dialLimit)
		return err
	})
	if err != nil {
		return nil, began, err
	}
	return conn.(*net.TCPConn), began, nil
}

// load is a number of bulk flows at work.
type load struct {
	world *world
	conns []*net.TCPConn
	count *atomic.Int64
	wg    sync.WaitGroup
}

// startLoad starts n flows without end, of q's kind and payload.
func (w *world) startLoad(v way, q request, n int) (*load, error) {
	w.loads++
	q.load, q.congestion = w.loads, v.congestion
	l := &load{world: w, count: w.service.counter(q.load)}
	for range n {
		if err := l.add(v, q); err != nil {
			l.stop()
			return nil, err
		}
	}
	return l, nil
}

func (l *load) add(v way, q request) error {
	c, _, err := l.world.dial(v)
	if err != nil {
		return err
	}
	l.conns = append(l.conns, c)
	if q.kind == upload {
		if err := setCongestion(c, v.congestion); err != nil {
			return err
		}
	}
	if _, err := c.Write(q.encode()); err != nil {
		return err
	}
	l.wg.Add(1)
	if q.kind == upload {
		go l.send(c, l.world.service.payload(q.text))
	} else {
		go l.receive(c)
	}
	return nil
}

func (l *load) send(c net.Conn, p payload) {
	defer l.wg.Done()
	_ = send(c, p, 0)
}

func (l *load) receive(c net.Conn) {
	defer l.wg.Done()
	drain(c, l.count)
}

// stop ends the flows and waits until the tunnel has none.
func (l *load) stop() error {
	for _, c := range l.conns {
		_ = c.SetLinger(0) // what is on its way is of no use
		c.Close()
	}
	l.wg.Wait()
	return l.world.carrier.idle(dialLimit)
}

// read takes a reading.
func (l *load) read() (reading, error) {
	edge, cloud, err := l.world.carrier.cpu()
	return reading{at: time.Now(), bytes: l.count.Load(), edge: edge, cloud: cloud, own: ownCPU()}, err
}

// measured is what a bulk load did.
type measured struct {
	First  window `json:"first"`  // from the first request on
	Steady window `json:"steady"` // after that
}

// phases are the two parts of a bulk reading.
type phases struct{ first, steady time.Duration }

// bulk runs n flows through both phases.
func (b *bench) bulk(w *world, v way, q request, n int, p phases) (m measured, err error) {
	l, err := w.startLoad(v, q, n)
	if err != nil {
		return m, err
	}
	var r [3]reading
	for i, d := range []time.Duration{0, p.first, p.steady} {
		if err == nil {
			err = b.sleep(d)
		}
		if err == nil {
			r[i], err = l.read()
		}
	}
	err = errors.Join(err, l.stop())
	if err == nil && r[2].bytes == r[1].bytes {
		err = fmt.Errorf("nothing arrived within %v over %+v", p.steady, v)
	}
	return measured{between(r[0], r[1]), between(r[1], r[2])}, err
}

// sleep waits unless the bench is told to end.
func (b *bench) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
}
