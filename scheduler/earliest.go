package scheduler

// Earliest is path choice by earliest completion with just-in-time pull: the
// link on which the chunk is predicted to arrive first takes it. When that link
// has no room, the best one that has takes the chunk instead, unless all that
// is left of the flow would arrive sooner by waiting. (The idea of EDPF and ECF;
// the just-in-time window keeps predictions short, so that no plan is stale.)
type Earliest struct{}

// Pick implements Path.
func (Earliest) Pick(links []Link, c Chunk) (int, bool) {
	n, left := c.Size, c.Left
	best, open := -1, -1
	for i, l := range links {
		if l.State != Up {
			continue
		}
		if best < 0 || l.ETA(n) < links[best].ETA(n) {
			best = i
		}
		if l.Room > 0 && (open < 0 || l.ETA(n) < links[open].ETA(n)) {
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
	waiting := b.drain(b.InFlight+left) + b.MinRTT/2
	return open, waiting >= links[open].ETA(n)
}
