package emu

import (
	"math"
	"time"
)

// serialiser is the bottleneck: it says when the packet at the head of the queue has
// been sent. It runs on a virtual clock, so its long-run rate does not depend on how
// late its owner looks.
type serialiser struct {
	bitsPerNs float64       // 0 is unlimited; unused with a trace
	free      time.Duration // when the packet before was finished
	sent      float64       // bits of the head sent before free (after a rate change)

	trace   *Trace
	base    time.Duration // when the trace began
	quantum float64       // bytes of one opportunity
	next    int64         // first unused opportunity
	left    float64       // unused bytes of the opportunity at free
}

// finish is the end of one service and the serialiser's state after it.
type finish struct {
	at   time.Duration
	next int64
	left float64
}

// serve returns when a packet of size bytes that is at the head of the queue since
// it arrived at the given time has been sent.
func (s *serialiser) serve(arrived time.Duration, size int) finish {
	if s.trace != nil {
		return s.serveTrace(arrived, size)
	}
	start := max(arrived, s.free)
	if s.bitsPerNs == 0 {
		return finish{at: start}
	}
	bits := max(0, float64(size*8)-s.sent)
	return finish{at: start + time.Duration(math.Round(bits/s.bitsPerNs))}
}

// serveTrace follows Mahimahi: an opportunity is spent even if nobody waits, and a
// packet that does not fill it leaves the rest to the packets behind it.
func (s *serialiser) serveTrace(arrived time.Duration, size int) finish {
	need := float64(size)
	if arrived <= s.free {
		if need <= s.left {
			return finish{at: max(arrived, s.free), next: s.next, left: s.left - need}
		}
		need -= s.left
	}
	first := max(s.next, s.trace.First(arrived-s.base))
	n := int64(math.Ceil(need / s.quantum))
	last := first + n - 1
	return finish{
		at:   s.base + s.trace.Time(last),
		next: last + 1,
		left: float64(n)*s.quantum - need,
	}
}

// done takes the result of serve when that packet has left.
func (s *serialiser) done(f finish) {
	s.free, s.sent, s.next, s.left = f.at, 0, f.next, f.left
}

// set changes the discipline at now. head is the packet in service, nil if none: its
// part that was sent at the old rate stays sent. A trace that stays runs on.
func (s *serialiser) set(now time.Duration, p Params, trace *Trace, head *item) {
	s.quantum = opportunityBytes
	if p.TraceScale > 0 {
		s.quantum *= p.TraceScale
	}
	if trace != nil && trace == s.trace {
		return
	}
	if head != nil && s.trace == nil && trace == nil {
		s.sent += float64(now-max(head.at, s.free)) * s.bitsPerNs
	} else {
		s.sent = 0
	}
	s.free = now
	s.bitsPerNs = float64(p.Rate) / 1e9
	s.trace, s.base, s.next, s.left = trace, now, 0, 0
}

// rate returns the mean rate in bit/s, 0 if unlimited.
func (s *serialiser) rate() float64 {
	if s.trace != nil {
		return s.trace.Rate() * s.quantum / opportunityBytes
	}
	return s.bitsPerNs * 1e9
}
