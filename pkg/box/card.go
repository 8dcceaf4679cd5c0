package box

import (
	"context"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"hawser/pkg/admin"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/relay"
	"hawser/pkg/sock"
)

// cards make the workers' channels to the crypto card that the configuration
// names, or that a short measurement has picked.
type cards struct {
	kind   card.Kind
	why    string
	queue  int
	pool   *card.Pool // nil: inline
	guards []*card.Guard
}

// newCards probes or measures what c says, for that many workers.
func newCards(c config.Card, workers int) (*cards, error) {
	if err := bindable(c); err != nil {
		return nil, err
	}
	o := poolOptions(c, workers)
	out := &cards{kind: card.KindInline, why: "configured", queue: o.Queue}
	switch c.Kind {
	case config.CardInline:
	case config.CardPool:
		out.kind = card.KindPool
	case config.CardKernel:
		out.kind = card.KindKernel
	default:
		choice := card.Choose(workers, o)
		out.kind, out.why = choice.Kind, choice.Why
	}
	pool, err := out.kind.Make(o)
	if err != nil {
		return nil, fmt.Errorf("card.kind: %s: %w: use auto, pool or inline", c.Kind, err)
	}
	out.pool = pool
	return out, nil
}

func poolOptions(c config.Card, workers int) card.PoolOptions {
	o := card.PoolOptions{Threads: c.Workers, Queue: c.Queue, CPUs: c.CPUs}
	if o.Threads == 0 {
		o.Threads = min(workers, card.MaxThreads)
	}
	if o.Queue == 0 {
		o.Queue = config.DefaultQueue
	}
	return o
}

// open makes a worker's channel, which its poller watches.
func (c *cards) open(poller *sock.Poller) (card.Channel, error) {
	if c.pool == nil {
		return card.NewInline(config.DefaultQueue)
	}
	channel, err := c.pool.Open(nil)
	if err != nil {
		return nil, err
	}
	guard, err := card.NewGuard(flawed(channel), card.GuardOptions{Depth: c.queue})
	if err == nil {
		err = poller.Attach(channel.FD())
	}
	if err != nil {
		channel.Close()
		return nil, err
	}
	c.guards = append(c.guards, guard)
	return guard, nil
}

// run is the card's threads.
func (c *cards) run(ctx context.Context) error {
	if c.pool == nil {
		return nil
	}
	return c.pool.Run(ctx)
}

// status is what the status document says about the card.
func (c *cards) status() admin.Card {
	s := admin.Card{Kind: c.kind.String(), Why: c.why, Window: relay.DefaultWindow}
	if c.pool != nil {
		s.Workers, s.Queue = c.pool.Threads(), c.queue
	}
	return s
}

// counts adds up what the workers' guards have gone through.
func (c *cards) counts() (sum card.GuardCounts) {
	for _, g := range c.guards {
		n := g.Counts()
		sum.Failures += n.Failures
		sum.Again += n.Again
		sum.Late += n.Late
		sum.Wrong += n.Wrong
	}
	return sum
}

// bindable finds out whether a thread can be bound to each CPU that c names; inline
// has no threads.
func bindable(c config.Card) error {
	if c.Kind == config.CardInline {
		return nil
	}
	for _, cpu := range c.CPUs {
		tried := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked: the bound thread ends with the goroutine
			var set unix.CPUSet
			set.Set(cpu)
			tried <- unix.SchedSetaffinity(0, &set)
		}()
		if err := <-tried; err != nil {
			return fmt.Errorf("card.cpus: CPU %d is not one that this program may use: %w: name others, or none", cpu, err)
		}
	}
	return nil
}

// TryCard says why the card that c names cannot be had, in one line that names the
// key. Agents ask before they change anything.
func TryCard(c config.Card) error {
	if err := bindable(c); err != nil || c.Kind != config.CardKernel {
		return err
	}
	if err := card.ProbeKernel(); err != nil {
		return fmt.Errorf("card.kind: kernel: %w: use auto, pool or inline", err)
	}
	return nil
}

// CheckCard finds out whether the card that c names can be had.
func CheckCard(c config.Card) []admin.Finding {
	if err := bindable(c); err != nil {
		return []admin.Finding{{Level: admin.LevelFail, What: err.Error(), Remedy: "lscpu shows the CPUs"}}
	}
	if c.Kind != config.CardKernel {
		return nil
	}
	if err := card.ProbeKernel(); err != nil {
		return []admin.Finding{{Level: admin.LevelFail, What: fmt.Sprintf("card.kind: kernel: %v", err), Remedy: "use auto, pool or inline, or a kernel that has it (modprobe algif_aead)"}}
	}
	return []admin.Finding{{Level: admin.LevelOK, What: "card.kind: kernel: this kernel does AES-GCM over AF_ALG"}}
}
