package box

import (
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/scheduler"
)

// carrier is a link connection as the tunnel uses it.
type carrier struct{ *link.Conn }

// Carrier makes a link connection usable for a session.
func Carrier(c *link.Conn) tunnel.Carrier { return carrier{c} }

// Urgent implements tunnel.UrgentCarrier.
func (c carrier) Urgent() tunnel.Strand {
	if s := c.Conn.Urgent(); s != nil {
		return s
	}
	return nil
}

// Sense implements tunnel.Carrier.
func (c carrier) Sense() scheduler.Sense {
	s := c.Stats()
	return scheduler.Sense{At: time.Now(), RTT: s.RTT, Arrived: s.Arrived, Ahead: int(s.Ahead), InFlight: int(s.InFlight), Progress: s.Delivered, Delivered: s.Acked, Known: s.Window > 0, Lost: s.Lost, Due: s.Due}
}
