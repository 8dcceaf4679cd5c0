package link

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// outrunMost is what a WELCOME may be under way: until it has come its edge begins further
// attempts.
const outrunMost = 5 * time.Second

// outrun knows where edges were welcomed of late, or told to begin another session. An edge has
// several attempts to connect under way, by both transports, and leaves the others in their
// midst when one has its answer: that those end is nobody's fault. Concurrent use is safe.
type outrun struct {
	mu   sync.Mutex
	last map[netip.Addr]time.Time // of answers that may still matter
}

// answered notes that an edge has its answer at an address, which may matter for so long.
func (o *outrun) answered(from netip.Addr, now time.Time, keep time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.last, func(_ netip.Addr, at time.Time) bool { return now.Sub(at) > keep })
	if o.last == nil {
		o.last = map[netip.Addr]time.Time{}
	}
	o.last[from.Unmap()] = now
}

// left says whether a handshake that began then, from an address, has ended as one does that
// its edge has left: TCP's connection is closed, QUIC's goes silent.
func (o *outrun) left(from netip.Addr, begin time.Time, err error) bool {
	if !errors.Is(err, ErrPeerClosed) && !errors.Is(err, ErrSilent) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	at, ok := o.last[from.Unmap()]
	return ok && begin.Sub(at) < outrunMost
}
