package split

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// door knows who is on the way in: passive handshakes and dials between their
// start and the moment that netstack lists their endpoint. It bounds the
// handshakes, and it lets Run wait until nobody can slip in behind its back.
type door struct {
	limit int

	mu      sync.Mutex
	entered map[stack.TransportEndpointID]struct{} // handshakes under way
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
	d.entered = make(map[stack.TransportEndpointID]struct{})
	d.ajar = true
}

// shut lets nobody in any more.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ajar = false
}

// enter asks for a passive handshake.
func (d *door) enter(id stack.TransportEndpointID) doorAnswer {
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
	d.entered[id] = struct{}{}
	return doorOpen
}

// leave says that a handshake has ended.
func (d *door) leave(id stack.TransportEndpointID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.entered, id)
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
