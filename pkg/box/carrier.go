package box

import (
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
)

// carrier is a link connection as the tunnel uses it.
type carrier struct{ *link.Conn }

// Carrier makes a link connection usable for a session.
func Carrier(c *link.Conn) tunnel.Carrier { return carrier{c} }

// RTT implements tunnel.Carrier.
func (c carrier) RTT() time.Duration { return c.Stats().RTT }
