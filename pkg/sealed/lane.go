package sealed

import (
	"net/netip"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
)

// Lane is an association as one worker sees it. It implements stream.Tunnel;
// the worker's goroutine alone calls its methods.
type Lane struct {
	port  *Port
	a     *Association
	conns map[stream.ID]*conn
	pace  pace
}

var _ stream.Tunnel = (*Lane)(nil)

func newLane(p *Port, a *Association) *Lane {
	return &Lane{port: p, a: a, conns: map[stream.ID]*conn{}}
}

// Association returns what the lane belongs to.
func (l *Lane) Association() *Association { return l.a }

// Secret implements stream.Tunnel. There is none to give: see Ring.
func (l *Lane) Secret() []byte { return nil }

// Record implements stream.Tunnel. Where memory is short records are small, as each that
// nobody reads is held whole.
func (l *Lane) Record() int {
	if !l.a.large || l.port.o.Budget.share() < window {
		return buffer.Plain
	}
	return l.pace.record(time.Now())
}

// Tag implements stream.Tunnel.
func (l *Lane) Tag() string { return l.a.Peer }

// NewFlow implements stream.Tunnel. All workers of a client draw from one run
// of numbers.
func (l *Lane) NewFlow(int) stream.ID {
	return stream.ID(l.a.numbers.Add(1))
}

// Post implements stream.Tunnel.
func (l *Lane) Post(batch []stream.Command) {
	for i := range batch {
		l.obey(&batch[i])
	}
	l.port.send()
}

// obey carries one command out.
func (l *Lane) obey(m *stream.Command) {
	if m.Kind == stream.CmdOpen {
		l.open(m)
		return
	}
	c := l.conns[m.Flow]
	if c == nil {
		m.Seg.Release()
		return
	}
	switch m.Kind {
	case stream.CmdSend:
		c.push(m.Seg)
	case stream.CmdFin:
		c.finish()
	case stream.CmdConsumed:
		c.consumed(m.Bytes)
	case stream.CmdReject:
		c.forged() // a record cannot be had again
	case stream.CmdReset:
		if c.server != nil && (m.Code == stream.CodeRefused || m.Code == stream.CodeUnreachable) {
			c.server.failed(c.turn)
		}
		if m.Code == stream.CodeAbort {
			c.flush() // what was said before
		}
		c.abort()
	case stream.CmdDone:
		c.done = true
		l.port.closing[c] = struct{}{}
		l.port.touch(c)
	}
}

// open takes a connection to the gateway that is at rest, or dials one, for a flow that
// the worker has accepted. The destination's port is the service's index; see Service.
func (l *Lane) open(m *stream.Command) {
	s := l.port.take(l.a)
	if s == nil {
		var err error
		if s, err = sock.Dial(l.port.o.Poller, l.a.gateway, 0, ""); err != nil {
			l.port.tell(stream.Event{Kind: stream.EventReset, Code: stream.CodeUnreachable, Flow: m.Flow, From: l})
			return
		}
	}
	c := l.add(m.Flow, s)
	c.prelude = l.a.appendJoin(make([]byte, 0, 48), uint64(m.Flow), m.Dst.Port())
	l.port.hold(c)
	s.Watch(c.ready)
	c.grant()
}

// Service is the destination that Worker.Accept is given for a flow to the
// service of that index: who serves it, only the gateway knows.
func Service(index int) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(index))
}

// add makes a connection of a socket.
func (l *Lane) add(id stream.ID, s *sock.Conn) *conn {
	c := &conn{lane: l, id: id, sock: s}
	l.conns[id] = c
	l.port.lanes[l] = struct{}{}
	l.a.account.joined.Add(1)
	l.a.account.open.Add(1)
	l.port.o.Budget.flows.Add(1)
	l.port.parts.add(l.a.account)
	l.port.o.Counters.Joined.Add(1)
	return c
}

// forget gives back all that a connection holds, but its socket.
func (l *Lane) forget(c *conn) {
	if delete(l.conns, c.id); len(l.conns) == 0 {
		delete(l.port.lanes, l)
	}
	if c.done {
		delete(l.port.closing, c)
	}
	l.a.account.open.Add(-1)
	l.port.o.Budget.flows.Add(-1)
	l.port.parts.remove(l.a.account)
	c.release()
}
