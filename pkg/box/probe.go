package box

import (
	"context"
	"sync"
	"time"
)

// Prober has all connections of the hubs that rest asked whether they still stand.
type Prober struct {
	workers *Workers
	wanted  chan struct{}
}

// Prober returns one for the workers.
func (w *Workers) Prober() *Prober { return &Prober{w, make(chan struct{}, 1)} }

// Ask has Run ask, soon. It does not block.
func (p *Prober) Ask() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// probeQuiet is the pause from one line in the log to the next.
const probeQuiet = time.Minute

// Run works until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	var said time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wanted:
		}
		if now := time.Now(); now.Sub(said) >= probeQuiet {
			said = now
			p.workers.opts.Log.Info("an interface or an address of this host went and is back: asking servers whether connections still stand")
		}
		var stacks sync.WaitGroup
		for _, s := range p.workers.stacks {
			stacks.Go(s.Probe)
		}
		stacks.Wait()
	}
}
