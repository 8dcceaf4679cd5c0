package bbr

import "time"

// Pacing of 5.6.2 for a sender that wakes up by a coarse timer.
const (
	volleyPart   = 12 * time.Millisecond // of sending makes a volley, within bounds
	volleyLeast  = 6                     // packets: fewer would not tell how far apart they arrive
	volleyMost   = 16                    // packets: more would hold up messages
	catchUp      = 4 * time.Millisecond  // of sending that a late timer may make up for
	burstPackets = 4                     // may always be sent at once after a pause
)

// Pacer spreads packets over time with a token bucket. Its zero value is a
// full one.
type Pacer struct {
	Volley int // bytes that are sent at once; 0: one packet after the other

	firing bool // the present volley is not complete
	spent  bool // something was sent
	at     time.Duration
	left   float64 // bytes that may be sent at once, at that time; may be negative
}

// Budget is how many bytes may be sent at once now, at a rate in bytes per
// second with packets of the given size.
func (p *Pacer) Budget(now time.Duration, rate float64, packet int) int {
	most := max(rate*catchUp.Seconds(), float64(burstPackets*packet), float64(p.Volley))
	if !p.spent {
		return int(most)
	}
	return int(min(p.left+rate*max(now-p.at, 0).Seconds(), most))
}

// May reports whether a packet may be sent now. The first one of a volley waits until
// there is budget for all of it, but for one packet, as timers round.
func (p *Pacer) May(now time.Duration, rate float64, packet int) bool {
	budget := p.Budget(now, rate, packet)
	p.firing = budget >= packet && (p.firing || budget >= p.Volley-packet)
	return p.firing
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

// Volley is how much to send at once at a rate where packets are sent in volleys, bytes.
func Volley(rate float64, packet int) int {
	return min(max(int(rate*volleyPart.Seconds()), volleyLeast*packet), volleyMost*packet)
}
