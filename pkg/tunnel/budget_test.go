package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/proof"
	"hawser/pkg/simlink"
	"hawser/pkg/stream"
)

func TestCredit(t *testing.T) {
	b := NewBudget(256 << 20)
	c := newCredit(b, InitialCredit)
	now := time.Unix(1000, 0)
	if c.limit != InitialCredit || c.window != openWindow {
		t.Fatalf("limit %d, window %d", c.limit, c.window)
	}
	for range 400 {
		now = now.Add(time.Millisecond)
		c.grant()
		c.consume(64<<10, now, 20*time.Millisecond, b)
	}
	if c.window <= 4*openWindow {
		t.Errorf("window %d though the consumer keeps up", c.window)
	}
	b.move(0, int(b.pool()*3/4))
	for range 400 {
		now = now.Add(time.Second)
		c.consume(64<<10, now, 20*time.Millisecond, b)
		c.grant()
	}
	if c.window > leastWindow {
		t.Errorf("window %d though the consumer is slow and memory scarce", c.window)
	}
}

// TestBridge: half of a window that waits for chunks of slower links opens it further, up
// to a bound, and not while memory is scarce.
func TestBridge(t *testing.T) {
	b := NewBudget(256 << 20)
	now := time.Unix(1000, 0)
	c := newCredit(b, InitialCredit)
	c.grant()
	if c.bridge(openWindow/2-1, now, b) {
		t.Error("less than half of the window is no reason")
	}
	if !c.bridge(openWindow/2, now, b) || c.window != 2*openWindow {
		t.Errorf("a window of %d bytes, want %d", c.window, 2*openWindow)
	}
	if c.bridge(openWindow/2, now, b) {
		t.Error("the same bytes open it twice")
	}
	for range 10 {
		c.bridge(c.window, now, b)
	}
	if c.window != bridgeMost {
		t.Errorf("a window of %d bytes, want %d", c.window, bridgeMost)
	}
	b.move(0, int(b.pool()))
	if d := newCredit(b, InitialCredit); d.bridge(d.window, now, b) && d.window > b.share() {
		t.Errorf("a window of %d bytes though memory is scarce", d.window)
	}
}

// Thousands of flows that nobody reads, each sent all that it may be, leave
// room in the received part of the budget, and one that is read has a wide
// window all the same.
func TestCreditUnderPressure(t *testing.T) {
	const limit = 256 << 20
	b := NewBudget(limit)
	now := time.Unix(1000, 0)
	for range 10_000 {
		c := newCredit(b, min(InitialCredit, b.share()))
		_, most := c.grant()
		b.move(0, int(most))
	}
	t.Logf("%d KB of %d held; a newcomer has %d bytes", b.Held()>>10, limit>>10, b.share())
	if b.Held() > b.pool() {
		t.Errorf("%d bytes are held of %d", b.Held(), b.pool())
	}
	if b.share() < leastWindow || b.share() > 4*leastWindow {
		t.Errorf("a newcomer has %d bytes", b.share())
	}
	c := newCredit(b, InitialCredit)
	for range 400 {
		now = now.Add(time.Millisecond)
		c.grant()
		c.consume(c.window/2, now, time.Millisecond, b)
	}
	if c.window < openWindow {
		t.Errorf("a flow that is read has a window of %d bytes only", c.window)
	}
}

// TestPart: a newcomer has as much as was read of it as long as few are new, but not what
// was read of it before, also where others have taken the pool; of a crowd each has a
// sixteenth of that, as has one that is not new, and any where nothing of the budget is left.
func TestPart(t *testing.T) {
	b := NewBudget(64 << 20)
	now := time.Unix(1000, 0)
	const read = 32 << 10
	for _, lately := range []int{read, read / 2} {
		if got := b.part(read, lately, now); got != read {
			t.Errorf("a newcomer of which %d bytes of %d were read lately has %d", lately, read, got)
		}
	}
	if got := b.part(read, read/2-1, now); got != read/provenPart {
		t.Errorf("one that is not new has %d bytes", got)
	}
	b.move(0, int(b.pool()))
	if got := b.part(read, read, now); got != read {
		t.Errorf("a newcomer has %d bytes where a crowd has taken the pool", got)
	}
	more := int(b.Limit() - b.Limit()/trialFree)
	b.move(int(b.pool()), more)
	if got := b.part(read, read, now); got != read/provenPart {
		t.Errorf("a newcomer has %d bytes where nothing is left", got)
	}
	b.move(more, 0)
	for range 10_000 {
		b.fresh.Come(now.UnixMilli())
	}
	if got := b.part(read, read, now); got != read/provenPart {
		t.Errorf("one of a crowd has %d bytes", got)
	}
	if got := b.part(read, read, now.Add(2*proof.Time*time.Millisecond)); got != read {
		t.Errorf("one that comes long after a crowd has %d bytes", got)
	}
}

func TestSendersKeepAPart(t *testing.T) {
	now := time.Unix(1000, 0)
	b := NewBudget(64 << 20)
	if k := b.keep(0, false, now); k < 8<<20 {
		t.Errorf("a lone flow may keep %d bytes", k)
	}
	for range 2000 {
		b.kept.Add(int64(b.keep(0, false, now)))
	}
	if b.Kept() > b.pool() || b.keep(0, false, now) != leastWindow {
		t.Errorf("%d bytes are kept, another flow may keep %d", b.Kept(), b.keep(0, false, now))
	}
}

func TestInitialCreditIsToldRarely(t *testing.T) {
	own, peer := newInitial(), newInitial()
	told := 0
	tell := func(share int) {
		if number, limit, ok := own.say(share); ok {
			told++
			peer.hear(number, limit)
		}
	}
	for share := openWindow; share >= leastWindow; share -= 64 {
		tell(share)
	}
	if told > 8 || peer.peer > 2*leastWindow || uint64(own.own) != peer.peer {
		t.Errorf("told %d times, own %d, peer %d", told, own.own, peer.peer)
	}
	tell(openWindow)
	if peer.peer != InitialCredit {
		t.Errorf("%d bytes with a free budget", peer.peer)
	}
	peer.hear(1, 77) // overtaken by newer ones
	if peer.peer != InitialCredit {
		t.Errorf("an old statement counts: %d", peer.peer)
	}
}

// TestScarceBudget: while the budgets are spent, flows begin with little, as
// the peers have been told, and get through nevertheless.
func TestScarceBudget(t *testing.T) {
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 50 * mbit, Delay: 10 * time.Millisecond})
		defer w.close()
		w.serve(100_000)
		for _, sd := range []*side{w.edge, w.cloud} {
			b := sd.s.cfg.Budget
			pool := int(b.pool())
			b.move(0, pool)
			defer b.move(pool, 0)
		}
		time.Sleep(2 * time.Second) // the loops find out, and tell each other
		u := w.open(50_000)
		u.await(30 * time.Second)
		w.peerOf(u).await(30 * time.Second)
		if code := u.resetCode(); code != 0 || u.total() != 100_000 {
			t.Errorf("%d bytes came, reset %v", u.total(), code)
		}
		for _, sd := range []*side{w.edge, w.cloud} {
			var in initial
			var violations uint64
			sd.s.call(func() { in, violations = sd.s.initial, sd.s.count.Violations })
			if in.peer != leastWindow || in.own != leastWindow || violations > 0 {
				t.Errorf("edge=%v: flows begin with %d and %d bytes, %d violations", sd.s.cfg.Edge, in.own, in.peer, violations)
			}
		}
		w.gone()
	})
}

// TestCrowdLeavesRoom: a crowd of which nobody reads more than fills his own buffers
// takes no more than the pool, though all were promised something before the first had
// shown that he does not read, and leaves its window to a flow that is read; likewise one
// whose buffers take more than shows that somebody reads, some seconds later. Where round
// trips are long the flow still proves itself in a few of them.
func TestCrowdLeavesRoom(t *testing.T) {
	if raceDetector {
		t.Skip("thousands of flows take long with the race detector: make unit runs it without")
	}
	const far, near = 85 * time.Millisecond, 10 * time.Millisecond
	t.Run("small buffers", func(t *testing.T) { crowdLeavesRoom(t, 2000, 24<<10, near, time.Second) })
	t.Run("large buffers", func(t *testing.T) { crowdLeavesRoom(t, 1000, 3*proof.After/2, near, time.Second) })
	t.Run("small buffers, far", func(t *testing.T) { crowdLeavesRoom(t, 2000, 24<<10, far, 4*time.Second) })
	t.Run("large buffers, far", func(t *testing.T) { crowdLeavesRoom(t, 1000, 3*proof.After/2, far, 4*time.Second) })
}

func crowdLeavesRoom(t *testing.T, crowd int, own uint64, delay, most time.Duration) {
	const size = 2_000_000
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 200 * mbit, Delay: delay}, simlink.Spec{Rate: 200 * mbit, Delay: delay})
		defer w.close()
		w.serve(size)
		alone := w.open(100).await(time.Minute)
		for range crowd {
			w.open(100, func(u *user) { u.appetite = own })
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		b := w.edge.s.cfg.Budget
		t.Logf("%d KB of %d are held", b.Held()>>10, b.pool()>>10)
		if most := b.pool(); b.Held() > most {
			t.Errorf("%d bytes are held, want at most %d", b.Held(), most)
		}
		beside := w.open(100).await(time.Minute)
		t.Logf("%d bytes take %v alone, %v beside the crowd", size, alone, beside)
		if beside > most {
			t.Errorf("%d bytes take %v alone, %v beside the crowd", size, alone, beside)
		}
	})
}

// TestOverdrawn: when slabs exceed the budget, a flow that holds something and
// is sent more is reset; one that is read goes on.
func TestOverdrawn(t *testing.T) {
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 50 * mbit, Delay: 10 * time.Millisecond})
		defer w.close()
		w.serve(1e6)
		var slabs []*buffer.Buf
		for buffer.Live() <= hard*w.edge.s.cfg.Budget.Limit() {
			slabs = append(slabs, buffer.Get(buffer.Large))
		}
		u := w.open(100, func(u *user) { u.stuck = true })
		time.Sleep(5 * time.Second)
		if code := u.resetCode(); code != stream.CodeResources {
			t.Errorf("reset %v", code)
		}
		for _, b := range slabs {
			b.Release()
		}
		w.open(100).await(10 * time.Second)
		w.gone()
	})
}
