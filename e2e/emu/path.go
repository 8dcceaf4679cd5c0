package emu

import "time"

// Direction selects one direction of a path, or both.
type Direction string

// The directions: Up from interface A to interface B, Down from B to A.
const (
	Up   Direction = "up"
	Down Direction = "down"
	Both Direction = "both"
)

// way is one direction of a path at work.
type way struct {
	in, out *port
	model   *Model
	trace   *Trace // of the model, if any
	refused Tally  // by the sending interface
	damaged Tally  // longer than the slot, or VLAN tagged
}

// moment is one reading of the clock.
type moment struct {
	now   time.Duration // since the emulator was opened
	epoch time.Duration // of that opening, since the Unix epoch; follows clock steps
}

// stale is the age above which a time of arrival is taken for a stepped clock.
const stale = time.Second

// arrivalTime turns a kernel time stamp into the emulator's time.
func (m moment) arrivalTime(stamp time.Duration) time.Duration {
	at := stamp - m.epoch
	if at > m.now || at < m.now-stale {
		return m.now
	}
	return at
}

// receiveLimit bounds the frames read from one port before others get their turn.
const receiveLimit = 512

// receive moves frames from the ring into the model and returns their number.
func (w *way) receive(m moment, frames *pool) int {
	for n := range receiveLimit {
		a, ok := w.in.ring.peek()
		if !ok {
			return n
		}
		w.accept(a, m, frames)
		w.in.ring.release()
	}
	return receiveLimit
}

func (w *way) accept(a arrival, m moment, frames *pool) {
	size := max(0, len(a.frame)-etherHeader)
	if !a.whole || len(a.frame) > frames.size || len(a.frame) < etherHeader {
		w.damaged.add(size)
		return
	}
	buf := frames.get()[:len(a.frame)]
	copy(buf, a.frame)
	if w.model.Arrive(m.arrivalTime(a.at), Packet{Frame: buf, Size: size}) != Kept {
		frames.put(buf)
	}
}

// send moves the frames that are due from the model to the other interface.
func (w *way) send(now time.Duration, b *batch, frames *pool) {
	for more := true; more; {
		more = w.collect(now, b, frames)
		if b.n == 0 {
			return
		}
		b.send(w.out, &w.refused)
		for i := range b.n {
			frames.put(b.frames[i].Frame)
		}
		b.n = 0
	}
}

// collect fills the batch with frames that are due and tells whether more may be.
func (w *way) collect(now time.Duration, b *batch, frames *pool) bool {
	for !b.full() {
		p, fate, ok := w.model.Leave(now)
		switch {
		case !ok:
			return false
		case fate == Forwarded:
			b.add(p)
		default:
			frames.put(p.Frame)
		}
	}
	return true
}

// status returns the reading of this direction.
func (w *way) status(now time.Duration) DirectionStatus {
	c := w.model.Counters(now)
	c.Forwarded.Packets -= w.refused.Packets
	c.Forwarded.Bytes -= w.refused.Bytes
	c.Dropped.Send = w.refused
	c.Dropped.Oversize = w.damaged
	c.Dropped.Ring = w.in.ringLosses()
	return DirectionStatus{Params: w.model.Params(), Counters: c}
}

// path joins two interfaces.
type path struct {
	name string
	a, b *port
	up   *way
	down *way
}

// ways returns the selected directions.
func (p *path) ways(d Direction) []*way {
	switch d {
	case Up:
		return []*way{p.up}
	case Down:
		return []*way{p.down}
	default:
		return []*way{p.up, p.down}
	}
}
