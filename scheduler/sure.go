package scheduler

import "time"

// Constants of sure.
const (
	sureSpans  = 3               // times as long as wanted, a span says nothing: nobody has looked
	sureBelief = 2 * time.Second // a rate is believed without another
)

// sure is what a link is sure to carry: the largest rate that the transport delivered
// over whole round trips in which the link had enough to do. The Estimator's rate, the
// largest that single acknowledgements show, is too high where acknowledgements come in
// bunches. One that is too high by a twentieth is enough to have a window grow without end
// that follows the round trip which it causes itself.
//
// Two round trips in a row must show a rate: on a busy machine a look may come late, and
// then counts too much for the round trip before it and too little for the one after it.
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
