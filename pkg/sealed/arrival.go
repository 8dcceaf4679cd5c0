package sealed

import (
	"hawser/pkg/party"
	"hawser/pkg/places"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// tlsHandshake is the first byte of a TLS connection (RFC 8446 section 5.1);
// a join begins with another.
const tlsHandshake = 0x16

// Bounds of a port's connections that have not said what they are. Those of clients say
// it with their first segment, so few wait at a time.
const (
	mostArrivals          = 512
	mostArrivalsPerSource = 128 // one IPv4 address or IPv6 /64
)

// arrival is a connection to the gateway that has not said what it is.
type arrival struct {
	gate  *Gate
	port  *Port
	sock  *sock.Conn
	place *places.Place // nil until it has to wait
	buf   [wire.JoinSize]byte
	have  int
}

// Greet takes a connection to the gateway: one that joins an association, or a
// control connection. The port's worker alone may call it.
func (g *Gate) Greet(p *Port, s *sock.Conn) {
	a := &arrival{gate: g, port: p, sock: s}
	if a.look() {
		return
	}
	if a.place = p.places.Enter(s.Remote().Addr(), a.displaced); a.place == nil {
		a.displaced()
		return
	}
	p.arrivals[a] = struct{}{}
	s.Expect()
	s.Watch(a.ready)
}

// ready is told by the poller.
func (a *arrival) ready(party.Ready) { a.look() }

// look reads what has come, and reports whether that settles the matter.
func (a *arrival) look() bool {
	for a.have < len(a.buf) {
		n, err := a.sock.Read(a.buf[a.have:])
		a.have += n
		switch {
		case n > 0 && a.buf[0] == tlsHandshake:
			a.leave()
			return true
		case n > 0:
		case err == nil || err == party.ErrAgain:
			return false
		default: // it went, or said nothing in time
			a.refuse("nothing said")
			return true
		}
	}
	a.join()
	a.port.deliver()
	return true
}

// settle ends the wait.
func (a *arrival) settle() {
	if a.place != nil {
		a.place.Leave()
		delete(a.port.arrivals, a)
	}
}

// displaced resets a connection that has no place, or has lost it.
func (a *arrival) displaced() {
	delete(a.port.arrivals, a)
	a.port.o.Counters.Crowded.Add(1)
	a.sock.Abort()
}

// refuse resets the connection.
func (a *arrival) refuse(why string) {
	a.settle()
	a.port.o.Counters.Refused.Add(1)
	a.gate.o.Log.Debug("connection refused", "client", a.sock.Remote(), "reason", why)
	a.sock.Abort()
}

// leave gives a control connection to a goroutine of its own: a handshake
// must not keep the worker.
func (a *arrival) leave() {
	a.settle()
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
	a.settle()
	a.sock.Relax()
	l := as.lanes[a.port.o.Worker]
	c := l.add(stream.ID(j.Flow), a.sock)
	c.server, c.turn = server, turn
	a.port.tell(stream.Event{Kind: stream.EventOpen, Flow: c.id, Dst: addr, Src: a.sock.Remote(), From: l})
	c.grant()
	a.sock.Watch(c.ready)
	c.readable = true
	c.read()
}
