package link

import "time"

// Backoff spaces out attempts: delays grow from Min by factors of two up to
// Max, each shortened at random by up to half so that many edges whose cloud
// came back do not dial in step. It is a plain value without a clock.
type Backoff struct {
	Min, Max time.Duration // 0 < Min <= Max
	failures int
}

// Next counts one failure and returns how long to wait before the next
// attempt: between half of the delay and all of it. random is uniform in
// [0, 1).
func (b *Backoff) Next(random float64) time.Duration {
	d := b.Min
	for i := 0; i < b.failures && d < b.Max; i++ {
		d *= 2
	}
	b.failures++
	d = min(d, b.Max)
	return d - time.Duration(random*float64(d)/2)
}

// Reset forgets all failures: the link stands again.
func (b *Backoff) Reset() { b.failures = 0 }

// Failures returns how many attempts failed since the last Reset.
func (b *Backoff) Failures() int { return b.failures }
