package scheduler

import "time"

// Bounds of what volleys are believed for (Sense.Carries), times what a path was believed
// to carry.
const (
	jumpFrom = 1.3 // less is no news: other ways find it
	jumpMost = 2   // at once: volleys of a path that delivers unevenly may agree by chance
)

// Volleys reports whether the transport should send several packets at a time, to measure
// the path by how far apart they arrive: its rate changes, and is followed, and it does not
// deliver in bunches, which would show as the rate.
func (e *Estimator) Volleys() bool { return e.follower.Window() > 0 && !e.follower.bunched }

// jump takes in what volleys say. Once the queue is empty what is delivered is what was
// sent, so that a search finds a rate that has risen within several round trips. How far
// apart the packets of a volley arrive shows it in one, also where the path has become
// longer meanwhile, which looks like a queue.
func (f *Follower) jump(now time.Time, v View) {
	if v.Volleys == f.volleys {
		return
	}
	f.volleys = v.Volleys
	if f.bunched || v.Carries <= jumpFrom*f.rate {
		return
	}
	f.rate = min(v.Carries, jumpMost*f.rate)
	f.window = max(f.window, f.fill(f.rate))
	f.finding, f.weighing, f.over, f.settling = false, false, false, false
	f.held, f.search, f.rest, f.drains, f.skip = 0, 0, 0, 0, 1
	f.open(now)
}
