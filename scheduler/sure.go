package scheduler

import "time"

// Constants of sure.
const (
	sureSpans  = 3               // times as long as wanted, a span says nothing: nobody has looked
	sureBelief = 2 * time.Second // a rate is believed without another
)

// sure is what a link is sure to carry: the largest of the rates of whole round
// trips, by what the transport has delivered, while the link had enough to do. The
// rates that single acknowledgements show, the largest of which is the Estimator's,
// are too high by what acknowledgements bunch: a twentieth is enough that a window
// which follows the round trip that it makes itself grows without end.
//
// Two round trips in a row must show a rate. On a machine that is busy for a moment a
// look shows more than had been delivered at the time that it counts for, and so the
// round trip before it too much, and the one after it too little.
type sure struct {
	at           time.Time // when the present span began
	from         uint64    // delivered then
	looks, fills int       // looks since, and those that found the window full

	last       float64 // bytes per second: of the span before; 0: it said nothing
	best, next float64 // the largest, and of the younger half
	bestAt     time.Time
	addedAt    time.Time
}

// look takes in a look at a transport; keep is how long a rate counts.
func (m *sure) look(now time.Time, v View, window int, keep time.Duration) {
	m.looks++
	if full(v, float64(window)) {
		m.fills++
	}
	if now.Sub(m.addedAt) > sureBelief {
		m.best, m.next = 0, 0
	}
	want, span := max(v.RTT, roundMin), now.Sub(m.at)
	if span < want {
		return
	}
	before := m.last
	m.last = 0
	if span <= sureSpans*want && m.fills*2 > m.looks && v.Delivered >= m.from {
		m.last = float64(v.Delivered-m.from) / span.Seconds()
	}
	if r := min(before, m.last); r > 0 {
		m.add(now, r, keep)
	}
	m.at, m.from, m.looks, m.fills = now, v.Delivered, 0, 0
}

// add keeps the maximum in two halves, as the Estimator does.
func (m *sure) add(now time.Time, r float64, keep time.Duration) {
	m.addedAt = now
	if r >= m.best {
		m.best, m.next, m.bestAt = r, r, now
		return
	}
	m.next = max(m.next, r)
	if now.Sub(m.bestAt) > keep/2 {
		m.best, m.next, m.bestAt = m.next, r, now
	}
}
