package split

import (
	"time"

	"hawser/pkg/guard"
)

// patience is how long a pending flow keeps its place against clients that have
// none. Servers that live answer sooner, and the places of a crowd whose servers
// are dead would else be taken until their dials time out.
const patience = time.Second

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

// displace takes the place of the flow that has waited longest, if that is
// beyond patience, and returns that flow; nil if there is none. The caller holds
// mu, and lets farewell follow without it.
func (k *keeper) displace(now time.Time) (w *ward, goodbye guard.Segment) {
	w = k.pending.oldest
	if w == nil || now.Sub(w.since) < patience {
		return nil, goodbye
	}
	if s := w.flow.State(); s != guard.Over {
		goodbye = w.flow.Reset()
	}
	k.pending.remove(w)
	k.opts.Gate.refuse(w.ends.Client)
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
