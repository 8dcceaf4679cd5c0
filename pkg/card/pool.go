package card

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a pool.
const (
	MaxThreads = 64
	MaxQueue   = 1024 // jobs inside a channel
)

// batch is how many jobs of one channel a thread does before it looks at the
// next channel.
const batch = 16

// PoolOptions make a Pool.
type PoolOptions struct {
	Threads int   // 1 to MaxThreads
	Queue   int   // jobs inside a channel at most, 1 to MaxQueue
	CPUs    []int // thread i is bound to CPUs[i % len]; empty: threads are free to move
}

// Pool is a card with threads of its own. A channel belongs to one thread, so
// its jobs are done in their order; a thread serves several channels in turn.
//
// A thread without work sleeps on a Go channel: waking it costs a tenth of what
// an eventfd would. It is woken only when it sleeps, and it wakes a worker only
// when that has announced so with Park.
type Pool struct {
	o       PoolOptions
	threads []*thread

	mu    sync.Mutex // guards what follows; not taken per job
	next  int
	ended bool
}

// NewPool returns a pool that computes in software. Run sets it going.
func NewPool(o PoolOptions) (*Pool, error) {
	return newPool(o, func() (crypter, error) { return software{}, nil })
}

func newPool(o PoolOptions, crypt func() (crypter, error)) (*Pool, error) {
	switch {
	case o.Threads < 1 || o.Threads > MaxThreads:
		return nil, fmt.Errorf("card: %d threads, may be 1 to %d", o.Threads, MaxThreads)
	case o.Queue < 1 || o.Queue > MaxQueue:
		return nil, fmt.Errorf("card: queue of %d jobs, may be 1 to %d", o.Queue, MaxQueue)
	}
	p := &Pool{o: o}
	for i := range o.Threads {
		e, err := newEngine()
		if err != nil {
			return nil, err
		}
		if e.crypt, err = crypt(); err != nil {
			return nil, err
		}
		t := &thread{engine: e, bell: make(chan struct{}, 1), cpu: -1}
		if len(o.CPUs) > 0 {
			t.cpu = o.CPUs[i%len(o.CPUs)]
		}
		t.channels.Store(&[]*poolChannel{})
		p.threads = append(p.threads, t)
	}
	return p, nil
}

// Open makes a channel, on the thread that has fewest. wake is called on a
// thread of the pool for the first result after Park; nil makes a descriptor
// for the channel's FD instead.
func (p *Pool) Open(wake func()) (Channel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, errors.New("card: the pool has ended")
	}
	c := &poolChannel{pool: p, thread: p.threads[p.next%len(p.threads)], wake: wake, fd: -1}
	c.ring.size(p.o.Queue)
	if wake == nil {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("card: eventfd: %w", err)
		}
		c.fd = fd
		binary.NativeEndian.PutUint64(c.one[:], 1)
	}
	p.next++
	c.thread.add(c)
	return c, nil
}

// Threads returns how many threads the pool has.
func (p *Pool) Threads() int { return p.o.Threads }

// Run works until ctx ends. It returns after all threads have ended and the
// channels have let go of their jobs, or with an error when a thread cannot be
// bound to its CPU.
func (p *Pool) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, t := range p.threads {
		wg.Go(func() {
			if err := t.loop(ctx); err != nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
	p.end()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// end gives up the channels that were closed meanwhile; those that are closed
// later do it themselves.
func (p *Pool) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, t := range p.threads {
		t.sweep()
		t.engine.crypt.close()
	}
}

// thread is one thread of a pool.
type thread struct {
	engine   *engine
	cpu      int // -1: not bound
	bell     chan struct{}
	asleep   atomic.Bool
	channels atomic.Pointer[[]*poolChannel] // changed under the pool's lock
}

// add gives the thread one more channel.
func (t *thread) add(c *poolChannel) {
	list := append(slices.Clone(*t.channels.Load()), c)
	t.channels.Store(&list)
	t.rouse()
}

// rouse wakes the thread if it sleeps. Who has written what the thread looks at
// before it sleeps, and then calls rouse, is not overlooked.
func (t *thread) rouse() {
	if t.asleep.Load() && t.asleep.CompareAndSwap(true, false) {
		t.bell <- struct{}{} // empty: only who clears asleep fills it
	}
}

// loop serves the thread's channels until ctx ends.
func (t *thread) loop(ctx context.Context) error {
	if t.cpu >= 0 {
		runtime.LockOSThread() // and never unlocked: the bound thread ends with the goroutine
		var set unix.CPUSet
		set.Set(t.cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("card: bind thread to CPU %d: %w", t.cpu, err)
		}
	}
	stop := ctx.Done()
	for ctx.Err() == nil {
		if t.serve() {
			continue
		}
		t.asleep.Store(true)
		if t.pending() && t.asleep.CompareAndSwap(true, false) {
			continue
		}
		select {
		case <-t.bell:
		case <-stop:
			return nil
		}
	}
	return nil
}

// serve looks once at every channel, and reports whether one had work.
func (t *thread) serve() bool {
	worked, closed := false, false
	for _, c := range *t.channels.Load() {
		if c.closed.Load() {
			closed = true
			continue
		}
		worked = c.serve(t.engine) || worked
	}
	if closed {
		t.remove()
	}
	return worked
}

// pending reports whether serve would find something.
func (t *thread) pending() bool {
	for _, c := range *t.channels.Load() {
		if c.closed.Load() || c.ring.next() != nil {
			return true
		}
	}
	return false
}

// remove gives up the channels that were closed.
func (t *thread) remove() {
	list := *t.channels.Load()
	p := list[0].pool
	p.mu.Lock()
	defer p.mu.Unlock()
	t.sweep()
}

// sweep is remove for whoever has the pool's lock.
func (t *thread) sweep() {
	list := []*poolChannel{}
	for _, c := range *t.channels.Load() {
		if c.closed.Load() {
			c.release()
		} else {
			list = append(list, c)
		}
	}
	t.channels.Store(&list)
}

// poolChannel is a worker's way to a Pool.
type poolChannel struct {
	pool   *Pool
	thread *thread
	wake   func()
	fd     int     // -1 with wake
	one    [8]byte // what is written to fd
	ring   ring
	parked atomic.Bool // the worker waits, or is about to
	closed atomic.Bool
}

// serve does up to batch jobs on the pool's thread, and reports whether there
// was one.
func (c *poolChannel) serve(e *engine) bool {
	for n := range batch {
		j := c.ring.next()
		if j == nil {
			return n > 0
		}
		e.do(j)
		c.ring.finish()
		// The first result wakes the worker, which takes the others as they come.
		if c.parked.Load() && c.parked.CompareAndSwap(true, false) {
			c.signal()
		}
	}
	return true
}

func (c *poolChannel) signal() {
	if c.wake != nil {
		c.wake()
		return
	}
	_, _ = unix.Write(c.fd, c.one[:]) // cannot block: 2^64 wake-ups do not happen
}

// TryPut hands j to the pool.
func (c *poolChannel) TryPut(j *Job) bool {
	if !c.ring.push(j) {
		return false
	}
	c.thread.rouse()
	return true
}

// TryGet returns the oldest finished job, or nil.
func (c *poolChannel) TryGet() *Job { return c.ring.pop() }

// Park makes the next result wake the worker.
func (c *poolChannel) Park(time.Time) (limit time.Duration, ok bool) {
	if c.ring.ready() {
		return -1, false
	}
	if c.ring.got == c.ring.put.Load() {
		return -1, true // nothing inside
	}
	c.parked.Store(true)
	if c.ring.ready() && c.parked.CompareAndSwap(true, false) {
		return -1, false
	}
	return -1, true
}

// FD returns the eventfd, or -1 for a channel with a wake function. Nobody
// reads it: each write is a new edge.
func (c *poolChannel) FD() int { return c.fd }

// Close gives the channel up. The pool's thread releases what is inside, unless
// it has ended.
func (c *poolChannel) Close() {
	if !c.closed.CompareAndSwap(false, true) {
		return
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.pool.ended {
		c.thread.sweep()
		return
	}
	c.thread.rouse()
}

// release is the end of a closed channel, on the thread that alone knows it by
// now.
func (c *poolChannel) release() {
	c.ring.drop()
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
}
