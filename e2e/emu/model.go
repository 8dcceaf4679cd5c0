package emu

import (
	"math/rand/v2"
	"time"
)

// maxHeld bounds the packets that one direction holds, and with them its memory.
const maxHeld = 1 << 16

// Model is one direction of an emulated link: loss, queue, serialiser, delay line. It
// has no clock and no socket; times are durations since any fixed moment and must not
// go back (an earlier time is taken as the latest one seen). It is not safe for
// concurrent use.
//
// Frames passed to Arrive belong to the model until Leave hands them back; a frame
// that Arrive refuses stays with the caller.
type Model struct {
	p       Params
	now     time.Duration
	dice    dice
	offset  wander
	waiting fifo // at is the time of arrival
	bytes   int  // in waiting
	limit   int  // queue bound in bytes
	service serialiser
	head    finish // of the first waiting packet, if known
	known   bool
	line    fifo // at is the time of departure
	last    time.Duration

	arrived Tally
	tally   tallies
	peak    int
	late    lateness
}

// NewModel returns a link with the given parameters, which must be valid; trace is the
// parsed trace when p names one, else nil. The seed fixes all random draws.
func NewModel(p Params, trace *Trace, seed uint64) *Model {
	m := &Model{
		dice:   newDice(seed),
		offset: wander{rng: rand.New(rand.NewPCG(seed, 3))},
	}
	m.Set(0, p, trace)
	return m
}

// Params returns the present parameters.
func (m *Model) Params() Params { return m.p }

// Set changes the parameters at now. Packets in the queue are served at the new rate
// from now on, a shorter queue bound drops nothing that already waits, and packets in
// the delay line keep their time of departure. A trace starts at its beginning unless
// it is the same value as before.
func (m *Model) Set(now time.Duration, p Params, trace *Trace) {
	m.advance(now)
	var head *item
	if m.waiting.len() > 0 {
		head = m.waiting.front()
	}
	m.service.set(m.now, p, trace, head)
	m.known = false
	m.p = p
	m.limit = queueLimit(p, m.service.rate())
}

// queueLimit returns the queue bound in bytes, 0 where the queue never fills.
func queueLimit(p Params, rate float64) int {
	if p.QueueBytes > 0 || rate == 0 {
		return p.QueueBytes
	}
	bound := p.QueueTime
	if bound == 0 {
		bound = defaultQueue
	}
	return max(1, int(rate/8*bound.Seconds()))
}

// Arrive offers a packet to the link. It returns Kept, or the cause of the drop.
func (m *Model) Arrive(now time.Duration, p Packet) Fate {
	m.advance(now)
	m.arrived.add(p.Size)
	if fate := m.admit(p.Size); fate != Kept {
		m.tally[fate].add(p.Size)
		return fate
	}
	m.waiting.push(item{Packet: p, at: m.now})
	m.bytes += p.Size
	m.advance(m.now) // an unlimited link serves it at once
	m.peak = max(m.peak, m.bytes)
	return Kept
}

func (m *Model) admit(size int) Fate {
	if m.p.Blackhole {
		return Blackhole
	}
	if fate := m.dice.roll(&m.p); fate != Kept {
		return fate
	}
	if m.bytes > 0 && m.limit > 0 && m.bytes+size > m.limit {
		return QueueFull
	}
	if m.waiting.len()+m.line.len() >= maxHeld {
		return Overflow
	}
	return Kept
}

// Leave hands back a packet whose time to leave has come, with Forwarded or the cause
// for which it is dropped at the far end. ok is false when no packet is due.
func (m *Model) Leave(now time.Duration) (p Packet, fate Fate, ok bool) {
	m.advance(now)
	if m.line.len() == 0 || m.line.front().at > m.now {
		return Packet{}, Kept, false
	}
	it := m.line.pop()
	p = it.Packet
	m.late.add(m.now - it.at)
	fate = Forwarded
	if m.p.Blackhole {
		fate = Blackhole
	}
	m.tally[fate].add(p.Size)
	return p, fate, true
}

// Next returns a time before which Leave has nothing to hand back; ok is false when
// the link is empty.
func (m *Model) Next() (at time.Duration, ok bool) {
	if m.line.len() > 0 {
		at, ok = m.line.front().at, true
		if !m.p.Reorder {
			return at, true
		}
	}
	if m.waiting.len() > 0 {
		first := m.headFinish().at + max(0, m.p.Delay-m.p.Jitter)
		if !ok || first < at {
			at, ok = first, true
		}
	}
	return at, ok
}

// Latency returns the least time that a packet arriving now spends in the link.
func (m *Model) Latency() time.Duration { return max(0, m.p.Delay-m.p.Jitter) }

// Counters returns the reading at now.
func (m *Model) Counters(now time.Duration) Counters {
	m.advance(now)
	return Counters{
		Arrived:        m.arrived,
		Forwarded:      m.tally[Forwarded],
		Dropped:        m.tally.drops(),
		Queue:          Tally{Packets: uint64(m.waiting.len()), Bytes: uint64(m.bytes)},
		PeakQueueBytes: m.peak,
		Flying:         m.line.len(),
		Late:           m.late.reading(),
	}
}

// advance moves the packets that the serialiser has finished by now into the delay line.
func (m *Model) advance(now time.Duration) {
	m.now = max(m.now, now)
	for m.waiting.len() > 0 {
		f := m.headFinish()
		if f.at > m.now {
			return
		}
		it := m.waiting.pop()
		m.bytes -= it.Size
		m.service.done(f)
		m.known = false
		m.fly(it, f.at)
	}
}

func (m *Model) headFinish() finish {
	if !m.known {
		head := m.waiting.front()
		m.head, m.known = m.service.serve(head.at, head.Size), true
	}
	return m.head
}

// fly puts a packet that left the serialiser at the given time into the delay line.
func (m *Model) fly(it item, sent time.Duration) {
	if m.p.Reorder {
		it.at = sent + max(0, m.p.Delay+m.draw())
	} else {
		it.at = max(m.last, sent+max(0, m.p.Delay+m.offset.at(sent, m.p.Jitter)))
	}
	m.last = max(m.last, it.at)
	m.line.insert(it)
}

// draw returns an independent jitter for one packet.
func (m *Model) draw() time.Duration {
	return time.Duration((2*m.offset.rng.Float64() - 1) * float64(m.p.Jitter))
}
