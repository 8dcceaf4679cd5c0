package bbr

import "time"

// Constants of Recall.
const (
	recallFor   = 30 * time.Second // for which a path's product is remembered; older ones are forgotten by halves
	recallShare = 0.5              // of the product: careful resume's jump (RFC 9959)
	recallMost  = 64               // packets
)

// Recall is what connections over one path have found that it holds, for the next
// one to begin with: half of the largest product of rate and round trip of the last
// 15 to 30 seconds, and 64 packets at most. Without it each begins with ten packets,
// which takes four round trips to be a product of 15 Mbit/s and 100 ms.
type Recall struct {
	most, next float64   // bytes: the largest, and that of the younger half
	half, at   time.Time // the younger half's begin, and the newest; zero: nothing is known
}

// Note takes in what a connection holds to be the path's rate, in bytes per second, and its least
// round trip.
func (r *Recall) Note(now time.Time, rate float64, least time.Duration) {
	r.forget(now)
	n := rate * least.Seconds()
	r.most, r.next = max(r.most, n), max(r.next, n)
	r.at = now
}

func (r *Recall) forget(now time.Time) {
	switch {
	case now.Sub(r.at) > recallFor:
		*r = Recall{half: now}
	case now.Sub(r.half) > recallFor/2:
		r.most, r.next, r.half = r.next, 0, now
	}
}

// Packets is with how many packets of so many bytes a connection should begin; 0:
// not known.
func (r *Recall) Packets(now time.Time, packet int) int {
	if now.Sub(r.at) > recallFor || packet <= 0 {
		return 0
	}
	return min(int(recallShare*r.most/float64(packet)), recallMost)
}
