package guard

import (
	"time"

	"hawser/pkg/slim"
)

// A server that has just answered is asked for each client that wants it, as fast
// as it answers (see pace). Of one that has not it is not known whether it is
// there: it is asked for a few, and the others wait in the guard, where one costs
// little, until it answers one of those. A server that does not answer costs both
// agents and the links those few connections then, however many clients want it.
const (
	// trials is for how many clients at a time a server is asked that has not
	// answered of late. So many at once have no more to wait than one alone.
	trials = 32
	// heardFor is how long after an answer a server is asked as fast as it answers:
	// more than a round trip, so that a server in use stays one.
	heardFor = 2 * time.Second
	// silentFor is how long nobody may wait for a server that was found silent:
	// the cloud would refuse at once as well.
	silentFor = time.Second
)

// Server is whom a client wants to reach. The zero Server is one of whom nothing
// is counted.
type Server struct {
	Addr [16]byte
	Port uint16
}

// server is what a gate knows of one.
type server struct {
	pending int       // flows
	asked   int       // those of them for which it is asked; the others wait
	heard   time.Time // when it has answered last
	silent  time.Time // until when it counts as silent
	pace    pace
}

// Ask says whether a server is asked for one more pending flow; after true
// Connected, or Refused with asked, must follow once.
func (g *Gate) Ask(s Server, now time.Time) bool {
	r := g.servers[s]
	if r == nil {
		return false
	}
	most := trials
	if g.heard(s, now) {
		most = r.pace.most(now)
	}
	if r.asked >= most {
		return false
	}
	r.pace.ask(r.asked, now)
	r.asked++
	return true
}

// heard says that a server has answered of late.
func (g *Gate) heard(s Server, now time.Time) bool {
	r := g.servers[s]
	return r != nil && !r.heard.IsZero() && now.Sub(r.heard) < heardFor
}

// Silent notes that a server has not answered in time: nobody needs to wait for
// it. It returns false if it has answered somebody else meanwhile.
func (g *Gate) Silent(s Server, now time.Time) bool {
	if g.heard(s, now) {
		return false
	}
	g.six.missed(s)
	r := g.servers[s]
	if r == nil {
		r = &server{}
		g.servers[s] = r
	}
	r.silent = now.Add(silentFor)
	return true
}

// arrive notes a pending flow to a server.
func (g *Gate) arrive(s Server) {
	if s == (Server{}) {
		return
	}
	r := g.servers[s]
	if r == nil {
		r = &server{}
		g.servers[s] = r
	}
	r.pending++
}

// left notes that a flow is pending no more, and says whether others wait for
// that server. answered is when it has answered; zero: it has not.
func (g *Gate) left(s Server, asked bool, answered time.Time) (wait bool) {
	g.pending--
	r := g.servers[s]
	if r == nil {
		return false
	}
	r.pending--
	if asked {
		r.asked--
		r.pace.end(!answered.IsZero(), answered)
	}
	if !answered.IsZero() {
		r.heard, r.silent = answered, time.Time{}
	}
	if r.pending == 0 && r.heard.IsZero() && r.silent.IsZero() {
		g.forgetServer(s)
	}
	return r.pending > r.asked
}

func (g *Gate) forgetServer(s Server) {
	delete(g.servers, s)
	g.servers = slim.Map(g.servers, &g.serverPeak)
}

// sweep forgets, once a second, servers of which nothing counts any more.
func (g *Gate) sweep(now time.Time) {
	if now.Sub(g.swept) < time.Second {
		return
	}
	g.swept = now
	for s, r := range g.servers {
		if r.pending == 0 && now.Sub(r.heard) >= heardFor && !now.Before(r.silent) {
			g.forgetServer(s)
		}
	}
}

// taken is how many pending flows there are to a server.
func (g *Gate) taken(s Server) int {
	if r := g.servers[s]; r != nil {
		return r.pending
	}
	return 0
}

// deaf says that a server was found silent a moment ago.
func (g *Gate) deaf(s Server, now time.Time) bool {
	r := g.servers[s]
	return r != nil && now.Before(r.silent)
}
