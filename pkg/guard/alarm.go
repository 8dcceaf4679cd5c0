package guard

import "time"

// calmFlood is how long the clients' SYNs must have been answered by them
// before a flood is taken to be over: a flood that pauses is not over.
const calmFlood = 5 * time.Second

// Alarm tells a flood of SYNs from many clients: clients that there are answer
// a SYN-ACK. It is a leaky bucket (ITU-T I.371) of the SYNs that no ACK has
// followed.
//
// It is not safe for concurrent use.
type Alarm struct {
	limit  float64 // such SYNs per second, and how many at once
	level  float64
	at     time.Time
	flood  bool
	calmAt time.Time // since when the level has been low; zero: it is not
}

// NewAlarm returns an alarm that rises with more than limit SYNs per second
// that stay without an ACK; 0 never does.
func NewAlarm(limit int) Alarm { return Alarm{limit: float64(limit)} }

// Count notes SYNs and valid first ACKs that have come by now, and says whether
// there is a flood.
func (a *Alarm) Count(syns, acks int, now time.Time) bool {
	if a.limit == 0 {
		return false
	}
	if passed := now.Sub(a.at).Seconds(); passed > 0 {
		a.level = max(a.level-a.limit*passed, 0)
		a.at = now
	}
	a.level = min(max(a.level+float64(syns-acks), 0), 2*a.limit)
	switch {
	case !a.flood:
		a.flood, a.calmAt = a.level > a.limit, time.Time{}
	case a.level > a.limit/2:
		a.calmAt = time.Time{}
	case a.calmAt.IsZero():
		a.calmAt = now
	case now.Sub(a.calmAt) >= calmFlood:
		a.flood = false
	}
	return a.flood
}
