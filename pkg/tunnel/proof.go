package tunnel

import (
	"sync/atomic"
	"time"
)

const (
	// provenAfter is how much of a flow must have been read within provenTime for that to
	// be more than what its reader's own buffers take and a trickle beside it, in bytes.
	provenAfter = 128 << 10
	provenTime  = 10 * time.Second
)

// proof is whether one direction of a flow is read. A crowd's members have it for
// provenTime at most: when their buffers, and the kernel's for them, have been filled.
type proof struct {
	mark uint64 // where the measurement began
	at   int64  // when, in nanoseconds since 1970
	sure bool   // counted in the budget
}

// pass notes that everything up to `to` was read, n bytes of it now.
func (p *proof) pass(to uint64, n int, now time.Time, count *atomic.Int64) {
	switch at := now.UnixNano(); {
	case p.sure:
		return
	case at-p.at > int64(provenTime):
		p.mark, p.at = to-uint64(n), at
	}
	if to-p.mark >= provenAfter {
		p.sure = true
		count.Add(1)
		p.mark, p.at = to, now.UnixNano()
	}
}

// renew ends a proof that was not given again since the last time, and begins anew.
func (p *proof) renew(to uint64, now time.Time, count *atomic.Int64) {
	if p.sure && to-p.mark < provenAfter {
		p.end(count)
	}
	p.mark, p.at = to, now.UnixNano()
}

// end takes a proof back.
func (p *proof) end(count *atomic.Int64) {
	if p.sure {
		p.sure = false
		count.Add(-1)
	}
}

// proven lists a flow that is read, so that it is noticed when it no longer is: nothing
// need happen then.
func (s *Session) proven(f *flow) {
	if !f.proven && (f.credit.read.sure || f.read.sure) {
		f.proven = true
		s.readers = append(s.readers, f)
	}
}

// renewProofs looks whether the flows that were read still are.
func (s *Session) renewProofs() {
	if s.now.Sub(s.renewedAt) < provenTime {
		return
	}
	s.renewedAt = s.now
	b, left := s.cfg.Budget, s.readers[:0]
	for _, f := range s.readers {
		if f.done {
			continue
		}
		f.credit.read.renew(f.credit.consumed, s.now, &b.in)
		f.read.renew(f.send.base, s.now, &b.out)
		if f.proven = f.credit.read.sure || f.read.sure; f.proven {
			left = append(left, f)
		}
	}
	clear(s.readers[len(left):])
	s.readers = left
}
