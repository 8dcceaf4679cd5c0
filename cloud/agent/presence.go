package agent

import "sync"

// presence says whether an edge is there by any link of its session. A session whose edge
// has gone, as one that was killed, is in nobody's way.
type presence struct {
	mu     sync.Mutex
	came   bool         // a link has stood
	serves map[int]int  // connections at work, by link
	silent map[int]bool // links that do not speak
}

func newPresence() *presence { return &presence{serves: map[int]int{}, silent: map[int]bool{}} }

// serve takes in that a connection of a link begins, 1, or has ended, -1.
func (p *presence) serve(link, change int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came = true
	p.serves[link] += change
}

// hush takes in that a link has fallen silent, or speaks again (tunnel.Config.Silent).
func (p *presence) hush(link int, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent[link] = silent
}

// gone reports that no link speaks although one has stood.
func (p *presence) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for link, n := range p.serves {
		if n > 0 && !p.silent[link] {
			return false
		}
	}
	return p.came
}
