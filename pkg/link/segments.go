package link

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// A path may carry less than its ends believe and not say so: a tunnel or a modem on the way
// drops full packets, a firewall the ICMP that would tell. TCP connects there, and stands
// still with the first full segment, which is one of the handshake's; the kernel makes
// segments smaller by itself only where net.ipv4.tcp_mtu_probing is set. QUIC needs none of
// this: it begins with small packets.

// smallSegment is TCP_MAXSEG where full segments may not pass: packets of 1280 bytes, which
// IPv6 promises, or 1260 by IPv4. It bounds what either end sends, by the SYN's option.
const smallSegment = 1220

// segments says of a dialer's TCP connections which are to have small segments. Once a
// handshake has stood still every other attempt has: which is quicker shows what passes, and
// where both do the full ones, which begin, are. Concurrent use is safe.
type segments struct {
	mu      sync.Mutex
	doubted bool // a handshake with full segments has stood still, and none has been completed since
	next    bool // the next attempt is one with small ones
	small   bool // the last connection has them
}

// choose says whether the next attempt is to have small segments. One that joins the link's
// connection does as that does.
func (s *segments) choose(joins bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if joins || !s.doubted {
		return joins && s.small
	}
	small := s.next
	s.next = !small
	return small
}

// failed notes that a handshake has failed after its connection stood.
func (s *segments) failed(ctx context.Context, small bool) {
	if small || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.doubted {
		s.doubted, s.next = true, true
	}
}

// stood notes that one was completed. The next race begins with full segments.
func (s *segments) stood(small bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubted, s.next, s.small = small, false, small
}

// bound has a socket that is not connected yet use small segments.
func bound(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, smallSegment); err != nil {
		return &socketError{"set TCP_MAXSEG", err}
	}
	return nil
}
