package scheduler

import "time"

// Constants of calm.
const (
	calmFor  = 2 * time.Second        // of use, after which a path is believed to be steady
	calmLook = 100 * time.Millisecond // the most that a look adds to it
	calmRate = fastRate / 4           // above it what looks like a queue may be the ends' own time
)

// calm is for how long a path in use has neither trembled nor changed its rate. An
// idle one shows neither.
type calm struct {
	at  time.Time // of the look before
	use time.Duration
}

func (c *calm) look(now time.Time, v View, moving bool) {
	gone := now.Sub(c.at)
	c.at = now
	switch {
	case moving:
		c.use = 0
	case v.Flying > evidence:
		c.use = min(c.use+min(gone, calmLook), calmFor)
	}
}

// Steady reports whether the path seems to be: while it was in use, neither its rate
// nor its round trips have varied by themselves lately, so that a round trip longer
// than the least shows a queue. The transport's congestion control cannot tell that by
// itself. A path of more than calmRate never counts as steady.
func (e *Estimator) Steady() bool { return e.calm.use >= calmFor && e.bw < calmRate }
