package split

import (
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/repair"
)

const (
	// peerTime is how long a client counts as one on a poor line after its last
	// report of a gap.
	peerTime  = 10 * time.Minute
	mostPeers = 1 << 10 // further ones go unmended
)

// peers are the clients on poor lines, by address, of all stacks of an agent.
type peers struct {
	begun time.Time
	size  atomic.Int32 // a look without the lock

	mu    sync.Mutex
	all   map[[16]byte]*peer
	swept time.Duration
}

// peer is one of them.
type peer struct {
	until time.Duration
	line  repair.Line
}

func newPeers() *peers { return &peers{begun: time.Now(), all: map[[16]byte]*peer{}} }

// now is the time that all flows to these peers are measured by.
func (p *peers) now() time.Duration { return time.Since(p.begun) }

// note makes a client one on a poor line, or lets it stay that.
func (p *peers) note(client *[16]byte, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.all[*client]
	if c == nil {
		if len(p.all) >= mostPeers && !p.sweep(now) {
			return
		}
		c = &peer{}
		p.all[*client] = c
		p.size.Store(int32(len(p.all)))
	}
	c.until = now + peerTime
}

// sweep makes room, at most once a second; false: there is none.
func (p *peers) sweep(now time.Duration) bool {
	if p.swept > 0 && now-p.swept < time.Second {
		return false
	}
	p.swept = now
	for a, c := range p.all {
		if c.until <= now {
			delete(p.all, a)
		}
	}
	return len(p.all) < mostPeers
}

// line is what is known of the line of a client; false: it is not a poor one.
func (p *peers) line(client *[16]byte, now time.Duration) (repair.Line, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.all[*client]
	if c != nil && c.until <= now {
		delete(p.all, *client)
		p.size.Store(int32(len(p.all)))
		c = nil
	}
	if c == nil {
		return repair.Line{}, false
	}
	return c.line, true
}

// learn keeps what a flow has found out about its client's line.
func (p *peers) learn(client *[16]byte, l repair.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.all[*client]; c != nil {
		c.line = l
	}
}
