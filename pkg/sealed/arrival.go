package sealed

import (
	"hawser/pkg/party"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// tlsHandshake is the first byte of a TLS connection (RFC 8446 section 5.1);
// a join begins with another.
const tlsHandshake = 0x16

// arrival is a connection to the gateway that has not said what it is.
type arrival struct {
	gate *Gate
	port *Port
	sock *sock.Conn
	buf  [wire.JoinSize]byte
	have int
}

// Greet takes a connection to the gateway: one that joins an association, or a
// control connection. The port's worker alone may call it.
func (g *Gate) Greet(p *Port, s *sock.Conn) {
	a := &arrival{gate: g, port: p, sock: s}
	p.arrivals[a] = struct{}{}
	s.Expect()
	s.Watch(a.ready)
}

// ready is told by the poller.
func (a *arrival) ready(party.Ready) {
	for a.have < len(a.buf) {
		n, err := a.sock.Read(a.buf[a.have:])
		a.have += n
		switch {
		case n > 0 && a.buf[0] == tlsHandshake:
			a.leave()
			return
		case n > 0:
		case err == nil || err == party.ErrAgain:
			return
		default: // it went, or said nothing in time
			a.refuse("nothing said")
			return
		}
	}
	a.join()
	a.port.deliver()
}

// refuse resets the connection.
func (a *arrival) refuse(why string) {
	delete(a.port.arrivals, a)
	a.port.o.Counters.Refused.Add(1)
	a.gate.o.Log.Debug("connection refused", "client", a.sock.Remote(), "reason", why)
	a.sock.Abort()
}

// leave gives a control connection to a goroutine of its own: a handshake
// must not keep the worker.
func (a *arrival) leave() {
	delete(a.port.arrivals, a)
	remote := a.sock.Remote()
	fd, err := a.sock.Leave()
	if err != nil {
		a.sock.Abort()
		return
	}
	a.gate.admit(fd, remote, append([]byte(nil), a.buf[:a.have]...))
}

// join makes the connection a flow of its association.
func (a *arrival) join() {
	j, err := wire.ParseJoin(a.buf[:])
	if err != nil {
		a.refuse(err.Error())
		return
	}
	as := a.gate.find(j.Association)
	if as == nil {
		a.refuse("no such association")
		return
	}
	if err := as.admit(j, a.buf[:]); err != nil {
		a.refuse(err.Error())
		return
	}
	server := as.servers[j.Service]
	addr, turn := server.Addr()
	if !addr.IsValid() {
		server.failed(turn)
		a.refuse("the name of " + as.Services[j.Service] + " has no address yet")
		return
	}
	delete(a.port.arrivals, a)
	a.sock.Relax()
	l := as.lanes[a.port.o.Worker]
	as.flows.Add(1)
	c := l.add(stream.ID(j.Flow), a.sock)
	c.server, c.turn = server, turn
	a.port.tell(stream.Event{Kind: stream.EventOpen, Flow: c.id, Dst: addr, Src: a.sock.Remote(), From: l})
	c.grant()
	a.sock.Watch(c.ready)
	c.readable = true
	c.read()
}
