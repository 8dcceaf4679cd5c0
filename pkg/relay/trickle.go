package relay

import (
	"math"
	"time"

	"hawser/pkg/party"
)

const (
	// slowWait is how long a party that has more waiting for it than it takes must not
	// take any of it to be a slow reader, in trickleTime.
	slowWait = 4
	// slowFor is for how much it then counts as one before it must be found slow anew, in
	// trickleBytes.
	slowFor = 128

	trickleTime  = 64 * time.Millisecond
	trickleBytes = 64
)

// trickle finds out which parties read slowly. A slow reader still has its own buffers and
// the party's to read, so what comes next may come later, and more of it at a time. To send
// each kilobyte as soon as there is room for it, to 10,000 parties that read one per second,
// takes all of two processors. A party that takes at once what comes, as one that waits for
// messages does, is never found slow.
type trickle struct {
	since uint8 // when the party last took no more, in trickleTime, wraps; 0: it takes all
	slow  uint8 // for how much more it counts as slow, in trickleBytes
}

// stamp is a time as trickle keeps it.
func stamp(now time.Time) uint8 {
	return uint8(max(now.UnixMilli()/trickleTime.Milliseconds()%(math.MaxUint8+1), 1))
}

// full notes that the party takes no more.
func (t *trickle) full(now time.Time) { t.since = stamp(now) }

// took notes that it has taken all that there was, n bytes.
func (t *trickle) took(n int, now time.Time) {
	t.slow -= uint8(min((n+trickleBytes-1)/trickleBytes, int(t.slow)))
	if t.since != 0 && stamp(now)-t.since >= slowWait {
		t.slow = slowFor
	}
	t.since = 0
}

// room is what a session is told of a slow reader: how much his party takes now, and at
// least 1; 0 of others.
func (f *flow) room() uint16 {
	if f.down.trickle.slow == 0 {
		return 0
	}
	r, ok := f.conn.(party.Roomer)
	if !ok {
		return 0
	}
	return uint16(min(max(r.Room(), 1), math.MaxUint16))
}
