package sealed

import (
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
)

// paceSpan is how long a pace is measured.
const paceSpan = 10 * time.Millisecond

// pace is how fast the connections of a lane send, all together.
type pace struct {
	from time.Time
	sent int     // bytes since
	rate float64 // bytes per second before
}

// record returns how many plain bytes a record is to hold now at most.
func (p *pace) record(now time.Time) int {
	if span := now.Sub(p.from); span >= paceSpan {
		p.rate = float64(p.sent) / span.Seconds()
		p.from, p.sent = now, 0
	}
	return stream.Plain(p.rate, buffer.Most)
}
