package bbr

import "time"

// Pacing of 5.6.2 for a sender that wakes up by a coarse timer.
const (
	catchUp      = 4 * time.Millisecond // of sending that a late timer may make up for
	burstPackets = 4                    // may always be sent at once after a pause
)

// Pacer spreads packets over time with a token bucket. Its zero value is a
// full one.
type Pacer struct {
	spent bool // something was sent
	at    time.Duration
	left  float64 // bytes that may be sent at once, at that time; may be negative
}

// Budget is how many bytes may be sent at once now, at a rate in bytes per
// second with packets of the given size.
func (p *Pacer) Budget(now time.Duration, rate float64, packet int) int {
	most := max(rate*catchUp.Seconds(), float64(burstPackets*packet))
	if !p.spent {
		return int(most)
	}
	return int(min(p.left+rate*max(now-p.at, 0).Seconds(), most))
}

// Sent takes size bytes out of the budget.
func (p *Pacer) Sent(now time.Duration, rate float64, packet, size int) {
	p.left = float64(p.Budget(now, rate, packet) - size)
	p.at, p.spent = max(p.at, now), true
}

// Next is when the budget will be at least volume bytes; the time may have
// passed.
func (p *Pacer) Next(rate float64, volume int) time.Duration {
	missing := float64(volume) - p.left
	if !p.spent || missing <= 0 {
		return p.at
	}
	return p.at + seconds(min(missing/rate, 1))
}

// Quantum is how much to send at once at a rate (5.6.3), bytes.
func Quantum(rate float64, packet int) int {
	return max(min(int(rate*quantumTime.Seconds()), quantumMost), 2*packet)
}
