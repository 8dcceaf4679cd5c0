package slim

import "time"

// Instant is a moment in nanoseconds since its Clock began; 0 is none. It takes a third
// of a time.Time, which counts where 100,000 flows at rest have some each.
type Instant int64

// Clock makes Instants of moments, and compares them as those would, by the monotonic
// clock where they have it.
type Clock struct{ began time.Time }

// NewClock returns a clock that begins at any moment of the program's.
func NewClock(began time.Time) Clock { return Clock{began} }

// At returns t as an Instant, never 0.
func (c Clock) At(t time.Time) Instant {
	if d := t.Sub(c.began); d != 0 {
		return Instant(d)
	}
	return 1
}

// Since is how long before now i was.
func (c Clock) Since(i Instant, now time.Time) time.Duration {
	return now.Sub(c.began) - time.Duration(i)
}
