package simlink

import (
	"math/rand/v2"
	"time"
)

// Line is one direction of an uplink in a simulation: packets are lost at random
// or while it is dead, wait in a queue that drops what does not fit, leave at
// the line's rate and arrive, in order, after its delay. Its exported fields may
// change at any time; they count for what is sent from then on.
type Line struct {
	Rate    float64       // bytes per second
	Delay   time.Duration // one way
	Tremble time.Duration // the delay wanders by as much, both ways
	Queue   int           // bytes
	Loss    float64       // share of packets
	Burst   float64       // mean length of a loss, packets; below 1 counts as 1
	Dead    bool          // swallows everything

	Dropped int // packets that found the queue full

	events *Events
	rnd    *rand.Rand
	free   time.Time // when all that waits has left
	last   time.Time // the last arrival
	losing bool
	points [2]float64 // between which the delay wanders, -1 to 1
	step   int64      // of the points
}

// wander is how long the delay takes from one random point to the next.
const wander = 40 * time.Millisecond

// NewLine returns a line whose losses and trembling depend on seed alone.
func (e *Events) NewLine(rate float64, delay time.Duration, queue int, seed uint64) *Line {
	return &Line{Rate: rate, Delay: delay, Queue: queue, events: e, rnd: rand.New(rand.NewPCG(seed, 7)), free: e.now}
}

// Waits is how many bytes wait in the queue.
func (l *Line) Waits() int {
	return int(max(l.free.Sub(l.events.now), 0).Seconds() * l.Rate)
}

// Send puts a packet of size bytes on the line; arrive is called if it comes.
func (l *Line) Send(size int, arrive func()) {
	now := l.events.now
	switch {
	case l.Dead || l.loses():
		return
	case l.Waits()+size > max(l.Queue, size):
		l.Dropped++
		return
	}
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(size) / l.Rate * 1e9))
	at := l.free.Add(l.Delay + l.offset())
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	l.events.At(at, arrive)
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

// offset is by how much the delay is off now.
func (l *Line) offset() time.Duration {
	if l.Tremble == 0 {
		return 0
	}
	at := l.events.now.UnixNano()
	for step := at / int64(wander); l.step < step; {
		l.points = [2]float64{l.points[1], l.rnd.Float64() + l.rnd.Float64() - 1}
		l.step = max(l.step+1, step-1)
	}
	share := float64(at%int64(wander)) / float64(wander)
	return time.Duration((l.points[0]*(1-share) + l.points[1]*share) * float64(l.Tremble))
}
