package split

import (
	"container/heap"
	"sync"
	"time"

	"hawser/pkg/guard"
	"hawser/pkg/slim"
)

// unused bounds the connections that stand at both ends and on which neither has
// sent a byte yet: each has the TCP stack's memory at both agents, and costs its
// client no more than a handshake. When there are too many, one ends: the oldest of
// the client that has most, if those are more than its part, else the oldest of all.
// So who makes many ends their own, and where many have a few each those go that
// wait for longest, not those whose clients are about to speak. A crowd that comes at
// once may be as much again for a moment (grace). Any goroutine may call its methods;
// mu is the last lock that is taken.
type unused struct {
	most int // 0: no bound, and nothing is noted

	mu      sync.Mutex
	all     wards
	total   int
	clients map[[16]byte]*holder
	peak    slim.Peak // of clients
	ranks   ranks
	sweeps  bool // sweep is to be called
}

// unusedPart is the part of all that one client may have before its own go first: a
// browser's dozens at once are less, a flood from a few addresses is more.
const unusedPart = 16

// grace is how long a connection is left alone while there are at most twice as many
// as there may be: its client may have heard only now that its server is there, and
// have a slow line to its first byte.
const grace = 100 * time.Millisecond

// holder is one client's unused connections in the order of their coming.
type holder struct {
	wards
	client [16]byte
	count  int
	rank   int // its place in ranks
}

// newUnused returns an empty one; most is limits.unused, negative: no bound.
func newUnused(most int) unused {
	return unused{most: max(most, 0), all: wards{by: byAge}, clients: map[[16]byte]*holder{}}
}

// add notes a connection that nobody has used yet. If there are too many now, it
// takes out the one that is to end, and returns it: end is to follow, when no lock
// is held. The caller holds the mu of w's keeper.
func (u *unused) add(w *ward, now time.Time) *ward {
	if u.most == 0 {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	client := guard.Identity(w.ends.Client)
	h := u.clients[client]
	if h == nil {
		h = &holder{wards: wards{by: byClient}, client: client}
		u.clients[client] = h
		heap.Push(&u.ranks, h)
	}
	w.since, w.unused = moments.At(now), true
	h.add(w)
	u.all.add(w)
	h.count++
	u.total++
	heap.Fix(&u.ranks, h.rank)
	old := u.excess(now)
	if u.total > u.most && !u.sweeps {
		u.sweeps = true
		time.AfterFunc(grace, u.sweep)
	}
	return old
}

// excess takes out a connection that is to end now, if there is one. The caller holds
// mu.
func (u *unused) excess(now time.Time) *ward {
	if u.total <= u.most {
		return nil
	}
	old := u.all.oldest
	if h := u.ranks[0]; h.count > u.most/unusedPart {
		old = h.oldest
	}
	if u.total <= 2*u.most && moments.Since(old.since, now) < grace {
		return nil
	}
	u.drop(u.clients[guard.Identity(old.ends.Client)], old)
	return old
}

// sweep ends those that are too many and whose grace is over, and looks again later if
// there are more. No lock may be held.
func (u *unused) sweep() {
	now := time.Now()
	for {
		u.mu.Lock()
		old := u.excess(now)
		if old == nil {
			if u.sweeps = u.total > u.most; u.sweeps {
				time.AfterFunc(grace/4, u.sweep)
			}
			u.mu.Unlock()
			return
		}
		u.mu.Unlock()
		old.end()
	}
}

// remove takes a connection out; one that is not there is left alone.
func (u *unused) remove(w *ward) {
	if u.most == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if w.unused {
		u.drop(u.clients[guard.Identity(w.ends.Client)], w)
	}
}

// drop takes out a connection of h's. The caller holds mu.
func (u *unused) drop(h *holder, w *ward) {
	w.unused = false
	h.remove(w)
	u.all.remove(w)
	h.count--
	u.total--
	if h.count > 0 {
		heap.Fix(&u.ranks, h.rank)
		return
	}
	heap.Remove(&u.ranks, h.rank)
	delete(u.clients, h.client)
	u.clients = slim.Map(u.clients, &u.peak)
}

// count is how many there are.
func (u *unused) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.total
}

// ranks is a heap of clients: first who has most, of those who have as many the
// one with the oldest.
type ranks []*holder

// Len implements heap.Interface.
func (r ranks) Len() int { return len(r) }

// Less implements heap.Interface.
func (r ranks) Less(i, j int) bool {
	if r[i].count != r[j].count {
		return r[i].count > r[j].count
	}
	return r[i].oldest != nil && r[j].oldest != nil && r[i].oldest.since < r[j].oldest.since
}

// Swap implements heap.Interface.
func (r ranks) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].rank, r[j].rank = i, j
}

// Push implements heap.Interface.
func (r *ranks) Push(h any) {
	h.(*holder).rank = len(*r)
	*r = append(*r, h.(*holder))
}

// Pop implements heap.Interface.
func (r *ranks) Pop() any {
	last := len(*r) - 1
	h := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return h
}

// Unused is how many connections stand and have not carried a byte yet; with no
// bound it is 0.
func (g *Gate) Unused() int { return g.unused.count() }

// rest notes a flow that has both its server and its connection of the stack's,
// unless a byte has come already. It returns a flow for end. The caller holds mu.
func (k *keeper) rest(w *ward) (old *ward) {
	if w.used || w.left || !w.connected || !w.conn.is(isUp) || w.flow.State() == guard.Over {
		return nil
	}
	return k.opts.Gate.unused.add(w, time.Now())
}

// use notes that a flow has carried a byte, or is over. The caller holds mu.
func (k *keeper) use(w *ward) {
	if w.used {
		return
	}
	w.used = true
	if w.connected {
		k.opts.Gate.unused.remove(w)
	}
}

// end resets a flow that unused.add has returned, unless a byte has come
// meanwhile; nil is left alone. The stack tells the client, and the flow's owner,
// whose part it is to tell the server. No lock may be held.
func (w *ward) end() {
	if w == nil {
		return
	}
	k := w.conn.stack.keeper
	k.mu.Lock()
	over := w.used
	w.used = true
	k.mu.Unlock()
	if over {
		return
	}
	k.count.unused.Add(1)
	w.conn.ep.Abort()
}
