package split

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// quickMost is how many handshakes with the guard may be under way at a time. Each
// has a goroutine, whose stack grows to 16 KB; the cloud reports many accepts at once,
// and more handshakes at a time are not sooner done.
const quickMost = 64

// door knows who is on the way in: passive handshakes and dials between their
// start and the moment that netstack lists their endpoint. It bounds the
// handshakes, and it lets Run wait until nobody can slip in behind its back.
type door struct {
	limit int

	mu      sync.Mutex
	entered map[stack.TransportEndpointID]bool // handshakes under way; true: with the guard
	quick   int                                // of them, with the guard
	dials   int
	ajar    bool // open: not before Run, not after
}

// Answers of door.enter.
type doorAnswer uint8

const (
	doorOpen  doorAnswer = iota // come in; leave must follow
	doorKnown                   // that handshake is under way
	doorFull                    // too many handshakes
	doorShut                    // the stack is not running
)

// open lets handshakes and dials in.
func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entered = make(map[stack.TransportEndpointID]bool)
	d.ajar = true
}

// shut lets nobody in any more.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ajar = false
}

// enter asks for a passive handshake; quick says that the guard is the other side,
// so that it takes no round trip.
func (d *door) enter(id stack.TransportEndpointID, quick bool) doorAnswer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ajar {
		return doorShut
	}
	if _, ok := d.entered[id]; ok {
		return doorKnown
	}
	if len(d.entered) >= d.limit {
		return doorFull
	}
	d.entered[id] = quick
	if quick {
		d.quick++
	}
	return doorOpen
}

// leave says that a handshake has ended.
func (d *door) leave(id stack.TransportEndpointID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entered[id] {
		d.quick--
	}
	delete(d.entered, id)
}

// crowded says that enough handshakes with the guard are under way.
func (d *door) crowded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.quick >= quickMost
}

// enterDial asks for a dial; after true leaveDial must follow.
func (d *door) enterDial() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ajar {
		d.dials++
	}
	return d.ajar
}

// leaveDial says that netstack lists the dial's endpoint, or it failed.
func (d *door) leaveDial() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dials--
}

// empty says that nobody is on the way in.
func (d *door) empty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.entered) == 0 && d.dials == 0
}

// waiting returns the number of handshakes under way.
func (d *door) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.entered)
}
