package scheduler

import "time"

// Constants of ebb.
const (
	ebbMarks = 32                     // looks back that are kept
	ebbLooks = 8                      // of them that say something together, at least
	ebbMin   = 60 * time.Millisecond  // beyond the least round trip: what is in the network for longer waits in a queue
	ebbMost  = 250 * time.Millisecond // of queue, by the rate of the moment
	ebbFloor = 4 * packet             // bytes that may be in flight all the same, to find out when it ends
	ebbShare = 0.5                    // of the predicted rate: less than that is much lower
	ebbRate  = 8 << 10                // bytes per second that a link is predicted to carry at least
)

// ebb notices within a round trip or two that a link delivers less than is in flight
// for it: what was in the network a while ago, longer than the path explains, still is.
// The link was busy all that time, so what came since then is its rate. All else that
// is known of a link's rate is a maximum, or changes once in a round trip, and a round
// trip that contains the queue of a line that has become thirty times slower takes
// seconds.
type ebb struct {
	marks [ebbMarks]mark
	n     int
	seen  uint64    // delivered at the last look
	moved time.Time // when it last grew
	rate  float64   // bytes per second, while on
	on    bool
}

// mark is what a look showed.
type mark struct {
	at        time.Time
	delivered uint64
	inFlight  int
}

// look takes in a look at a transport; base is the least round trip. After a silence the
// line may carry what it had before: what comes then says nothing of its rate at first.
func (b *ebb) look(now time.Time, v View, base time.Duration) {
	if v.RTT == 0 || base < leastPath {
		*b = ebb{}
		return
	}
	span := base*3/2 + ebbMin
	if v.Delivered != b.seen {
		if now.Sub(b.moved) > span {
			b.n = 0
		}
		b.seen, b.moved = v.Delivered, now
	}
	if b.n == 0 || now.Sub(b.marks[(b.n-1)%ebbMarks].at) >= span*3/2/ebbMarks {
		b.marks[b.n%ebbMarks] = mark{now, v.Delivered, v.InFlight}
		b.n++
	}
	b.on = false
	for i := b.n - 1; i >= max(b.n-ebbMarks, 0); i-- {
		m := &b.marks[i%ebbMarks]
		if gone := now.Sub(m.at); gone >= span {
			if gone < 3*span && b.n-i > ebbLooks && v.Delivered >= m.delivered && v.Delivered-m.delivered < uint64(m.inFlight) {
				b.on, b.rate = true, float64(v.Delivered-m.delivered)/gone.Seconds()
			}
			return
		}
	}
}

// most bounds what may be in flight.
func (b *ebb) most(window int, base time.Duration) int {
	if !b.on {
		return window
	}
	return min(window, max(ebbFloor, int(b.rate*(base+ebbMost).Seconds())))
}

// least is a predicted rate, or that of the moment where that is much lower.
func (b *ebb) least(rate float64) float64 {
	if !b.on || b.rate > ebbShare*rate {
		return rate
	}
	return max(b.rate, ebbRate)
}
