package sock

import (
	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

// halfIdle is keepIdle as soon as one end has sent its FIN: a firewall or a NAT on the way
// to the other, which may be silent for much longer before it speaks, forgets the connection
// after a minute then (Linux's connection tracking; RFC 5382 section 5 wants four). To
// change the one number costs short connections little.
const halfIdle = 25

// halfClosed has c stay known to what tracks connections on its way, by probes.
func (c *Conn) halfClosed() {
	if c.half {
		return
	}
	c.half = true
	_ = nonblock.SetInt(c.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, halfIdle) // cannot fail
}
