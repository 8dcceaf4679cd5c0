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

// arrival is a connection to the gateway that has not said what it is, or what comes next.
type arrival struct {
	gate  *Gate
	port  *Port
	sock  *sock.Conn
	again bool          // it has carried a flow, which has ended well
	rest  []byte        // what was read of it before, and not looked at
	place *places.Place // of a stranger; nil until he has to wait
	whose *account      // of one at rest: in whose part it is; nil: in none
	buf   [wire.JoinSize]byte
	have  int
}

// Greet takes a connection to the gateway: one that joins an association, or a
// control connection. The port's worker alone may call it.
func (g *Gate) Greet(p *Port, s *sock.Conn) {
	if p.o.Poller.Before == nil {
		p.o.Poller.Before = p.oust
	}
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

// await takes a connection whose flow has ended well, and what has been read behind the
// end, for the next one. Its client is no stranger and takes nobody's place, but it rests in his
// part of the port's connections: where that is taken it does not. The port's worker alone may
// call it.
func (g *Gate) await(p *Port, of *account, s *sock.Conn, rest []byte) {
	a := &arrival{gate: g, port: p, sock: s, again: true, rest: rest}
	if a.look() {
		return
	}
	if a.have == 0 && !g.room(p, of) {
		s.Close()
		return
	}
	a.whose = of
	p.parts.add(of)
	p.arrivals[a] = struct{}{}
	s.Expect()
	s.Watch(a.ready)
}

// ready is told by the poller.
func (a *arrival) ready(party.Ready) { a.look() }

// read is the socket's, after what was read before.
func (a *arrival) read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		return a.sock.Read(p)
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// look reads what has come, and reports whether that settles the matter.
func (a *arrival) look() bool {
	for a.have < len(a.buf) {
		n, err := a.read(a.buf[a.have:])
		a.have += n
		switch {
		case n > 0 && a.buf[0] == tlsHandshake && !a.again:
			a.leave()
			return true
		case n > 0:
		case err == nil || err == party.ErrAgain:
			return false
		case a.again && a.have == 0: // nothing follows
			a.settle()
			a.sock.Close()
			return true
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
	}
	a.stir()
	delete(a.port.arrivals, a)
}

// stir takes a connection at rest out of its client's part.
func (a *arrival) stir() {
	if a.whose != nil {
		a.port.parts.remove(a.whose)
		a.whose = nil
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
	a.stir()
	if !a.gate.room(a.port, as.account) {
		a.crowded(as)
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
	if a.again {
		a.port.o.Counters.Again.Add(1)
	}
	a.port.tell(stream.Event{Kind: stream.EventOpen, Flow: c.id, Dst: addr, Src: a.sock.Remote(), From: l})
	c.grant()
	a.sock.Watch(c.ready)
	c.readable = true
	c.begin(a.rest)
}
