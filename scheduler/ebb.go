package scheduler

import "time"

// Constants of ebb.
const (
	ebbMarks = 32                     // looks back that are kept
	ebbLooks = 8                      // of them that say something together, at least
	ebbMin   = 60 * time.Millisecond  // beyond the least round trip: what is in the network for longer waits in a queue
	ebbMost  = 180 * time.Millisecond // of queue, by the rate of the moment
	ebbBase  = 10 * time.Second       // for which the least round trip is believed, at least
	ebbFloor = 4 * packet             // bytes that may be in flight all the same, to find out when it ends
	ebbShare = 0.5                    // of the predicted rate: less than that is much lower
	ebbRate  = 8 << 10                // bytes per second that a link is predicted to carry at least
	farTimes = 4                      // times as much in flight, with the same round trip: that is no queue
	farSame  = 20                     // that part of a round trip more or less is the same
)

// ebb notices within a round trip or two that a link has become slower: what was in the
// network a while ago, for longer than the path's length explains, still is. The link was
// busy all that time, so what it delivered since then is its rate. Nothing else shows that
// so soon: other rates are maxima, or change once in a round trip, which takes seconds on a
// line that has become thirty times slower and has a queue of the former rate.
type ebb struct {
	marks [ebbMarks]mark
	n     int
	seen  uint64    // delivered at the last look
	moved time.Time // when it last grew
	rate  float64   // bytes per second, while on
	on    bool

	// The least round trip of the last ten to twenty seconds: what one look after them
	// shows has a queue in it just where this matters, which would count as distance.
	base, next time.Duration
	baseAt     time.Time

	far     time.Duration // a longer one that was measured with little in flight; 0: none
	little  int           // bytes that were
	farNeed uint64        // delivered when a round with much more has come; 0: it has not begun
}

// mark is what a look showed.
type mark struct {
	at        time.Time
	delivered uint64
	inFlight  int
}

// look takes in a look at a transport. After a silence the line may carry what it had
// before: what comes then says nothing of its rate at first.
func (b *ebb) look(now time.Time, v View) {
	if v.RTT == 0 {
		*b = ebb{}
		return
	}
	b.see(now, v.RTT)
	if b.base < leastPath {
		b.on, b.n = false, 0
		return
	}
	span := b.base*3/2 + ebbMin
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

// see takes in a round trip. The least one is kept in two halves, as the Estimator's rate.
func (b *ebb) see(now time.Time, rtt time.Duration) {
	if b.base == 0 || rtt <= b.base {
		b.base, b.next, b.baseAt = rtt, rtt, now
		return
	}
	if b.next == 0 || rtt < b.next {
		b.next = rtt
	}
	if now.Sub(b.baseAt) > ebbBase {
		b.base, b.next, b.baseAt = b.next, 0, now
	}
}

// measured takes in a round trip with so little in flight. It is that of a path which has
// become longer, and would count as a queue for as long as base is believed, or there is a
// queue still, of a line that is so slow.
func (b *ebb) measured(rtt time.Duration, inFlight int) {
	if b.far = 0; rtt > b.base {
		b.far, b.little, b.farNeed = rtt, max(inFlight, ebbFloor), 0
	}
}

// prove reports once that the path has become longer: a round with much more in flight has
// the same round trip.
func (b *ebb) prove(now time.Time, v View) bool {
	switch {
	case b.far == 0:
	case (v.RTT - b.far).Abs() > b.far/farSame:
		b.far = 0
	case b.farNeed == 0:
		if v.InFlight >= farTimes*b.little {
			b.farNeed = v.Delivered + uint64(v.InFlight)
		}
	case v.Delivered >= b.farNeed:
		b.base, b.next, b.baseAt, b.far = v.RTT, v.RTT, now, 0
		return true
	}
	return false
}

// most bounds what may be in flight.
func (b *ebb) most(window int) int {
	if !b.on {
		return window
	}
	return min(window, max(ebbFloor, int(b.rate*(b.base+ebbMost).Seconds())))
}

// least is a predicted rate, or that of the moment where that is much lower.
func (b *ebb) least(rate float64) float64 {
	if !b.on || b.rate > ebbShare*rate {
		return rate
	}
	return max(b.rate, ebbRate)
}
