package emu

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Emulator forwards frames over its paths while Run runs. Everything in it belongs to
// the pump; other goroutines send it commands.
type Emulator struct {
	paths  []*path
	ways   []*way
	frames pool
	out    batch
	tick   time.Duration
	opened time.Time
	waiter waiter
	// arrived is when a frame last came in.
	arrived time.Duration

	commands chan command
	done     chan struct{} // closed when Run has returned
}

// Open opens the interfaces of all paths in the calling thread's network namespace and
// turns their offloads off. It starts nothing. The caller must call Run, which also
// closes what Open opened, or Close.
func Open(c Config) (*Emulator, error) {
	e := &Emulator{
		tick:     c.tick(),
		opened:   time.Now(),
		commands: make(chan command, 16),
		done:     make(chan struct{}),
		waiter:   waiter{wake: -1},
	}
	if err := e.open(c); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *Emulator) open(c Config) error {
	if len(c.Paths) == 0 {
		return errors.New("paths: at least one is needed")
	}
	for i, pc := range c.Paths {
		if e.find(pc.Name) != nil {
			return fmt.Errorf("path %s: the name is used twice", pc.Name)
		}
		if err := e.addPath(pc, c.Seed*1000+uint64(2*i)); err != nil {
			return fmt.Errorf("path %s: %w", pc.Name, err)
		}
	}
	var fds []int
	for _, w := range e.ways {
		fds = append(fds, w.in.fd)
		e.frames.size = max(e.frames.size, w.in.ring.slot)
	}
	return e.waiter.open(fds)
}

func (e *Emulator) addPath(pc PathConfig, seed uint64) error {
	p := &path{name: pc.Name}
	e.paths = append(e.paths, p) // at once, so that Close finds the ports
	var err error
	if p.a, err = openPort(pc.A); err != nil {
		return err
	}
	if p.b, err = openPort(pc.B); err != nil {
		return err
	}
	if p.up, err = newWay(pc.Up, seed); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if p.down, err = newWay(pc.Down, seed+1); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	p.up.in, p.up.out = p.a, p.b
	p.down.in, p.down.out = p.b, p.a
	e.ways = append(e.ways, p.up, p.down)
	return nil
}

func newWay(p Params, seed uint64) (*way, error) {
	trace, err := traceOf(p)
	if err != nil {
		return nil, err
	}
	return &way{model: NewModel(p, trace, seed), trace: trace}, nil
}

// traceOf checks the parameters and reads the trace that they name.
func traceOf(p Params) (*Trace, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.Trace == "" {
		return nil, nil
	}
	return LoadTrace(p.Trace)
}

func (e *Emulator) find(name string) *path {
	for _, p := range e.paths {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Close releases what Open opened, if Run is not going to be called.
func (e *Emulator) Close() {
	for _, p := range e.paths {
		for _, port := range []*port{p.a, p.b} {
			if port != nil {
				port.close()
			}
		}
	}
	e.waiter.close()
}

// Run forwards frames until ctx ends, then closes the emulator. It returns nil, or
// why it could not go on.
func (e *Emulator) Run(ctx context.Context) error {
	defer e.Close()
	defer close(e.done)
	stop := context.AfterFunc(ctx, e.waiter.poke)
	defer stop()
	restore := becomePump()
	defer restore()
	return e.pump(ctx)
}

const (
	// maxNap bounds the sleep while frames come in: the ring must not fill meanwhile.
	maxNap = 4 * time.Millisecond
	// calm is how long no frame has come before arrivals are waited for.
	calm = 10 * time.Millisecond
)

// pump is the loop: read what came, send what is due, sleep.
func (e *Emulator) pump(ctx context.Context) error {
	for ctx.Err() == nil {
		m := e.clock()
		e.obey(m.now)
		for _, w := range e.ways {
			if w.receive(m, &e.frames) > 0 {
				e.arrived = m.now
			}
			w.send(m.now, &e.out, &e.frames)
		}
		if err := e.sleep(m.now); err != nil {
			return err
		}
	}
	return nil
}

func (e *Emulator) clock() moment {
	t := time.Now()
	now := t.Sub(e.opened)
	return moment{now: now, epoch: time.Duration(t.UnixNano()) - now}
}

// sleep waits until there may be something to do. While frames come in, arrivals do
// not end the sleep: their times are known from the ring, so it is enough to look
// before the first of them can be due. That makes batches and saves wake-ups, which
// cost more than the frames do.
func (e *Emulator) sleep(now time.Duration) error {
	nap, bounded := e.untilDue(now)
	busy := now-e.arrived < calm
	if busy {
		nap, bounded = min(nap, e.latency()), true
	}
	if !bounded {
		return e.waiter.wait(-1, true)
	}
	return e.waiter.wait(max(e.tick, nap), !busy)
}

// untilDue returns how long no frame will be due; bounded is false if none is held.
func (e *Emulator) untilDue(now time.Duration) (nap time.Duration, bounded bool) {
	nap = time.Hour
	for _, w := range e.ways {
		if at, ok := w.model.Next(); ok {
			nap, bounded = min(nap, at-now), true
		}
	}
	return nap, bounded
}

// latency returns the least time that a frame not yet read needs, at most maxNap.
func (e *Emulator) latency() time.Duration {
	least := maxNap
	for _, w := range e.ways {
		least = min(least, w.model.Latency())
	}
	return least
}
