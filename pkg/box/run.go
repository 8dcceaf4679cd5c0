package box

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"hawser/pkg/relay"
	"hawser/pkg/split"
	"hawser/pkg/stream"
)

// Run works until ctx ends or a worker or stack fails, and returns that
// failure. The card outlives the workers, too, and the stacks outlive both, so that the resets which the
// workers' end causes still reach the parties.
func (w *Workers) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers, stacks, cards sync.WaitGroup
	cardsCtx, stopCards := context.WithCancel(context.Background())
	defer stopCards()
	cards.Go(func() {
		if err := w.cards.run(cardsCtx); err != nil {
			cancel(err)
		}
	})
	for _, s := range w.stacks {
		stacks.Go(func() {
			if err := s.Run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	for i, r := range w.workers {
		workers.Go(func() {
			if err := r.Run(w.flowsCtx); err != nil {
				cancel(err)
			}
			w.closeDoor(i)
		})
	}
	stacks.Go(func() { w.tidy(ctx) })
	if w.procs != nil {
		stacks.Go(func() { w.procs.run(ctx, w.opts.Log) })
	}
	if w.sentry != nil {
		stacks.Go(func() { w.sentry.run(ctx) })
	}
	unlink := context.AfterFunc(ctx, w.stopFlows)
	defer unlink()
	workers.Wait()
	stopCards()
	cards.Wait()
	close(w.flowsDone)
	<-ctx.Done()
	stacks.Wait()
	err := errors.Join(w.closePollers(), w.closeShunt())
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// StopFlows resets all flows towards both sides and returns when the sessions
// have been told.
func (w *Workers) StopFlows() {
	w.stopFlows()
	<-w.flowsDone
}

func (w *Workers) closePollers() error {
	var errs []error
	for _, p := range w.pollers {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Discard gives everything back when Run will not be called.
func (w *Workers) Discard() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return w.Run(ctx)
}

// abandon undoes a failed NewWorkers.
func (w *Workers) abandon(fds []int) error {
	if w.opts.Host != nil {
		for _, fd := range fds {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
	return w.Discard()
}

// Deliver implements stream.Sink.
func (w *Workers) Deliver(worker int, batch []stream.Event) { w.workers[worker].Leave(batch) }

// Settle implements stream.Sink.
func (w *Workers) Settle(worker int) { w.workers[worker].Settle() }

// Place implements stream.Sink: flows are spread evenly.
func (w *Workers) Place(id stream.ID) int { return int(uint64(id) % uint64(len(w.workers))) }

// Forget drops the keys of a session that has ended.
func (w *Workers) Forget(t stream.Tunnel) { w.rings.Forget(t) }

// Count returns the number of workers.
func (w *Workers) Count() int { return len(w.workers) }

// RelayStatus returns each worker's figures.
func (w *Workers) RelayStatus() []relay.Status {
	var out []relay.Status
	for _, r := range w.workers {
		out = append(out, r.Status())
	}
	return out
}

// StackStats returns each stack's figures.
func (w *Workers) StackStats() []split.Stats {
	var out []split.Stats
	for _, s := range w.stacks {
		out = append(out, s.Stats())
	}
	return out
}
