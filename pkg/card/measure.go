package card

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
)

// Kind is how a card works.
type Kind uint8

// Kinds.
const (
	KindInline Kind = iota
	KindPool
	KindKernel
)

// String returns the kind's name as configuration and status show it.
func (k Kind) String() string {
	names := [...]string{"inline", "pool", "kernel"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Make returns a pool of this kind, or nil for inline.
func (k Kind) Make(o PoolOptions) (*Pool, error) {
	switch k {
	case KindInline:
		return nil, nil
	case KindPool:
		return NewPool(o)
	case KindKernel:
		return NewKernel(o)
	}
	return nil, fmt.Errorf("card: unknown kind %d", k)
}

// Trial says how to measure.
type Trial struct {
	Workers int         // that use cards at the same time, at least 1
	Pool    PoolOptions // of the kinds that have threads
	Block   int         // plain bytes per job, 1 to buffer.Most
	Load    int         // bytes that a worker copies per job: its own work
	Window  int         // jobs that a worker has in the card at most, 1 to maxWindow
	Spans   int         // measured per kind, in turns; the best one counts, others were disturbed
	Span    time.Duration
}

// Rate is what one kind has reached.
type Rate struct {
	Kind  Kind
	Bytes float64 // plain bytes per second of all workers together
	Err   error   // why there is none
}

// Measure seals blocks with each kind, as fast as it goes. While it does, the
// workers copy memory as their own share of the work, so an asynchronous kind
// comes out ahead exactly where processors are to spare for it.
func Measure(t Trial, kinds ...Kind) []Rate {
	out := make([]Rate, len(kinds))
	for range max(1, t.Spans) {
		for i, k := range kinds {
			if out[i].Kind = k; out[i].Err != nil {
				continue
			}
			rate, err := t.span(k)
			out[i].Bytes, out[i].Err = max(out[i].Bytes, rate), err
		}
	}
	return out
}

// span measures one kind once.
func (t Trial) span(k Kind) (rate float64, err error) {
	if t.Window < 1 || t.Window > maxWindow {
		return 0, fmt.Errorf("card: trial with a window of %d jobs, may be 1 to %d", t.Window, maxWindow)
	}
	pool, err := k.Make(t.Pool)
	if err != nil {
		return 0, err
	}
	secret := [SecretLen]byte{1} // nothing that it seals goes anywhere
	keys, err := NewKeyring(secret[:], Edge)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var threads, users sync.WaitGroup
	if pool != nil {
		threads.Go(func() { err = pool.Run(ctx) })
	}
	made := make([]*trier, max(1, t.Workers))
	for i := range made {
		u, failed := t.user(pool, keys, i)
		if failed != nil {
			cancel()
			threads.Wait()
			return 0, errors.Join(failed, err)
		}
		made[i] = u
	}
	start := time.Now()
	for _, u := range made {
		users.Go(func() { u.run(start.Add(t.Span)) })
	}
	users.Wait()
	took := time.Since(start)
	cancel()
	threads.Wait()
	jobs := 0
	for _, u := range made {
		jobs += u.done
		err = errors.Join(err, u.err)
	}
	return float64(jobs*t.Block) / took.Seconds(), err
}

// trier is a worker that does nothing but seal.
type trier struct {
	trial   Trial
	channel Channel
	keys    *Keyring
	flow    int
	rung    chan struct{}
	from    []byte
	to      []byte
	jobs    [2 * maxWindow]Job
	put     uint32
	done    int
	err     error
}

func (t Trial) user(pool *Pool, keys *Keyring, flow int) (*trier, error) {
	u := &trier{trial: t, keys: keys, flow: flow, rung: make(chan struct{}, 1), from: make([]byte, buffer.Most), to: make([]byte, buffer.Most)}
	var err error
	if pool == nil {
		u.channel, err = NewInline(t.Window)
		return u, err
	}
	if u.channel, err = pool.Open(u.wake); err != nil {
		return nil, err
	}
	guard, err := NewGuard(u.channel, GuardOptions{Depth: t.Pool.Queue})
	if err != nil {
		u.channel.Close()
		return nil, err
	}
	u.channel = guard
	return u, nil
}

func (u *trier) wake() {
	select {
	case u.rung <- struct{}{}:
	default:
	}
}

// maxWindow bounds Trial.Window.
const maxWindow = 32

// run seals until the time is over.
func (u *trier) run(until time.Time) {
	defer u.channel.Close()
	inside := 0
	for now := time.Now(); u.err == nil && (inside > 0 || now.Before(until)); now = time.Now() {
		put := inside < u.trial.Window && now.Before(until) && u.seal(now)
		if put {
			inside++
		}
		got := u.collect()
		inside -= got
		if put || got > 0 || inside == 0 {
			continue
		}
		if limit, ok := u.channel.Park(now); ok {
			u.wait(limit)
		}
	}
}

// seal does a worker's share for one block and puts it.
func (u *trier) seal(now time.Time) bool {
	for left := u.trial.Load; left > 0; left -= len(u.from) {
		copy(u.to, u.from[:min(left, len(u.from))])
	}
	j := &u.jobs[int(u.put)%len(u.jobs)]
	*j = Job{Op: Seal, Ring: u.keys, Flow: stream.ID(u.flow), Counter: u.put, Now: now, Slab: buffer.Get(u.trial.Block + Overhead), N: u.trial.Block}
	if !u.channel.TryPut(j) {
		j.drop()
		return false
	}
	u.put++
	return true
}

func (u *trier) collect() (n int) {
	for j := u.channel.TryGet(); j != nil; j = u.channel.TryGet() {
		n++
		u.done++
		u.err = cmp.Or(u.err, j.Err)
		j.Out.Release()
	}
	return n
}

func (u *trier) wait(limit time.Duration) {
	if limit < 0 {
		<-u.rung
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-u.rung:
	case <-timer.C:
	}
}

// advantage is how much faster than inline a card must be to be picked, in
// percent: its threads have costs that a short trial does not show.
const advantage = 20

// chosenWindow is the window of Choose's trial: a few flows are under way.
const chosenWindow = 8

// Choice is what Choose has picked.
type Choice struct {
	Kind Kind
	Why  string // one line
}

// spansFirst and spansAgain are how many spans Choose measures of each kind, and again
// of inline and what beat it: where others keep the machine busy, all of a few spans
// of inline may have been disturbed.
const (
	spansFirst = 3
	spansAgain = 10
)

// Choose measures for a few milliseconds and picks a kind for that many workers.
func Choose(workers int, o PoolOptions) Choice {
	return choose(workers, func(spans int, kinds ...Kind) []Rate {
		return Measure(Trial{
			Workers: workers, Pool: o, Block: buffer.Plain, Load: 4 * buffer.Plain, Window: chosenWindow, Spans: spans, Span: time.Millisecond,
		}, kinds...)
	})
}

// choose picks by what measure finds. A kind other than inline has to win twice: a
// machine that was busy for the length of the first trial would have an agent
// keep a slower card for as long as it runs.
func choose(workers int, measure func(spans int, kinds ...Kind) []Rate) Choice {
	rates := measure(spansFirst, KindInline, KindPool, KindKernel)
	c := pick(workers, rates)
	if c.Kind == KindInline {
		return c
	}
	for _, again := range measure(spansAgain, KindInline, c.Kind) {
		r := &rates[again.Kind]
		r.Bytes, r.Err = max(r.Bytes, again.Bytes), again.Err
	}
	return pick(workers, rates)
}

// pick decides by rates, the first of which is inline's.
func pick(workers int, rates []Rate) Choice {
	c := Choice{Kind: rates[0].Kind}
	best := rates[0].Bytes * (1 + advantage/100.0)
	why := ""
	for i, r := range rates {
		if i > 0 {
			why += ", "
		}
		if r.Err != nil {
			why += fmt.Sprintf("%s none", r.Kind)
			continue
		}
		why += fmt.Sprintf("%s %.1f", r.Kind, r.Bytes/1e9)
		if i > 0 && r.Bytes > best {
			c.Kind, best = r.Kind, r.Bytes
		}
	}
	c.Why = fmt.Sprintf("measured at start, GB/s of %d workers on %d CPUs: %s; a card must beat inline by %d %%",
		workers, runtime.GOMAXPROCS(0), why, advantage)
	return c
}
