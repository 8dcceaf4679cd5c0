package simlink

import (
	"math/rand/v2"
	"time"
)

// Line is one direction of an uplink in a simulation, as the lab's emulator
// (e2e/emu) is one: packets are lost at random, wait in a queue that drops what
// does not fit, leave at the line's rate and arrive, in order, after its delay.
// While it is dead it swallows what is sent and what would arrive. Its exported
// fields may change at any time: the rate counts for what waits already, the
// delay for what leaves the queue from then on.
type Line struct {
	Rate    float64       // bytes per second; of a recording: the mean
	Delay   time.Duration // one way
	Tremble time.Duration // the delay wanders by as much, both ways
	Queue   int           // bytes
	Loss    float64       // share of packets
	Burst   float64       // mean length of a loss, packets; below 1 counts as 1
	Dead    bool          // swallows everything

	Dropped int    // packets that found the queue full
	Served  uint64 // bytes that have left the queue

	events  *Events
	replay  *Replay // nil: the line has a rate
	rnd     *rand.Rand
	waiting []parcel // the first is being sent
	waits   int      // bytes of them
	last    time.Time
	losing  bool
	points  [2]float64 // between which the delay wanders, -1 to 1
	step    int64      // of the points
}

// parcel is a packet in the queue.
type parcel struct {
	size   int
	arrive func()
}

// NewLine returns a line whose losses and trembling depend on seed alone.
func (e *Events) NewLine(rate float64, delay time.Duration, queue int, seed uint64) *Line {
	return &Line{Rate: rate, Delay: delay, Queue: queue, events: e, rnd: rand.New(rand.NewPCG(seed, 7))}
}

// Waits is how many bytes wait in the queue.
func (l *Line) Waits() int { return l.waits }

// Send puts a packet of size bytes on the line; arrive is called if it comes.
func (l *Line) Send(size int, arrive func()) {
	switch {
	case l.Dead || l.loses():
		return
	case l.waits > 0 && l.waits+size > l.Queue:
		l.Dropped++
		return
	}
	l.waits += size
	if l.waiting = append(l.waiting, parcel{size, arrive}); len(l.waiting) == 1 {
		l.serve()
	}
}

// serve sends the first packet that waits.
func (l *Line) serve() {
	p := l.waiting[0]
	at := l.events.now.Add(time.Duration(float64(p.size) / l.Rate * 1e9))
	if l.replay != nil {
		at = l.replay.Serve(l.events.now, p.size)
	}
	l.events.At(at, func() {
		l.waiting = l.waiting[1:]
		l.waits -= p.size
		l.Served += uint64(p.size)
		l.fly(p)
		if len(l.waiting) > 0 {
			l.serve()
		}
	})
}

// fly takes what has left the queue to the other end.
func (l *Line) fly(p parcel) {
	at := l.events.now.Add(l.Delay + l.offset())
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	l.events.At(at, func() {
		if !l.Dead {
			p.arrive()
		}
	})
}

// loses draws the fate of a packet: losses come in bursts (Gilbert's model).
func (l *Line) loses() bool {
	if l.Loss == 0 {
		return false
	}
	burst := max(l.Burst, 1)
	if l.losing {
		l.losing = l.rnd.Float64() >= 1/burst
	} else {
		l.losing = l.rnd.Float64() < l.Loss/(burst*(1-l.Loss))
	}
	return l.losing
}

// offset is by how much the delay is off now: it moves between random points that
// are two trembles apart, so that no packet overtakes another.
func (l *Line) offset() time.Duration {
	if l.Tremble == 0 {
		return 0
	}
	wander := int64(2 * l.Tremble)
	at := l.events.now.UnixNano()
	for step := at / wander; l.step < step; {
		l.points = [2]float64{l.points[1], 2*l.rnd.Float64() - 1}
		l.step = max(l.step+1, step-1)
	}
	share := float64(at%wander) / float64(wander)
	return time.Duration((l.points[0]*(1-share) + l.points[1]*share) * float64(l.Tremble))
}
