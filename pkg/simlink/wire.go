package simlink

import "time"

// Wire is one direction of a link in a simulation: packets leave it in order,
// at its rate, and arrive after its delay. While it is cut it holds them, as a
// transport does that retransmits.
type Wire struct {
	events *Events
	spec   Spec
	free   time.Time // when it has sent what it was given
	cut    bool
	held   []func()
}

// NewWire returns a wire of a simulation.
func (e *Events) NewWire(spec Spec) *Wire {
	if spec.Queue == 0 {
		spec.Queue = 32 << 10
	}
	return &Wire{events: e, spec: spec, free: e.now}
}

// SetRate changes the rate for what is given from now on, bytes per second.
func (w *Wire) SetRate(rate float64) { w.spec.Rate = rate }

// Cut makes the wire hold what is on it, or let it go on.
func (w *Wire) Cut(cut bool) {
	w.cut = cut
	if cut {
		return
	}
	held := w.held
	w.held = nil
	for _, f := range held {
		w.events.After(w.spec.Delay, f)
	}
}

// Send puts size bytes on the wire; arrive is called when they have come.
func (w *Wire) Send(size int, arrive func()) {
	if now := w.events.now; w.free.Before(now) {
		w.free = now
	}
	w.free = w.free.Add(time.Duration(float64(size+overhead) / w.spec.Rate * 1e9))
	w.events.At(w.free, func() {
		if w.cut {
			w.held = append(w.held, arrive)
			return
		}
		w.events.After(w.spec.Delay, arrive)
	})
}

// Room calls do when no more than the wire's queue waits to be sent; while it
// is cut nothing leaves.
func (w *Wire) Room(do func()) {
	ahead := time.Duration(float64(w.spec.Queue) / w.spec.Rate * 1e9)
	w.events.At(w.free.Add(-ahead), func() {
		if w.cut {
			w.held = append(w.held, do)
			return
		}
		do()
	})
}
