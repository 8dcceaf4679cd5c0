package sealed

import (
	"sync/atomic"
	"time"
)

// account counts what all associations with one peer carry. An association ends, when its
// keys are renewed or the peer has gone, before the connections that have joined it.
type account struct {
	joined atomic.Uint64
	open   atomic.Int64 // connections that have joined and not ended
}

// flows returns how many connections have joined, and how many of them are open.
func (a *account) flows() (joined, open uint64) {
	return a.joined.Load(), uint64(max(a.open.Load(), 0))
}

// visits is a client as its gateway knows it.
type visits struct {
	account
	standing int       // associations, two for a moment when the keys are renewed
	since    time.Time // when there began to be any, or none
}

// stand notes that so many associations more stand.
func (v *visits) stand(more int) {
	before := v.standing
	if v.standing += more; (before > 0) != (v.standing > 0) {
		v.since = time.Now()
	}
}

// ClientStatus says how a client is.
type ClientStatus struct {
	Up           bool      // an association stands
	Since        time.Time // when that became so; zero: it was never there
	Joined, Open uint64    // connections, of all its associations
}

// Client returns how the client with a key is.
func (g *Gate) Client(key [32]byte) (s ClientStatus) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if v := g.visits[key]; v != nil {
		s.Up, s.Since = v.standing > 0, v.since
		s.Joined, s.Open = v.flows()
	}
	return s
}

// enter makes an association one that can be joined. The caller has made it for a client.
func (g *Gate) enter(a *Association) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visits[a.Key]
	if v == nil {
		v = &visits{}
		g.visits[a.Key] = v
	}
	a.account = &v.account
	g.table[a.ID] = a
	v.stand(1)
}

// leave ends an association. Connections that have joined live on.
func (g *Gate) leave(a *Association) {
	a.end()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.table, a.ID)
	g.visits[a.Key].stand(-1)
}
