package box

import (
	"context"
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/scheduler"
)

// carrier is a link connection as the tunnel uses it.
type carrier struct{ *link.Conn }

// Carrier makes a link connection usable for a session.
func Carrier(c *link.Conn) tunnel.Carrier {
	if c.TakesUrgent() {
		return joiner{carrier{c}}
	}
	return carrier{c}
}

// joiner is a carrier beside which urgent connections stand.
type joiner struct{ carrier }

// Urgent implements tunnel.UrgentCarrier.
func (c carrier) Urgent() tunnel.Strand {
	if s := c.Conn.Urgent(); s != nil {
		return s
	}
	return nil
}

// Twin implements tunnel.UrgentCarrier.
func (c carrier) Twin() tunnel.Strand {
	if s := c.Conn.Twin(); s != nil {
		return s
	}
	return nil
}

// NextUrgent implements tunnel.Joiner.
func (c joiner) NextUrgent(ctx context.Context, twin bool) (tunnel.Apart, error) {
	next, err := c.Conn.NextUrgent(ctx, twin)
	if err != nil {
		return nil, err
	}
	return carrier{next}, nil
}

// Sense implements tunnel.Carrier.
func (c carrier) Sense() scheduler.Sense {
	s := c.Stats()
	return scheduler.Sense{At: time.Now(), RTT: s.RTT, Arrived: s.Arrived, Ahead: int(s.Ahead), InFlight: int(s.InFlight), Progress: s.Delivered, Delivered: s.Acked, Whole: s.Whole, Known: s.Window > 0, Lost: s.Lost, Due: s.Due, Carries: s.Carries, Volleys: s.Volleys}
}
