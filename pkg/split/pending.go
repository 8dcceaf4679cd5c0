package split

import (
	"time"

	"hawser/pkg/guard"
)

// How long a pending flow keeps its place against a client that has none: against
// one whose handshake was just made (freshTime), and against one that has asked
// before. So a crowd whose servers are dead keeps newcomers out for a moment only,
// although it asks again and again; and it turns over slowly, which would cost the
// agents processor time and memory. Servers that live answer sooner, most even if
// the first SYN is lost: the second leaves a second later.
const (
	patienceFresh = time.Second
	patience      = 3 * time.Second
	freshTime     = 500 * time.Millisecond
)

// Lists that a flow may be in.
const (
	byAge    = iota // all pending ones; all unused ones
	byServer        // those that wait for their turn at a server

	byEntry  = byServer // those that wait for their handshake with the stack, and
	byClient = byServer // unused ones of a client: both wait for their server no longer
)

// beside is a flow's neighbours in a list.
type beside struct{ older, newer *ward }

// wards is a list of flows in the order of their coming. The keeper's mu guards it.
type wards struct {
	by             int
	oldest, newest *ward
}

// add appends a flow.
func (p *wards) add(w *ward) {
	w.near[p.by].older = p.newest
	if p.newest != nil {
		p.newest.near[p.by].newer = w
	} else {
		p.oldest = w
	}
	p.newest = w
}

// remove takes a flow out; one that is not there is left alone.
func (p *wards) remove(w *ward) {
	n := &w.near[p.by]
	switch {
	case n.older != nil:
		n.older.near[p.by].newer = n.newer
	case p.oldest == w:
		p.oldest = n.newer
	default:
		return
	}
	if n.newer != nil {
		n.newer.near[p.by].older = n.older
	} else {
		p.newest = n.older
	}
	*n = beside{}
}

// fresh says that a client's handshake was just made: its segment echoes the
// time of the SYN-ACK. Of clients without timestamps it is not known.
func (k *keeper) fresh(s *segment) bool {
	_, echo, ok := guard.Stamps(s.tcp())
	return ok && k.clock()-echo < uint32(freshTime.Milliseconds())
}

// displace takes the place of the flow that has waited longest, if that has for
// longer than it may, and returns that flow; nil if there is none. The caller
// holds mu, and lets farewell follow without it.
func (k *keeper) displace(now time.Time, fresh bool) (w *ward, goodbye guard.Segment) {
	most := patience
	if fresh {
		most = patienceFresh
	}
	w = k.pending.oldest
	if w == nil || moments.Since(w.since, now) < most {
		return nil, goodbye
	}
	if s := w.flow.State(); s != guard.Over {
		goodbye = w.flow.Reset()
	}
	if w.asked {
		k.pending.remove(w)
		k.opts.Gate.refuse(w.ends.Client, w.server(), true)
		w.displaced = true
	}
	k.remove(w)
	k.count.displaced.Add(1)
	return w, goodbye
}

// farewell resets the client and the connection of a displaced flow.
func (k *keeper) farewell(w *ward, goodbye *guard.Segment) {
	if w == nil {
		return
	}
	if goodbye.Flags != 0 {
		k.emit(goodbye, &w.ends, w.v6)
	}
	w.expel()
	if w.asked {
		k.opts.Gate.proceed(w.server())
	}
}

// expel ends the connection of a flow that the guard has forgotten, if it has one.
func (w *ward) expel() {
	if w.conn != nil {
		w.conn.fail()
	}
}
