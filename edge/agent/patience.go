package agent

import (
	"context"
	"sync"
	"time"

	"hawser/pkg/link"
)

// How long check waits for one transport of a link.
const (
	checkTime = 6 * time.Second     // while nothing comes back
	checkTurn = checkTime / 2       // the same for each address of a name
	checkSlow = link.DefaultTimeout // where something does: at 10 kbit/s a handshake takes 4 s by TCP, 16 by QUIC
	checkGain = 3                   // times what the other transport took
)

// patience is how long check waits for the transports of a link, which it tries at the same
// time. Where nothing comes back the link is soon said to be dead. Where something does, by
// either, the line may be one of 10 kbit/s, on which each also waits for the other's
// packets. Once one has succeeded that is known.
type patience struct {
	begin      time.Time
	dead, slow time.Duration // checkTime and checkSlow; tests change them

	mu    sync.Mutex
	waits map[link.Transport]*waiting // guarded by mu
}

// waiting is for one transport.
type waiting struct {
	timer *time.Timer
	heard bool
	took  time.Duration // until it has succeeded; 0: it has not
	over  bool
}

func newPatience() *patience {
	return &patience{begin: time.Now(), dead: checkTime, slow: checkSlow, waits: map[link.Transport]*waiting{}}
}

// wait is ctx until there is no more waiting for a transport. Call done afterwards.
func (p *patience) wait(ctx context.Context, t link.Transport) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits[t] = &waiting{timer: time.AfterFunc(p.dead, cancel)}
	p.set()
	return ctx
}

// hear notes that something has come back.
func (p *patience) hear(t link.Transport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits[t].heard = true
	p.set()
}

// done notes that a transport has succeeded, or has not.
func (p *patience) done(t link.Transport, works bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.waits[t]
	w.over = true
	w.timer.Reset(0)
	if works {
		w.took = max(time.Since(p.begin), 1)
	}
	p.set()
}

// set sets the timers anew. Its caller holds mu.
func (p *patience) set() {
	for t, w := range p.waits {
		if !w.over {
			w.timer.Reset(time.Until(p.begin.Add(p.most(t))))
		}
	}
}

// most is how long to wait for a transport.
func (p *patience) most(t link.Transport) time.Duration {
	own := p.waits[t]
	most := p.dead
	for _, w := range p.waits {
		switch {
		case w.took > 0 && own.heard:
			return min(max(p.dead, checkGain*w.took), p.slow)
		case w.took > 0:
			return max(p.dead, w.took)
		case w.heard && !w.over:
			most = p.slow
		}
	}
	return most
}

// turn is that of one of a cloud's addresses, of which the next is tried when nothing has
// come back from the one before.
type turn struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	timer  *time.Timer // nil: there is only one address
}

// next begins the next turn. Call cancel at its end.
func (t *turn) next(ctx context.Context, named bool) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel = cancel
	if named {
		t.timer = time.AfterFunc(checkTurn, cancel)
	}
	return ctx
}

// stays lets the present turn go on: something has come back.
func (t *turn) stays() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
}
