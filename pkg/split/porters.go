package split

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// porterMost is how many goroutines wait for a handshake to make.
const porterMost = 8

// porters make handshakes. netstack starts a goroutine for each, and what that calls
// goes so deep that its stack must grow several times, each time with a copy: a tenth
// of what a client's connection costs. So goroutines that have made a handshake wait
// for the next ones, and a fresh one hands its own to one of those.
type porters struct {
	next chan *tcp.ForwarderRequest // has no room: what is sent has been taken
	stop chan struct{}

	mu     sync.Mutex // guards the next ones
	idle   int
	closed bool
	rested sync.WaitGroup
}

func newPorters() *porters {
	return &porters{next: make(chan *tcp.ForwarderRequest), stop: make(chan struct{})}
}

// take hands r to a porter that waits, if there is one.
func (p *porters) take(r *tcp.ForwarderRequest) bool {
	select {
	case p.next <- r:
		return true
	default:
		return false
	}
}

// thin sends away those that wait: their stacks have grown to 8 KB and more each.
func (p *porters) thin() {
	for p.take(nil) {
	}
}

// rest waits for the next handshake; nil: the caller is not needed.
func (p *porters) rest() (r *tcp.ForwarderRequest) {
	p.mu.Lock()
	if p.closed || p.idle >= porterMost {
		p.mu.Unlock()
		return nil
	}
	p.idle++
	p.rested.Add(1)
	p.mu.Unlock()
	defer p.rested.Done()
	select {
	case r = <-p.next:
	case <-p.stop:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle--
	return r
}

// close sends those that wait away, and returns when they have gone.
func (p *porters) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	close(p.stop)
	p.rested.Wait()
}
