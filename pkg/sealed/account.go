package sealed

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// account counts what all associations with one peer carry. An association ends, when its
// keys are renewed or the peer has gone, before the connections that have joined it.
type account struct {
	joined atomic.Uint64
	open   atomic.Int64 // connections that have joined and not ended

	crowded atomic.Uint64 // connections that were reset because there were too many
	ousted  atomic.Bool   // all of them have to end
}

// flows returns how many connections have joined, and how many of them are open.
func (a *account) flows() (joined, open uint64) {
	return a.joined.Load(), uint64(max(a.open.Load(), 0))
}

// visits is a client as its gateway knows it.
type visits struct {
	account
	standing []*Association // the oldest first, two for a moment when the keys are renewed
	since    time.Time      // when there began to be any, or none
}

// mostAssociations of one client stand at a time. A client has one, or two, and some that
// it has left without a word until that is found out; boxes that share a key have one each,
// and there may be a fleet of them. Each costs a descriptor and the state of a TLS connection,
// some 27 KB, which a client could otherwise use up for all.
const mostAssociations = 4096

// stand notes an association that stands, and returns the one that has to go for it, or nil.
func (v *visits) stand(a *Association) (most *Association) {
	if len(v.standing) == 0 {
		v.since = time.Now()
	}
	if v.standing = append(v.standing, a); len(v.standing) > mostAssociations {
		return v.standing[0]
	}
	return nil
}

// fall notes that one stands no more.
func (v *visits) fall(a *Association) {
	v.standing = slices.DeleteFunc(v.standing, func(other *Association) bool { return other == a })
	if len(v.standing) == 0 {
		v.since = time.Now()
	}
}

// ClientStatus says how a client is.
type ClientStatus struct {
	Up           bool      // an association stands
	Since        time.Time // when that became so; zero: it was never there
	Joined, Open uint64    // connections, of all its associations
	Crowded      uint64    // those that were reset because it had as many as it may have
}

// Client returns how the client with a key is.
func (g *Gate) Client(key [32]byte) (s ClientStatus) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if v := g.visits[key]; v != nil {
		s.Up, s.Since = len(v.standing) > 0, v.since
		s.Joined, s.Open = v.flows()
		s.Crowded = v.crowded.Load()
	}
	return s
}

// errEntry is why one that is about to have an association has none.
var errEntry = errors.New("the client's entry has changed meanwhile")

// enter makes an association one that can be joined. The caller has made it for a client,
// who must still be the same. It returns his oldest one where there are too many.
func (g *Gate) enter(a *Association, client Client) (most *Association, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now, there := g.clients[a.Key]; !there || !now.same(client) {
		return nil, errEntry
	}
	v := g.visits[a.Key]
	if v == nil {
		v = &visits{}
		g.visits[a.Key] = v
	}
	a.account = &v.account
	g.table[a.ID] = a
	return v.stand(a), nil
}

// leave ends an association. Connections that have joined live on.
func (g *Gate) leave(a *Association) {
	a.end()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.table, a.ID)
	if v := g.visits[a.Key]; v != nil && a.account == &v.account { // else Serve has forgotten it
		v.fall(a)
	}
}
