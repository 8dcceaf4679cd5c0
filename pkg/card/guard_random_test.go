package card

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/compress"
)

// Random misbehaviour over a long time: every job comes back once, in order,
// authentic.
func TestGuardRandom(t *testing.T) {
	wrong := uint64(0)
	for seed := range uint64(6) {
		g := newGuarded(t, GuardOptions{Depth: 8, Deadline: second, Retry: second})
		r := rand.New(rand.NewPCG(seed, 1))
		stuck := false
		g.bad.spoil = func(j *Job) {
			switch r.IntN(60) {
			case 0:
				j.Out.Release()
				j.Out, j.Err = buffer.Seg{}, ErrLost
			case 1:
				j.Out.P = j.Out.P[:20]
			}
		}
		for range 3000 {
			if r.IntN(50) == 0 {
				g.now = g.now.Add(5 * time.Minute)
			}
			switch r.IntN(8) {
			case 0:
				stuck = !stuck
			case 1:
				g.bad.most = r.IntN(20)
			case 2, 3:
				if g.count < 8 {
					g.seal(1)
				}
			case 4:
				g.pass(time.Duration(r.IntN(3000)) * time.Millisecond)
			default:
				if !stuck {
					g.bad.done += r.IntN(3)
				}
				g.bad.done = min(g.bad.done, len(g.bad.jobs))
				g.collect()
				for g.count > 0 && g.entries[g.head].sent == nil {
					n := g.got
					j := g.TryGet()
					if j.Counter != n || j.Err != nil {
						t.Fatalf("job %d: %+v", n, j)
					}
					o := run(t, inline(t), &Job{Op: Open, Ring: g.ends[1], Flow: 7, Counter: n, In: j.Out})
					if o.Err != nil {
						t.Fatal(o.Err)
					}
					o.Out.Release()
					g.got++
				}
			}
		}
		c := g.Counts()
		if c.Failures == 0 || c.Late == 0 || g.got < 100 {
			t.Errorf("seed %d: %+v, %d jobs: nothing was tested", seed, c, g.got)
		}
		wrong += c.Wrong
		g.Close()
	}
	if wrong == 0 {
		t.Error("no result was wrong: nothing was tested")
	}
}

// A thread of a real pool that hangs: the guard goes on without it. Its late
// results find their input still there, and wake the caller, who lets go of it.
func TestGuardBeforeHungPool(t *testing.T) {
	leaks(t)
	h := &hang{at: make(chan struct{}), on: make(chan struct{}), same: true}
	p, err := newPool(PoolOptions{Threads: 1, Queue: 8}, func() (crypter, error) { return h, nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	woken := make(chan struct{}, 1)
	inner, err := p.Open(func() { woken <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewGuard(inner, GuardOptions{Depth: 8, Deadline: second})
	if err != nil {
		t.Fatal(err)
	}
	edge, _ := rings(t)
	plain := noise(5000)
	const jobs = 3
	for n := range uint32(jobs) {
		c.TryPut(sealJob(edge, n, plain, compress.None))
	}
	<-h.at
	now := start
	for range 10 {
		now = now.Add(second / 4)
		c.Park(now)
	}
	for range jobs {
		j := c.TryGet()
		if j == nil || j.Err != nil {
			t.Fatal("the guard waits for ever")
		}
		j.Out.Release()
	}
	for n := range uint64(jobs) {
		if n > 0 {
			<-h.at
		}
		if limit, ok := c.Park(now); limit >= 0 || !ok {
			t.Fatalf("%v, %v", limit, ok)
		}
		h.on <- struct{}{}
		select {
		case <-woken:
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody is woken for late result %d, and its slabs stay", n)
		}
		if j := c.TryGet(); j != nil || c.Counts().Late != n+1 {
			t.Fatalf("%v, %+v", j, c.Counts())
		}
	}
	if !h.same {
		t.Error("the hung thread's input has changed")
	}
	c.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// hang stops in the middle of each job.
type hang struct {
	software
	at, on chan struct{}
	same   bool
}

func (h *hang) seal(key *recordKey, nonce *[nonceLen]byte, dst, plain []byte) error {
	h.at <- struct{}{}
	<-h.on
	h.same = h.same && bytes.Equal(plain, noise(5000))
	return h.software.seal(key, nonce, dst, plain)
}
