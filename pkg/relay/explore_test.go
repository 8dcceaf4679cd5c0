package relay

import (
	"fmt"
	"testing"
)

// The explorer visits every state that two directions can reach which share a
// card, with every order of their steps, the card's, and the parties'. The
// parties and the card behave as their contracts say: edges come once, after an
// operation would have blocked, and at any time later.

// side is one direction with its parties. Blocks have two units at a party.
type side struct {
	m         Machine
	left      int8 // blocks that the source has yet to produce
	ready     int8 // blocks that can be read
	eof       bool // the end can be read
	eofMade   bool
	armed     bool // the source owes an edge
	note      bool // the edge is under way
	credit    int8 // tunnel as sink: blocks that may be read; -1: the sink is a party
	taken     int8 // tunnel: blocks sent and not consumed; party: units in its buffer
	part      int8 // units of the oldest result that the party has
	sinkArmed bool
	sinkNote  bool
	out       int8 // blocks delivered
	fin       bool // end delivered
	gone      bool // reset
	parked    bool
}

const queueMost = 3

// world is one state; all of it is comparable.
type world struct {
	sides   [2]side
	in, out [queueMost]int8 // the card's queues: the side of each job, 1 or 2
	parked  [2]int8         // sides that wait for the card, in order
}

// plan is what an exploration varies.
type plan struct {
	name        string
	window      uint8
	in, out     int     // the card's queues
	blocks      [2]int8 // that the sources produce
	credit      [2]int8 // -1: party
	buffer      int8    // of a party, in units
	stuck       bool    // the second side's sink never moves
	mayVanish   bool    // the second side may be reset at any time
	wantMinimum int     // states, so that a broken model does not pass unnoticed
}

func push(q *[queueMost]int8, v int8, most int) bool {
	for i := range most {
		if q[i] == 0 {
			q[i] = v
			return true
		}
	}
	return false
}

func shift(q *[queueMost]int8) int8 {
	v := q[0]
	copy(q[:], q[1:])
	q[queueMost-1] = 0
	return v
}

func (s *world) unpark() {
	for s.parked[0] != 0 {
		d := &s.sides[s.parked[0]-1]
		s.parked = [2]int8{s.parked[1], 0}
		d.parked = false
		if d.gone {
			continue
		}
		d.m.CardReady()
		return
	}
}

// act does the side's next action, as seal.go and open.go do it.
func (s *world) act(i int, p *plan) bool {
	d := &s.sides[i]
	if d.gone {
		return false
	}
	switch d.m.Next() {
	case ActRead:
		d.read()
	case ActPut:
		if push(&s.in, int8(i+1), p.in) {
			d.m.Accepted()
			break
		}
		d.m.CardFull()
		if !d.parked {
			d.parked = true
			s.parked[min(int(s.parked[0]), 1)] = int8(i + 1)
		}
	case ActSend:
		d.send(p)
	case ActFinish:
		d.fin = true
		d.m.Finished()
	default:
		return false
	}
	return true
}

func (d *side) read() {
	switch {
	case d.ready > 0:
		d.ready--
		d.m.Block()
		if d.credit > 0 {
			d.credit--
			d.m.Room(d.credit > 0)
		}
	case d.eof:
		d.m.SourceEnd()
	default:
		d.m.SourceDry()
		d.armed = true
	}
}

func (d *side) send(p *plan) {
	if d.credit >= 0 {
		d.taken++
		d.out++
		d.m.Sent()
		return
	}
	n := min(2-d.part, p.buffer-d.taken)
	d.part += n
	d.taken += n
	if d.part < 2 {
		d.m.SinkFull()
		d.sinkArmed = true
		return
	}
	d.part = 0
	d.out++
	d.m.Sent()
}

// steps calls visit for every state that follows s by one step of the relay
// (relay true) or of the world around it.
func (s world) steps(p *plan, visit func(next world, relay bool)) {
	for i := range s.sides {
		if n := s; n.act(i, p) {
			visit(n, true)
		}
		s.around(i, p, visit)
	}
	if s.out[0] != 0 {
		n := s
		if d := &n.sides[shift(&n.out)-1]; !d.gone {
			d.m.Result()
		}
		n.unpark()
		visit(n, true)
	}
	if s.in[0] != 0 {
		n := s
		if push(&n.out, s.in[0], p.out) {
			shift(&n.in)
			visit(n, false)
		}
	}
}

// around are the steps of one side's parties.
func (s world) around(i int, p *plan, visit func(world, bool)) {
	d := s.sides[i]
	change := func(f func(d *side)) {
		n := s
		f(&n.sides[i])
		visit(n, false)
	}
	if d.gone {
		return
	}
	if d.left > 0 || !d.eofMade {
		change(func(d *side) {
			if d.left > 0 {
				d.left--
				d.ready++
			} else {
				d.eof, d.eofMade = true, true
			}
			d.note = d.note || d.armed
			d.armed = false
		})
	}
	if d.note {
		change(func(d *side) { d.note = false; d.m.SourceReady() })
	}
	if d.taken > 0 && !(p.stuck && i == 1) {
		change(func(d *side) {
			d.taken--
			if d.credit >= 0 {
				d.credit++
				d.sinkNote = true
			}
			d.sinkNote = d.sinkNote || d.sinkArmed
			d.sinkArmed = false
		})
	}
	if d.sinkNote {
		change(func(d *side) { d.sinkNote = false; d.m.SinkReady(); d.m.Room(d.credit != 0) })
	}
	if p.mayVanish && i == 1 {
		n := s
		n.sides[1] = side{gone: true, parked: d.parked}
		if d.m.refused {
			n.unpark()
		}
		visit(n, false)
	}
}

// check returns what is wrong with a state. quiet: the relay has no step;
// still: nobody has.
func (s *world) check(p *plan, quiet, still bool) error {
	for i := range s.sides {
		d := &s.sides[i]
		if d.gone {
			continue
		}
		inCard := int8(0)
		for j := range queueMost {
			for _, v := range []int8{s.in[j], s.out[j]} {
				if v == int8(i+1) {
					inCard++
				}
			}
		}
		held := inCard + int8(d.m.results)
		if d.m.refused {
			held++
		}
		watch := d.m.Interest()
		switch {
		case d.m.held > p.window:
			return fmt.Errorf("side %d holds %d blocks", i, d.m.held)
		case int8(d.m.held) != held:
			return fmt.Errorf("side %d counts %d blocks, has %d", i, d.m.held, held)
		case d.fin && (held > 0 || d.ready > 0 || d.left > 0 || d.out != p.blocks[i]):
			return fmt.Errorf("side %d passed the end on before its data", i)
		case watch&WatchSource != 0 && watch&WatchSink != 0:
			return fmt.Errorf("side %d: two watchers for one block", i)
		case still && !(p.stuck && i == 1) && !d.fin:
			return fmt.Errorf("side %d: nothing can happen any more, and it is not done", i)
		}
		pending := held > 0 || d.ready > 0 || d.eof && !d.fin
		if quiet && pending && !d.live(watch, s) {
			return fmt.Errorf("side %d: lost wake-up: work is pending, watched is %04b", i, watch)
		}
	}
	return nil
}

// live reports whether something that is watched will speak up.
func (d *side) live(watch Interest, s *world) bool {
	switch {
	case watch&WatchSource != 0 && (d.armed || d.note),
		watch&WatchSink != 0 && (d.sinkArmed || d.sinkNote || d.credit >= 0 && d.taken > 0),
		watch&WatchCardRead != 0 && watch&WatchCardWrite == 0 && (s.in[0] != 0 || s.out[0] != 0),
		watch&WatchCardWrite != 0 && d.parked && (s.in[0] != 0 || s.out[0] != 0):
		return true
	}
	return false
}

func (p *plan) start() world {
	var s world
	for i := range s.sides {
		d := &s.sides[i]
		d.m = NewMachine(p.window)
		d.left, d.credit = p.blocks[i], p.credit[i]
		d.m.Room(d.credit != 0)
	}
	return s
}

// explore visits all states of a plan. Each is checked; and from each the
// relay alone must come to rest, or it spins.
func explore(t *testing.T, p plan) {
	first := p.start()
	seen := map[world]world{first: first} // to the state it was reached from
	todo := []world{first}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		quiet, still := true, true
		s.steps(&p, func(n world, relay bool) {
			quiet, still = quiet && !relay, false
			if _, ok := seen[n]; !ok {
				seen[n] = s
				todo = append(todo, n)
			}
		})
		if err := s.check(&p, quiet, still); err != nil {
			for at := s; ; at = seen[at] {
				t.Logf("%+v", at)
				if at == first {
					break
				}
			}
			t.Fatalf("after the states above, last one first: %v", err)
		}
		if n := s.spin(&p); n > 200 {
			t.Fatalf("the relay spins: %+v", s)
		}
	}
	if len(seen) < p.wantMinimum {
		t.Errorf("only %d states", len(seen))
	}
	t.Logf("%d states", len(seen))
}

// spin runs the relay alone and counts its steps.
func (s world) spin(p *plan) int {
	for n := range 201 {
		var next world
		found := false
		s.steps(p, func(w world, relay bool) {
			if relay && !found {
				next, found = w, true
			}
		})
		if !found {
			return n
		}
		s = next
	}
	return 201
}

func TestExplore(t *testing.T) {
	for _, p := range []plan{
		{name: "two parties, window 1, tight card", window: 1, in: 1, out: 1, blocks: [2]int8{3, 3}, credit: [2]int8{-1, -1}, buffer: 1, wantMinimum: 1e4},
		{name: "seal and open, window 1", window: 1, in: 1, out: 1, blocks: [2]int8{3, 3}, credit: [2]int8{1, -1}, buffer: 3, wantMinimum: 1e4},
		{name: "seal and open, window 2, deeper card", window: 2, in: 1, out: 2, blocks: [2]int8{3, 2}, credit: [2]int8{2, -1}, buffer: 1, wantMinimum: 1e4},
		{name: "window 3, card of one", window: 3, in: 1, out: 1, blocks: [2]int8{3, 1}, credit: [2]int8{-1, -1}, buffer: 2, wantMinimum: 1e4},
		{name: "the other side is stuck", window: 1, in: 1, out: 1, blocks: [2]int8{2, 3}, credit: [2]int8{1, -1}, buffer: 1, stuck: true, wantMinimum: 1e3},
		{name: "the other side is stuck, window 2", window: 2, in: 2, out: 1, blocks: [2]int8{2, 3}, credit: [2]int8{-1, 2}, buffer: 1, stuck: true, wantMinimum: 1e3},
		{name: "the other side vanishes", window: 2, in: 1, out: 1, blocks: [2]int8{3, 2}, credit: [2]int8{1, -1}, buffer: 1, mayVanish: true, wantMinimum: 1e4},
	} {
		t.Run(p.name, func(t *testing.T) { explore(t, p) })
	}
}
