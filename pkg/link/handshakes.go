package link

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

// Attempts to connect overlap, because a SYN that was lost is repeated only seconds later.
// What follows the SYN is some 2 KB each way: on a line of 10 kbit/s and 0.3 s that takes
// four seconds, in which the attempts beside the first one would take the line from it, and
// from each other. So of a dialer's TCP connections one at a time goes on
// with its handshake, as long as it hears from the cloud.

const (
	yieldLeast = 300 * time.Millisecond  // an older handshake that has heard something lately goes on
	yieldMost  = 2500 * time.Millisecond // and none that has not heard anything for so long: 2 packets at 10 kbit/s
	yieldLook  = 50 * time.Millisecond
)

// handshakes are those under way over TCP connections that stand. Concurrent use is safe.
type handshakes struct {
	mu  sync.Mutex
	all []syscall.RawConn
}

// enter returns when the handshake of a connection may begin whose SYN was sent at begin:
// when no other has heard anything since. That shows that the path lives for this one,
// and not for the other. It returns an error when ctx ends. Call leave afterwards.
func (h *handshakes) enter(ctx context.Context, raw syscall.RawConn, begin time.Time) error {
	for {
		h.mu.Lock()
		busy := h.hears(min(max(time.Since(begin), yieldLeast), yieldMost))
		if !busy {
			h.all = append(h.all, raw)
		}
		h.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(yieldLook):
		}
	}
}

func (h *handshakes) leave(raw syscall.RawConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = slices.DeleteFunc(h.all, func(other syscall.RawConn) bool { return other == raw })
}

// hears reports whether one has heard anything within so long. Its caller holds mu.
func (h *handshakes) hears(within time.Duration) bool {
	return slices.ContainsFunc(h.all, func(raw syscall.RawConn) (yes bool) {
		_ = raw.Control(func(fd uintptr) {
			var info unix.TCPInfo
			if err := nonblock.TCPInfo(int(fd), &info); err == nil {
				yes = time.Duration(min(info.Last_ack_recv, info.Last_data_recv))*time.Millisecond < within
			}
		})
		return yes
	})
}
