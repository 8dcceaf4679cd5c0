package card

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
)

// bad is a card that does wrong what the test tells it to.
type bad struct {
	*engine
	jobs   []*Job // put, not given back
	done   int    // of these: may be got
	most   int    // refuses beyond
	spoil  func(j *Job)
	closed bool
}

func newBad(t testing.TB) *bad { return &bad{engine: engineWith(t, software{}), most: 1000} }

func (b *bad) TryPut(j *Job) bool {
	if len(b.jobs) >= b.most {
		return false
	}
	b.jobs = append(b.jobs, j)
	return true
}

func (b *bad) TryGet() *Job {
	if b.done == 0 || len(b.jobs) == 0 {
		return nil
	}
	j := b.jobs[0]
	b.jobs = b.jobs[1:]
	b.done--
	b.do(j)
	if b.spoil != nil {
		b.spoil(j)
	}
	return j
}

func (b *bad) Park(time.Time) (time.Duration, bool) { return -1, b.done == 0 || len(b.jobs) == 0 }
func (b *bad) FD() int                              { return 99 }

func (b *bad) Close() {
	b.closed = true
	for _, j := range b.jobs {
		j.drop()
	}
}

// guarded is a Guard with a clock before a bad card.
type guarded struct {
	*Guard
	t    *testing.T
	bad  *bad
	now  time.Time
	ends [2]*Keyring
	put  uint32
	got  uint32
}

func newGuarded(t *testing.T, o GuardOptions) *guarded {
	leaks(t)
	g := &guarded{t: t, bad: newBad(t), now: start}
	g.ends[0], g.ends[1] = rings(t)
	var err error
	if g.Guard, err = NewGuard(g.bad, o); err != nil {
		t.Fatal(err)
	}
	return g
}

const second = time.Second

// seal puts n jobs of 5000 bytes.
func (g *guarded) seal(n int) {
	g.t.Helper()
	for range n {
		j := sealJob(g.ends[0], g.put, noise(5000), compress.None)
		j.Now = g.now
		if !g.TryPut(j) {
			g.t.Fatalf("job %d was refused", g.put)
		}
		g.put++
	}
}

// get takes n results, which must be the next ones, opens and compares them.
func (g *guarded) get(n int) {
	g.t.Helper()
	for range n {
		j := g.TryGet()
		if j == nil || j.Counter != g.got || j.Err != nil || j.Slab != nil || j.In.P != nil {
			g.t.Fatalf("job %d: %+v", g.got, j)
		}
		o := run(g.t, inline(g.t), &Job{Op: Open, Ring: g.ends[1], Flow: 7, Counter: g.got, In: j.Out})
		if o.Err != nil || !bytes.Equal(o.Out.P, noise(5000)) {
			g.t.Fatalf("record %d: %v", g.got, o.Err)
		}
		o.Out.Release()
		g.got++
	}
	if n == 0 {
		g.collect()
	} else if g.TryGet() != nil {
		g.t.Fatal("one more")
	}
}

// pass lets time go by in steps as the relay does, and returns when a result is
// there.
func (g *guarded) pass(d time.Duration) (result bool) {
	for until := g.now.Add(d); g.now.Before(until); {
		limit, ok := g.Park(g.now)
		if !ok {
			return true
		}
		if left := until.Sub(g.now); limit < 0 || limit > left {
			limit = left
		}
		g.now = g.now.Add(limit)
	}
	_, ok := g.Park(g.now)
	return !ok
}

func (g *guarded) want(w GuardCounts) {
	g.t.Helper()
	if got := g.Counts(); got != w {
		g.t.Errorf("%+v, want %+v", got, w)
	}
}

func TestGuardPasses(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 4})
	g.seal(4)
	if extra := sealJob(g.ends[0], 9, noise(5000), compress.None); g.TryPut(extra) || extra.Slab == nil {
		t.Error("a full queue took a job, or its slab")
	} else {
		extra.drop()
	}
	g.bad.done = 3
	g.get(3)
	g.seal(1)
	g.bad.done = 2
	g.get(2)
	if g.FD() != 99 || g.pass(10*second) {
		t.Error("an empty guard has something to say")
	}
	g.want(GuardCounts{})
	g.Close()
	if !g.bad.closed {
		t.Error("the card was not closed")
	}
}

// A card that says nothing more is given up after the deadline; what it held is
// done, and its late results are dropped. After the pause it is used again.
func TestGuardStall(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8, Deadline: 2 * second, Retry: 10 * second})
	g.seal(3)
	g.bad.done = 1
	g.get(1)
	if g.pass(1900 * time.Millisecond) {
		t.Fatal("given up before the deadline")
	}
	if !g.pass(second) {
		t.Fatal("not given up")
	}
	g.get(2)
	g.seal(2) // at once, by the guard
	g.get(2)
	g.want(GuardCounts{Failures: 1, Again: 2})
	g.now = g.now.Add(20 * second)
	g.seal(1) // the card still holds two
	g.get(1)
	g.bad.done = 2
	g.get(0)
	g.want(GuardCounts{Failures: 1, Again: 2, Late: 2})
	g.seal(1)
	if g.TryGet() != nil || len(g.bad.jobs) != 1 {
		t.Fatal("the card is not tried again")
	}
	g.bad.done = 1
	g.get(1)
	g.Close()
}

// The pause doubles while the card goes on failing.
func TestGuardPause(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8, Deadline: second, Retry: 4 * second})
	for _, pause := range []time.Duration{4, 8, 16, 32, 60, 60} {
		g.seal(1)
		if !g.pass(3 * second) {
			t.Fatal("not given up")
		}
		g.get(1)
		g.bad.done = 1
		g.get(0)
		g.now = g.now.Add((pause - 2) * second)
		g.seal(1)
		g.get(1) // by the guard
		g.now = g.now.Add(2 * second)
	}
	g.now = g.now.Add(10 * time.Minute)
	g.seal(1)
	if !g.pass(3*second) || g.Guard.pause != 8*second {
		t.Errorf("after a good time the next pause is %v", g.Guard.pause)
	}
	g.get(1)
	g.Close()
}

// A caller that was away does not blame the card.
func TestGuardAway(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8, Deadline: 2 * second})
	g.seal(2)
	for range 5 {
		g.now = g.now.Add(time.Minute)
		if _, ok := g.Park(g.now); !ok {
			t.Fatal("given up")
		}
	}
	g.bad.done = 2
	g.get(2)
	g.want(GuardCounts{})
	g.Close()
}

// A caller that never waits finds a stalled card out, too.
func TestGuardBusy(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 64, Deadline: 2 * second})
	for range 30 {
		g.seal(1)
		g.now = g.now.Add(second / 10)
	}
	if n := g.Counts().Failures; n != 1 {
		t.Fatalf("given up %d times", n)
	}
	g.get(30)
	g.Close()
}

// A reset: the card gives everything back undone.
func TestGuardLost(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8})
	g.seal(5)
	g.bad.spoil = func(j *Job) {
		j.Out.Release()
		j.Out, j.Err = buffer.Seg{}, fmt.Errorf("device was reset: %w", ErrLost)
	}
	g.bad.done = 5
	g.get(5)
	g.want(GuardCounts{Failures: 1, Again: 5, Late: 4})
	g.Close()
}

// Full queues of the card stop nobody.
func TestGuardRefused(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8})
	g.bad.most = 2
	g.seal(6)
	g.bad.done = 2
	g.get(6)
	g.want(GuardCounts{})
	g.Close()
}

// Results that cannot be right are not passed on: a record whose length is
// wrong, a block that is too long, and "forged" for what is authentic.
func TestGuardWrong(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8})
	g.bad.spoil = func(j *Job) { j.Out.P = j.Out.P[:len(j.Out.P)-1] }
	g.bad.done = 1
	g.seal(1)
	g.get(1)
	g.want(GuardCounts{Failures: 1, Again: 1, Wrong: 1})
	g.now = g.now.Add(time.Minute)

	record := sealed(t, inline(t), g.ends[0], 77, noise(5000), compress.None)
	g.bad.spoil = func(j *Job) {
		j.Out.Release()
		j.Out, j.Err = buffer.Seg{}, ErrForged
	}
	for _, own := range []bool{false, true} {
		g.bad.done = 1
		j := openJob(g.ends[1], 77, record)
		if own {
			j.Slab, j.N = buffer.Get(len(record)), len(record)
			copy(j.Slab.Bytes(), record)
			j.In.Release()
			j.In = buffer.Seg{}
		}
		j.Now = g.now
		run(t, g, j)
		if j.Err != nil || !bytes.Equal(j.Out.P, noise(5000)) {
			t.Errorf("%v", j.Err)
		}
		j.Out.Release()
		g.now = g.now.Add(time.Minute)
	}
	g.want(GuardCounts{Failures: 3, Again: 3, Wrong: 3})

	// What is forged indeed is nobody's failure.
	g.bad.spoil = nil
	g.bad.done = 1
	record[500] ^= 1
	j := openJob(g.ends[1], 77, record)
	j.Now = g.now
	if run(t, g, j); j.Err == nil || j.Out.P != nil {
		t.Error("a forged record was opened")
	}
	g.want(GuardCounts{Failures: 3, Again: 3, Wrong: 3})
	g.Close()
}

// Small jobs do not go to the card, and wait for their turn behind those that
// do.
func TestGuardSmall(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 8})
	g.seal(1)
	small := sealJob(g.ends[0], 1, text(2000), compress.S2)
	g.TryPut(small)
	if len(g.bad.jobs) != 1 || g.TryGet() != nil {
		t.Fatal("not in order")
	}
	g.bad.done = 1
	if j := g.TryGet(); j.Counter != 0 {
		t.Error("not in order")
	} else {
		j.Out.Release()
	}
	if j := g.TryGet(); j != small || j.Used != compress.S2 {
		t.Error("not in order")
	} else {
		j.Out.Release()
	}
	for name, j := range map[string]*Job{
		"no ring":  {Op: Seal, In: buffer.Copy(noise(5000))},
		"too much": {Op: Seal, Ring: g.ends[0], Slab: buffer.Get(1 << 16), N: buffer.Most + 1},
		"no room":  {Op: Seal, Ring: g.ends[0], Slab: buffer.Get(10), N: 1 << 20},
		"beyond":   {Op: Open, Ring: g.ends[0], Slab: buffer.Get(10), N: 1 << 20},
	} {
		g.bad.done = 1
		if run(t, g, j); j.Err == nil {
			t.Errorf("%s: no error", name)
		}
		g.bad.done = 0
	}
	g.Close()
}

// Closed with jobs in every state: nothing is lost, on either side.
func TestGuardClose(t *testing.T) {
	g := newGuarded(t, GuardOptions{Depth: 16, Deadline: second})
	g.seal(4)
	g.pass(3 * second)
	g.seal(2)
	g.bad.done = 1
	g.get(0)
	g.Close()

	if _, err := NewGuard(g.bad, GuardOptions{}); err == nil {
		t.Error("a queue of none was made")
	}
}
