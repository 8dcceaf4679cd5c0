package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/simlink"
	"hawser/pkg/wire"
)

// TestNeighbour: a crowd of one edge that is sent much and reads nothing takes the cloud's
// memory, and another edge's short downloads, uploads and long downloads take about as long
// as before. The same crowd that goes on coming does not make them wait either.
func TestNeighbour(t *testing.T) {
	const short, long = 100_000, 2_000_000
	run(t, func(t *testing.T) {
		shared, spec := NewBudget(64<<20), simlink.Spec{Rate: 100 * mbit, Delay: 25 * time.Millisecond}
		noisy, quiet := newNeighbour(t, shared, spec), newNeighbour(t, shared, spec)
		defer noisy.close()
		defer quiet.close()
		noisy.edge.s.cfg.Budget.all().Resize(1 << 30) // it has memory, and allows much
		noisy.serve(1_000_000)
		measure := func() (took [3]time.Duration) {
			quiet.serve(short)
			took[0] = quiet.open(100).await(time.Minute)
			quiet.serve(0)
			took[1] = quiet.open(short).await(time.Minute)
			quiet.serve(long)
			took[2] = quiet.open(100).await(time.Minute)
			return took
		}
		measure() // the link finds its rate
		alone := measure()
		come := func(n int) {
			for range n {
				noisy.open(100, func(u *user) { u.stuck = true })
				time.Sleep(2 * time.Millisecond)
			}
		}
		come(300)
		time.Sleep(10 * time.Second)
		t.Logf("%d KB of %d are held for the crowd", (shared.Held()+shared.Kept())>>10, shared.pool()>>10)
		if shared.used() < shared.pool()/2 {
			t.Fatal("the crowd takes little")
		}
		beside := measure()
		come(300)
		amid := measure()
		t.Logf("alone %v, beside the crowd %v, amid it %v", alone, beside, amid)
		for i := range alone {
			if most := alone[i] * 5 / 4; beside[i] > most || amid[i] > most {
				t.Errorf("transfer %d takes %v alone, %v beside another edge's crowd, %v amid it", i, alone[i], beside[i], amid[i])
			}
		}
		t.Logf("%d KB of %d are held at last", (shared.Held()+shared.Kept())>>10, shared.pool()>>10)
		if most := shared.pool() + shared.pool()/sliverPart; shared.used() > most {
			t.Errorf("%d bytes are held, want %d at most", shared.used(), most)
		}
	})
}

// TestSliver: what is a session's own goes by how many hold something, is never more than
// what one that is alone has anyway, and is gone when it has been taken.
func TestSliver(t *testing.T) {
	b := NewBudget(64 << 20)
	now := time.Unix(1000, 0)
	hog, quiet := b.Part(), b.Part()
	for _, used := range []int64{0, 1, b.pool() / 8, b.pool() / 2, b.pool() * 3 / 4, b.pool(), 2 * b.pool()} {
		hog.move(int(hog.Held()), int(used))
		w := NewBudget(b.Limit())
		w.held.Store(used)
		for _, sure := range []bool{false, true} {
			if got, want := hog.window(1<<30, 77, sure, now), w.window(1<<30, 77, sure, now); got != want {
				t.Errorf("alone, %d used, sure %v: a window of %d, want %d", used, sure, got, want)
			}
			if got, want := hog.keep(77, sure, now), w.keep(77, sure, now); got != want {
				t.Errorf("alone, %d used, sure %v: %d may be kept, want %d", used, sure, got, want)
			}
		}
		if hog.share() != w.share() || hog.scarce() != w.scarce() || hog.part(5000, 5000, now) != w.part(5000, 5000, now) {
			t.Errorf("alone, %d used: share %d, scarce %v, part %d", used, hog.share(), hog.scarce(), hog.part(5000, 5000, now))
		}
	}
	if !hog.scarce() || hog.share() != leastWindow || quiet.scarce() || quiet.share() != openWindow {
		t.Errorf("the hog has %d and is scarce: %v; the other %d, %v", hog.share(), hog.scarce(), quiet.share(), quiet.scarce())
	}
	mine := b.pool() / sliverPart / 2
	quiet.move(0, int(mine*3/4))
	if b.holders.Load() != 2 || !quiet.scarce() || quiet.share() != leastWindow {
		t.Errorf("%d hold something; one that has taken most of its own has %d, scarce %v", b.holders.Load(), quiet.share(), quiet.scarce())
	}
	quiet.move(int(mine*3/4), 0)
	hog.move(int(hog.Held()), 0)
	if b.holders.Load() != 0 || b.used() != 0 {
		t.Errorf("%d hold %d bytes of none", b.holders.Load(), b.used())
	}
}

// TestOverdrawnByOther: when slabs exceed the budget because of one session, another that
// holds little goes on, up to a quarter more.
func TestOverdrawnByOther(t *testing.T) {
	b := NewBudget(1 << 20)
	hog, quiet := b.Part(), b.Part()
	hog.move(0, 1<<20)
	quiet.move(0, 1000)
	for _, c := range []struct {
		live       int64
		hog, quiet bool
	}{{hard << 20, false, false}, {hard<<20 + buffer.Small, true, false}, {(hard+1)<<20 + buffer.Small, true, true}} {
		var slabs []*buffer.Buf
		for buffer.Live()+buffer.Small <= c.live {
			slabs = append(slabs, buffer.Get(buffer.Small))
		}
		if hog.overdrawn() != c.hog || quiet.overdrawn() != c.quiet {
			t.Errorf("%d bytes: %v and %v", buffer.Live(), hog.overdrawn(), quiet.overdrawn())
		}
		for _, s := range slabs {
			s.Release()
		}
	}
}

// TestOverdrawnByNewcomers: while slabs exceed the budget a new flow is taken as much of as
// it was told that it may have, and is reset if more comes.
func TestOverdrawnByNewcomers(t *testing.T) {
	s := newTenant(t, nil)
	s.s.cfg.Budget = NewBudget(16 << 10)
	s.s.initial.own = leastWindow
	s.open(2)
	slab := buffer.Get(hard*16<<10 + 1)
	defer slab.Release()
	for id, n := range []int{leastWindow, leastWindow + 1} {
		s.frame(wire.Frame{Kind: wire.KindData, Flow: uint64(id + 1), Length: uint16(n)}, buffer.Copy(make([]byte, n)))
	}
	if s.s.flows[1] == nil || s.s.flows[2] != nil {
		t.Errorf("what it was told: %v, more than that: %v", s.s.flows[1] != nil, s.s.flows[2] != nil)
	}
	s.s.deliver()
}
