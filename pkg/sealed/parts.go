package sealed

import "hawser/pkg/places"

// parts are whose connections a port has; its worker alone uses them.
type parts struct {
	all int
	of  map[*account]int
}

func (s *parts) add(of *account) {
	if s.of == nil {
		s.of = map[*account]int{}
	}
	s.all++
	s.of[of]++
}

func (s *parts) remove(of *account) {
	s.all--
	if s.of[of]--; s.of[of] == 0 {
		delete(s.of, of)
	}
}

// room says whether a client may have one more where there are most places, 0 for no bound.
// Where there is only one client the worker's own bound is enough.
func (s *parts) room(of *account, most int, shared bool) bool {
	return most == 0 || !shared || places.Fair(s.of[of], most-s.all)
}

// room says whether a client may have one more of a port's connections.
func (g *Gate) room(p *Port, of *account) bool {
	return p.parts.room(of, g.o.Most, len(g.served()) > 1)
}

// crowded resets a connection of a client that has as many as it may have.
func (a *arrival) crowded(as *Association) {
	as.account.crowded.Add(1)
	a.gate.quiet.Warn(as.Peer+" has all it may have", "connections are reset: this client has as many as it may have", "client", as.Peer,
		"worker", a.port.o.Worker, "connections", a.port.parts.of[as.account])
	a.refuse("the client has as many connections as it may have")
}
