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

// pendingFlows are a guard's flows whose servers have not answered, in the
// order of their coming. The keeper's mu guards it.
type pendingFlows struct{ oldest, newest *ward }

// add appends a flow.
func (p *pendingFlows) add(w *ward, now time.Time) {
	w.since, w.older = now, p.newest
	if p.newest != nil {
		p.newest.newer = w
	} else {
		p.oldest = w
	}
	p.newest = w
}

// remove takes a flow out; one that is not there is left alone.
func (p *pendingFlows) remove(w *ward) {
	switch {
	case w.older != nil:
		w.older.newer = w.newer
	case p.oldest == w:
		p.oldest = w.newer
	default:
		return
	}
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		p.newest = w.older
	}
	w.older, w.newer = nil, nil
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
	if w == nil || now.Sub(w.since) < most {
		return nil, goodbye
	}
	if s := w.flow.State(); s != guard.Over {
		goodbye = w.flow.Reset()
	}
	k.pending.remove(w)
	k.opts.Gate.refuse(w.ends.Client, w.server())
	w.displaced = true
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
	w.conn.expel()
}
