package agent

import (
	"time"
)

// When a race goes on although the old connection speaks again.
const (
	raceFirm  = 150 * time.Millisecond // by then a path that lives would have let an attempt connect
	raceStill = time.Second            // for which it goes on
	raceMoved = 64 << 10               // bytes that the old connection carries meanwhile: it is well
)

// incumbent is the connection that others are raced against.
//
// That it speaks again ends the race at once only if it was silent for a moment. After
// longer it is slow to recover: its cloud's end may not have noticed yet that the path is
// back, and looks only once a second (TCP) or as long again as the outage was (QUIC, whose
// window is full of what was lost); and all that was under way goes first, though it has
// long arrived over other uplinks. A fresh connection is soon ahead of it, unless only
// acknowledgements had been lost.
type incumbent struct {
	serving
	uplink *uplink
	until  <-chan time.Time // set while the race goes on although it speaks
	moved  uint64           // what the link had carried when it spoke
}

// speaks reports whether it stands and is not silent.
func (i *incumbent) speaks() bool { return !i.uplink.silent.Load() && !isClosed(i.ended) }

// spoke takes in that it may speak again, and reports whether the race, which has
// begun at some time, is over.
func (i *incumbent) spoke(begin time.Time) bool {
	switch {
	case !i.speaks():
		return false
	case time.Since(begin) < raceFirm:
		return true
	case i.until == nil:
		i.until, i.moved = time.After(raceStill), i.carried()
	}
	return false
}

// late takes in that until has passed, and reports whether the race is over.
func (i *incumbent) late() bool {
	i.until = nil
	return i.speaks()
}

// well reports whether it carries again as if it had never been cut off.
func (i *incumbent) well() bool {
	return i.until != nil && i.speaks() && i.carried() >= i.moved+raceMoved
}

// carried is how many bytes the link has carried, both ways.
func (i *incumbent) carried() uint64 {
	st, _ := i.session.Status()
	for _, l := range st.Links {
		if l.ID == i.uplink.id {
			return l.BytesSent + l.BytesGot
		}
	}
	return 0
}
