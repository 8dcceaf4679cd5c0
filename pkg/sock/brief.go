package sock

import (
	"strings"

	"golang.org/x/sys/unix"
)

// brief is how many bytes a client's connection is sent before the host's
// congestion control governs it where that one paces.
//
// Pacing spreads what a window would send at once: the kernel sends a piece, sets a
// timer, and sends the next one from an interrupt. Of a reply of 10 KB that are two
// frames with their acknowledgements and one or two timers, the last of them for
// the FIN, all for a LAN that has a first window to spare. So such connections
// begin with reno, which is always there, and most end before they change.
const brief = 64 << 10

// beginning is the congestion control of brief connections.
const beginning = "reno"

// paces says whether the kernel's congestion control of that name paces.
func paces(name string) bool { return strings.HasPrefix(name, "bbr") }

// unpace lets what l accepts begin with a congestion control that does not pace.
// A kernel that has none, or does not let us, paces.
func (l *Listener) unpace() {
	name, err := unix.GetsockoptString(l.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil || !paces(name) {
		return
	}
	if unix.SetsockoptString(l.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, beginning) == nil {
		l.poller.governor, l.brief = name, brief
	}
}

// spend notes that n bytes were sent.
func (c *Conn) spend(n int) {
	if c.brief == 0 {
		return
	}
	if c.brief -= int32(min(n, int(c.brief))); c.brief == 0 {
		// Without the right to choose it, it goes on as it began.
		_ = unix.SetsockoptString(c.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, c.poller.governor)
	}
}
