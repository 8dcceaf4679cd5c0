package sealed

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"hawser/pkg/party"
	"hawser/pkg/sock"
)

// What a client keeps of connections whose flows have ended well (PROTOCOL.md 7.6).
const (
	mostSpares = 64 // per port; as many as take turns at some thousand flows a second
	// spareTime is much less than the gateway waits for a join, which is
	// sock.DialTimeout: no join meets a connection that the gateway has just closed.
	spareTime = sock.DialTimeout / 2
)

// spare is a connection to the gateway at rest, for a flow to come.
type spare struct {
	sock  *sock.Conn
	to    netip.AddrPort // the gateway
	since time.Time
}

// stopped reports whether nothing is read behind the peer's end for now: what comes there
// is the next flow's.
func (c *conn) stopped() bool { return c.fin && !c.hung && c.lane.a.again && c.lane.a.gate != nil }

// behind takes what came behind the peer's end: of the next flow, for which the client
// must have had our end.
func (c *conn) behind(p []byte) {
	if !c.lane.a.again || c.lane.a.gate == nil || !c.ended {
		c.forged()
		return
	}
	c.rest = append(c.rest, p...)
}

// rested ends a flow that has ended well. Its connection goes on to the next one where
// both ends know how.
func (c *conn) rested() {
	l := c.lane
	l.forget(c)
	switch next := c.head[:c.headed]; {
	case !l.a.again || c.gone:
		c.sock.Close()
	case l.a.gate != nil:
		l.a.gate.await(l.port, l.a.account, c.sock, append(next, c.rest...))
	case len(next) > 0: // a gateway has nothing to say there
		c.sock.Close()
	default:
		l.port.keep(c.sock, l.a.gateway)
	}
}

// keep has a connection wait for a flow.
func (p *Port) keep(s *sock.Conn, to netip.AddrPort) {
	if len(p.spares) == mostSpares {
		s.Close()
		return
	}
	i := &spare{sock: s, to: to, since: time.Now()}
	p.spares = append(p.spares, i)
	s.Expect()
	s.Watch(func(party.Ready) { p.look(i) })
}

// look drops a connection at rest that has ended, or waited for too long.
func (p *Port) look(i *spare) {
	var b [1]byte
	n, err := i.sock.Read(b[:])
	if n == 0 && (err == nil || errors.Is(err, party.ErrAgain)) {
		return
	}
	p.spares = slices.DeleteFunc(p.spares, func(other *spare) bool { return other == i })
	i.sock.Close()
}

// take returns a connection at rest to the association's gateway, or nil: the one that
// carried a flow last, so that those that are not needed end.
func (p *Port) take(a *Association) *sock.Conn {
	for a.again && len(p.spares) > 0 {
		last := len(p.spares) - 1
		i := p.spares[last]
		p.spares[last] = nil
		p.spares = p.spares[:last]
		if i.to == a.gateway && time.Since(i.since) < spareTime && p.here(i) {
			i.sock.Relax()
			p.o.Counters.Again.Add(1)
			return i.sock
		}
		i.sock.Close()
	}
	return nil
}

// wayTime is for how long a port believes from where a gateway is reached.
const wayTime = 100 * time.Millisecond

// way is from where, and to where, a port's connections go now.
type way struct {
	from, to netip.Addr
	asked    time.Time
}

// here tells whether connections to the gateway still go out from the address that one at
// rest has. With another lease, or when the host's route has changed to another network, the
// next flow would hang there until the kernel gives up, a quarter of an hour later.
func (p *Port) here(i *spare) bool {
	w := &p.way
	if to := i.to.Addr(); w.to != to || time.Since(w.asked) >= wayTime {
		*w = way{from: p.source(i.to), to: to, asked: time.Now()}
	}
	return w.from == i.sock.Local().Addr().Unmap().WithZone("")
}

// source is the address that the host takes to reach another; invalid where it has no route.
func source(to netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // nothing is sent
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
}
