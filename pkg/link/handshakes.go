package link

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

// Attempts to connect overlap, because a SYN that was lost is repeated only seconds later.
// What follows the SYN is some 2 KB each way: on a line of 10 kbit/s and 0.3 s that takes
// four seconds, in which the attempts beside the first one would take the line from it, and
// from each other. So of a dialer's TCP connections one at a time goes on
// with its handshake, as long as it hears from the cloud; and as long as one hears, by
// whichever transport, no further attempt is wanted (Dialer.Hears).

const (
	yieldLeast = 300 * time.Millisecond  // an older handshake that has heard something lately goes on
	yieldMost  = 2500 * time.Millisecond // and none that has not heard anything for so long: 2 packets at 10 kbit/s
	yieldLook  = 50 * time.Millisecond
	// A handshake goes on that has heard something within so many times of what its first
	// answer took: on a line of 10 kbit/s and 0.1 s a full packet takes 8 times what a SYN does.
	yieldTimes = 10
)

// handshakes are those under way: over TCP connections that stand, and by QUIC.
// Concurrent use is safe.
type handshakes struct {
	mu   sync.Mutex
	all  []standing
	quic []*hearing
}

// standing is a TCP connection that stands.
type standing struct {
	raw  syscall.RawConn
	took time.Duration // until it stood
}

// hearing is when an attempt by QUIC has heard something.
type hearing struct {
	begin time.Time
	first atomic.Int64 // since begin, ns; 0: never
	last  atomic.Int64 // the same
	over  atomic.Bool
}

// told is to be called for datagrams until it returns false. It passes the first one on.
func (h *hearing) told(first func(Transport)) func() bool {
	return func() bool {
		since := max(1, int64(time.Since(h.begin)))
		if h.first.CompareAndSwap(0, since) && first != nil {
			first(QUIC)
		}
		h.last.Store(since)
		return !h.over.Load()
	}
}

// goesOn is patient with an attempt whose first answer took so long, and which has heard
// something within since.
func goesOn(took, since time.Duration) bool {
	return since < min(max(yieldTimes*took, yieldLeast), yieldMost)
}

// listen notes an attempt by QUIC. Call end when it is over.
func (h *handshakes) listen() (q *hearing, end func()) {
	q = &hearing{begin: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quic = append(h.quic, q)
	return q, func() {
		q.over.Store(true)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.quic = slices.DeleteFunc(h.quic, func(other *hearing) bool { return other == q })
	}
}

// goOn says whether one has heard something lately, for a line like its own.
func (h *handshakes) goOn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.all, func(s standing) bool {
		since, ok := heard(s.raw)
		return ok && goesOn(s.took, since)
	}) || slices.ContainsFunc(h.quic, func(q *hearing) bool {
		first := time.Duration(q.first.Load())
		return first > 0 && goesOn(first, time.Since(q.begin)-time.Duration(q.last.Load()))
	})
}

// enter returns when the handshake of a connection may begin whose SYN was sent at begin:
// when no other has heard anything since. That shows that the path lives for this one,
// and not for the other. It returns an error when ctx ends. Call leave afterwards.
func (h *handshakes) enter(ctx context.Context, raw syscall.RawConn, begin time.Time) error {
	took := time.Since(begin)
	for {
		h.mu.Lock()
		busy := h.hears(min(max(time.Since(begin), yieldLeast), yieldMost))
		if !busy {
			h.all = append(h.all, standing{raw, took})
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
	h.all = slices.DeleteFunc(h.all, func(s standing) bool { return s.raw == raw })
}

// hears reports whether one has heard anything within so long. Its caller holds mu.
func (h *handshakes) hears(within time.Duration) bool {
	return slices.ContainsFunc(h.all, func(s standing) bool {
		since, ok := heard(s.raw)
		return ok && since < within
	})
}

// heard is how long ago a TCP connection heard anything.
func heard(raw syscall.RawConn) (since time.Duration, ok bool) {
	_ = raw.Control(func(fd uintptr) {
		var info unix.TCPInfo
		if err := nonblock.TCPInfo(int(fd), &info); err == nil {
			since, ok = time.Duration(min(info.Last_ack_recv, info.Last_data_recv))*time.Millisecond, true
		}
	})
	return since, ok
}
