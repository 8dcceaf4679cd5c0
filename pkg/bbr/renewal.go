package bbr

import "time"

// Constants of Renewal.
const (
	renewAfter   = 8500 * time.Millisecond // of the ten seconds for which the kernel believes a least round trip
	renewUntil   = 10 * time.Second
	renewOver    = 500 * time.Millisecond // after those: it has measured by itself
	renewSame    = 8                      // that part of a round trip more than the least is the same
	renewNoise   = 500 * time.Microsecond // and this
	renewPackets = 8                      // in flight: with fewer it changes little when it measures
)

// Renewal spares a connection the ProbeRTT of the kernel's BBR (version 1,
// tcp_bbr.c): when its least round trip is ten seconds old it sends four packets a
// round trip for 200 ms, whatever waits: 2 % of a link, and every message behind
// that takes 200 ms longer. BBR begins with the least round trip that the kernel has
// seen in five minutes, and believes it for ten seconds more. So it is made to begin
// again in time, at a moment in which the round trip is as short as that, so that it
// is true: whoever owns the connection lets its queue drain for a moment when that
// is due. Where the path has become longer, or others keep a queue standing, BBR
// measures by itself.
type Renewal struct {
	at    time.Duration // when BBR has begun to believe its least round trip
	least time.Duration
}

// Begun notes that BBR has begun again for another reason.
func (r *Renewal) Begun(now time.Duration) { r.at = now }

// Look takes in the smoothed round trip, the least that the kernel has seen and how
// many packets are in flight. due: the queue had better drain for a moment. renew:
// BBR is to begin again now, and counts as begun.
func (r *Renewal) Look(now, rtt, least time.Duration, flying int) (due, renew bool) {
	if r.least == 0 || least < r.least {
		r.at = now
	}
	r.least = least
	switch age := now - r.at; {
	case rtt == 0 || age < renewAfter:
	case age > renewUntil+renewOver:
		r.at = now
	case flying <= renewPackets:
	case rtt <= least+least/renewSame+renewNoise:
		r.at = now
		return false, true
	default:
		return age < renewUntil, false
	}
	return false, false
}
