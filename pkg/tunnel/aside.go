package tunnel

import "time"

// A QUIC stream sends again what was lost in the order in which it found that out: what is
// lost a second time waits behind all that was lost once. Where a line's rate has fallen to
// a fraction that is all that was under way at the old one, and until it has come flows
// stand. A flow's head then goes once more by another of the connection's streams, which
// share its packets evenly.
const (
	asideAfter = 250 * time.Millisecond // that a flow's head has not moved for
	asideRTTs  = 1.5                    // and so many round trips: what was lost once has come by then
	asideShare = 2                      // so many times as much as the head must be under way
	asideBusy  = 4 << 10                // bytes under way by the other stream: one head at a time
)

// aside is the strand of the same connection by which a flow's head of n bytes that is
// stuck on bulk should go once more, or nil: there is none, it would gain nothing there, or
// nothing arrives at all.
func (c *conn) aside(n int, stuck, silence time.Duration) *strand {
	by := c.twin
	if by == nil {
		by = c.urgent
	}
	rtt := time.Duration(asideRTTs * float64(c.eye.sense.RTT))
	switch {
	case by == c.bulk || by.apart != nil || by.log.bytes > asideBusy || by.batch() == nil:
		return nil
	case stuck < max(asideAfter, rtt) || silence > stuck/2 || c.inFlight < asideShare*n:
		return nil
	}
	return by
}
