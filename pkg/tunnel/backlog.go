package tunnel

import (
	"net/netip"
	"time"

	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// join takes a flow into the connection order on its terms (PROTOCOL.md
// section 5.2).
func (s *Session) join(f *flow, client netip.Addr, t wire.Terms) {
	u := scheduler.User{Policy: t.Policy}
	if client = client.Unmap(); t.Bits > 0 {
		u.Prefix, _ = client.Prefix(min(int(t.Bits), client.BitLen()))
	}
	s.order.Join(&f.node, scheduler.Terms{
		User: u, Class: scheduler.Class(t.Class), Weight: int(t.Weight),
		Guarantee: float64(t.Guarantee), Limit: float64(t.Limit),
	}, s.now)
}

// backlog is how many bytes may wait here in all: two round trips of what the
// links carry together, or two of their windows. Where links are fast the processors
// are the bottleneck: bytes that waited would have left their caches by the time that
// they are sent, and the worker is quick to bring others.
type backlog struct {
	srtt time.Duration
	rate float64
	caps int
}

// Limits of what waits here.
const (
	backlogFloor = 64 << 10  // per flow, bytes
	backlogFast  = 256 << 10 // in all where links are fast
	fastRate     = 62.5e6    // bytes per second together, 500 Mbit/s: fast; half of it: not at all
	askStep      = 32 << 10  // more room than this is worth telling the worker
)

func (b *backlog) add(l *link) {
	b.srtt = max(b.srtt, l.est.SRTT())
	b.rate += l.est.Rate()
	b.caps += max(l.est.Cap(), l.est.NetCap())
}

// allowance is how much of a flow may wait here: the part that its user has a
// right to. Beyond it the worker reads no more from the party, whose TCP then
// closes its window: users wait where they come from, not in the pair.
func (s *Session) allowance(f *flow) int {
	all := max(2*s.backlog.srtt.Seconds()*s.backlog.rate, 2*float64(s.backlog.caps))
	slow := min(max(2-2*s.backlog.rate/fastRate, 0), 1)
	all = max(slow*all, min(all, backlogFast))
	return max(int(all*s.order.Share(&f.node)), backlogFloor)
}

// keep is up to where the worker may send for f as far as memory goes. A peer that allows
// no more than stride is short of memory itself and has counted what is not read.
func (s *Session) keep(f *flow) uint64 {
	if f.peer <= f.send.base+stride {
		return f.peer
	}
	part := s.cfg.Budget.part(f.send.base, f.read.Lately(), s.now)
	return f.send.base + s.cfg.Budget.keep(part, f.read.Holds(s.now.UnixMilli()), s.now)
}

// askWorker lets the worker send what the peer's credit, the memory budget and
// the allowance permit, when that is worth telling.
func (s *Session) askWorker(f *flow) {
	most := min(f.peer, s.keep(f))
	if !f.opened || f.done || f.allowed >= most {
		return
	}
	to := min(most, f.send.next+uint64(s.allowance(f)))
	if to >= f.allowed+askStep || to == most {
		f.allowed = to
		s.emit(f.worker, stream.Event{Kind: stream.EventCredit, Flow: f.id, Limit: to})
	}
}
