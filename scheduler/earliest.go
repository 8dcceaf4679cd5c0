package scheduler

import "time"

// Earliest is path choice by earliest completion with just-in-time pull: the
// link on which the chunk is predicted to arrive first takes it. When that link
// has no room, the best one that has takes the chunk instead, unless all that
// is left of the flow would arrive sooner by waiting, in its turns with what is left of
// others. (The idea of EDPF and ECF; the just-in-time window keeps predictions short, so
// that no plan is stale.)
type Earliest struct{}

// near is a difference of arrivals that says nothing.
const near = time.Millisecond

// sooner reports whether n bytes are predicted to arrive sooner on l than on other.
// Where both take the same, as far as can be told, it is the one with less under
// way: what is in flight counts as a queue only beyond what the path holds, but
// what was given to a link a moment ago is sent before the chunk all the same.
func (l Link) sooner(other Link, n int) bool {
	d := l.ETA(n) - other.ETA(n)
	if d.Abs() > near {
		return d < 0
	}
	return l.drain(l.InFlight) < other.drain(other.InFlight)
}

// Pick implements Path.
func (Earliest) Pick(links []Link, c Chunk) (int, bool) {
	n := c.Size
	best, open := -1, -1
	for i, l := range links {
		if l.State != Up {
			continue
		}
		if best < 0 || l.sooner(links[best], n) {
			best = i
		}
		if l.Room > 0 && (open < 0 || l.sooner(links[open], n)) {
			open = i
		}
	}
	switch {
	case open < 0:
		return 0, false
	case best == open:
		return open, true
	}
	b := links[best]
	// By the time that all is sent it is busy; and one that is silent is so for as long again.
	b.Rate = max(b.Rate, b.Swift)
	waiting := b.drain(b.InFlight+max(c.Left, c.Work)) + b.MinRTT/2 + b.Silent
	return open, waiting >= links[open].ETA(n)
}
