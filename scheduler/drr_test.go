package scheduler

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lineup is an order under test: flows by number, each always with more to
// send unless said otherwise.
type lineup struct {
	t     testing.TB
	o     Order[int]
	now   time.Time
	nodes map[int]*Node[int]
}

func newLineup(t testing.TB, o Order[int]) *lineup {
	return &lineup{t: t, o: o, now: time.Unix(1000, 0), nodes: map[int]*Node[int]{}}
}

// client names a user.
func client(i int) User {
	return User{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}
}

// plainTerms are those of a flow of user u that no policy names.
func plainTerms(u int) Terms { return Terms{User: client(u), Class: Normal, Weight: 1} }

// join makes flow i join and stand in line; it counts as old.
func (l *lineup) join(i int, t Terms) *Node[int] {
	n := &Node[int]{Flow: i, sent: NewFlow}
	l.nodes[i] = n
	l.o.Join(n, t, l.now)
	l.o.Activate(n, l.now)
	return n
}

// serve lets the order run for n bytes in chunks and returns each flow's part.
// A second passes per rate bytes; 0 stops the clock.
func (l *lineup) serve(chunk, n int, rate float64) map[int]int {
	l.t.Helper()
	got := map[int]int{}
	for n > 0 {
		l.o.Begin(l.now)
		node := l.o.Next()
		if node == nil {
			if rate == 0 || l.o.Wake().IsZero() {
				l.t.Fatalf("nobody's turn, %d bytes before the end", n)
			}
			wait := max(l.o.Wake().Sub(l.now), time.Microsecond)
			n -= int(wait.Seconds() * rate)
			l.now = l.now.Add(wait)
			continue
		}
		got[node.Flow] += chunk
		n -= chunk
		l.o.Charge(node, chunk)
		if rate > 0 {
			l.now = l.now.Add(time.Duration(float64(chunk) / rate * 1e9))
		}
	}
	return got
}

func (l *lineup) near(what string, got, want int, slack float64) {
	l.t.Helper()
	if float64(got) < float64(want)*(1-slack) || float64(got) > float64(want)*(1+slack) {
		l.t.Errorf("%s: %d, want %d", what, got, want)
	}
}

func TestDRRFlowsOfAUser(t *testing.T) {
	for _, chunk := range []int{1000, 16 << 10} {
		l := newLineup(t, NewDRR[int](0))
		for i := range 10 {
			l.join(i, plainTerms(1))
		}
		for i, n := range l.serve(chunk, 10<<20, 0) {
			l.near(fmt.Sprintf("chunks of %d: flow %d", chunk, i), n, 1<<20, 0.05)
		}
	}
}

// TestDRRUsers: users share by weight, however many flows each has.
func TestDRRUsers(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	weights, all, flow := []int{1, 1, 4, 2}, 0, 0
	owner := map[int]int{}
	for u, w := range weights {
		all += w
		for range 1 + 20*u {
			terms := plainTerms(u)
			terms.Weight = w
			l.join(flow, terms)
			owner[flow] = u
			flow++
		}
	}
	got := map[int]int{}
	for f, n := range l.serve(8000, 64<<20, 0) {
		got[owner[f]] += n
	}
	for u, w := range weights {
		l.near(fmt.Sprint("user ", u), got[u], 64<<20*w/all, 0.02)
	}
}

func TestDRRNewFlowsFirst(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	l.join(1, plainTerms(1))
	fresh := &Node[int]{Flow: 2}
	l.o.Join(fresh, plainTerms(1), l.now)
	l.o.Activate(fresh, l.now)
	if n := l.o.Next(); n.Flow != 2 {
		t.Fatalf("flow %d before the new one", n.Flow)
	}
	got := l.serve(1000, NewFlow, 0)
	if got[2] < NewFlow*3/4 {
		t.Errorf("the new flow got %d of its first %d bytes", got[2], NewFlow)
	}
	if got[1] == 0 {
		t.Error("the old flow starved")
	}
	if got := l.serve(1000, 1<<20, 0); got[1] < 2*got[2]/3 {
		t.Errorf("once old, both share: %v", got)
	}
}

// TestDRRQuietUsersFirst: who comes out of idleness goes before those who send
// all the time, once per quantum; short silences gain nothing.
func TestDRRQuietUsersFirst(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	for u := range 20 {
		l.join(u, plainTerms(u))
	}
	l.serve(16<<10, 1<<20, 0)
	quiet := l.join(99, plainTerms(99))
	if n := l.o.Next(); n != quiet {
		t.Fatalf("flow %d before the one that was idle", n.Flow)
	}
	sent := 0
	for range 200 { // one chunk at a time, then nothing for a moment
		l.o.Activate(quiet, l.now)
		got := l.serve(8000, 8000, 0)
		if got[99] > 0 {
			l.o.Deactivate(quiet)
		}
		sent += got[99]
	}
	if sent > 2*200*8000/20 {
		t.Errorf("by pausing it got %d of %d, its share is %d", sent, 200*8000, 200*8000/21)
	}
}

// TestDRRClasses: classes are strict, but each lower one keeps its floor.
func TestDRRClasses(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	for c := Latency; c < classCount; c++ {
		terms := plainTerms(int(c))
		terms.Class = c
		l.join(int(c), terms)
	}
	const all = 64 << 20
	got := l.serve(12_000, all, 0)
	for c := Privileged; c < classCount; c++ {
		// Lower classes also earn by what those between send.
		if share := float64(got[int(c)]) / all; share < 0.04 || share > 0.06 {
			t.Errorf("class %d got %.3f", c, share)
		}
	}
	l.o.Deactivate(l.nodes[int(Latency)])
	if got := l.serve(12_000, all, 0); float64(got[int(Privileged)]) < 0.88*all {
		t.Errorf("without class latency: %v", got)
	}
}

// TestDRRLimit: a user at its limit waits, and the others take what it leaves.
func TestDRRLimit(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	held := plainTerms(1)
	held.Limit = 1e6
	l.join(1, held)
	l.join(2, held) // of the same user
	l.join(3, plainTerms(2))
	got := l.serve(10_000, 100e6, 10e6) // ten seconds
	l.near("the limited user", got[1]+got[2], 10e6, 0.02)
	l.near("the other", got[3], 90e6, 0.02)
	l.o.Deactivate(l.nodes[3])
	got = l.serve(10_000, 100e6, 10e6)
	l.near("alone", got[1]+got[2], 10e6, 0.02)
	if l.o.Len() > 2 {
		t.Errorf("%d in line", l.o.Len())
	}
}

// TestDRRLimitOutlivesFlows: a user gains nothing by new flows.
func TestDRRLimitOutlivesFlows(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	terms := plainTerms(1)
	terms.Limit = 1e6
	sent, begin := 0, l.now
	l.join(999, plainTerms(2))
	for i := range 100 {
		n := l.join(i, terms)
		sent += l.serve(10_000, 100_000, 10e6)[i] // a hundredth of a second
		l.o.Leave(n, l.now)
	}
	if secs := l.now.Sub(begin).Seconds(); float64(sent) > 1e6*secs+2*bucketFloor {
		t.Errorf("%d bytes in %.2f s, the limit is 1000000 per second", sent, secs)
	}
	l.now = l.now.Add(time.Minute)
	for i := range 10 {
		l.o.Leave(l.join(200+i, plainTerms(50+i)), l.now)
	}
	if n := len(l.o.(*DRR[int]).users); n > 1 {
		t.Errorf("%d users are remembered", n)
	}
}

// TestDRRGuarantee: a user gets its guarantee at least; the others share what
// is left.
func TestDRRGuarantee(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	sure := plainTerms(0)
	sure.Class, sure.Guarantee = Privileged, 2e6
	l.join(0, sure)
	for u := 1; u < 40; u++ {
		l.join(u, plainTerms(u))
	}
	got := l.serve(10_000, 100e6, 10e6)
	if got[0] < 19.8e6 || got[0] > 23e6 {
		t.Errorf("the guaranteed user got %d, want 20000000 at least", got[0])
	}
	l.near("another", got[7], 80e6/40, 0.1)
	sure.Guarantee = 1e6 // less than its share
	l.o.Join(l.nodes[0], sure, l.now)
	for u := 3; u < 40; u++ {
		l.o.Deactivate(l.nodes[u])
	}
	l.near("the guaranteed user among three", l.serve(10_000, 100e6, 10e6)[0], 100_000_000/3, 0.1)
}

// TestTotal: all together do not exceed the total.
func TestTotal(t *testing.T) {
	for _, k := range []OrderKind{OrderDRR, OrderRoundRobin, OrderStrict} {
		l := newLineup(t, NewOrder[int](k, 1e6))
		l.join(1, plainTerms(1))
		l.join(2, plainTerms(2))
		sum := 0
		for _, n := range l.serve(10_000, 100e6, 10e6) {
			sum += n
		}
		l.near(k.String(), sum, 10e6, 0.02)
	}
}

func TestInAndOut(t *testing.T) {
	for _, k := range []OrderKind{OrderDRR, OrderRoundRobin, OrderStrict} {
		l := newLineup(t, NewOrder[int](k, 0))
		stranger := &Node[int]{}
		l.o.Activate(stranger, l.now)
		if l.o.Len() != 0 {
			t.Errorf("%v: a flow that has not joined is in line", k)
		}
		for i := range 3 {
			l.o.Activate(l.join(i, plainTerms(i)), l.now)
		}
		l.o.Join(l.nodes[0], Terms{User: client(7), Class: Privileged, Weight: 2}, l.now)
		if l.o.Len() != 3 || !l.nodes[0].Active() || l.nodes[0].Class() != Privileged {
			t.Fatalf("%v: %d in line", k, l.o.Len())
		}
		l.o.Deactivate(l.nodes[1])
		l.o.Deactivate(l.nodes[1])
		l.o.Charge(l.nodes[1], 5000)
		if got := l.serve(1000, 100_000, 0); got[1] != 0 || l.o.Len() != 2 {
			t.Errorf("%v: a removed flow was served: %v", k, got)
		}
		for i := range 3 {
			l.o.Leave(l.nodes[i], l.now)
			l.o.Leave(l.nodes[i], l.now)
		}
		if l.o.Next() != nil || l.o.Len() != 0 {
			t.Errorf("%v: an empty order has a next flow", k)
		}
	}
}

func TestShare(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	a := l.join(1, plainTerms(1))
	if s := l.o.Share(a); s != 1 {
		t.Errorf("alone: %v", s)
	}
	heavy := plainTerms(2)
	heavy.Weight = 3
	b := l.join(2, heavy)
	l.join(3, heavy)
	if s := l.o.Share(a); s != 0.25 {
		t.Errorf("of weight 1 beside 3: %v", s)
	}
	if s := l.o.Share(b); s != 0.375 {
		t.Errorf("one of two flows of weight 3 beside 1: %v", s)
	}
}

// TestStrict: a class waits for all above it, a flow for all before it.
func TestStrict(t *testing.T) {
	l := newLineup(t, NewStrict[int](0))
	terms := plainTerms(1)
	l.join(1, terms)
	l.join(2, terms)
	terms.Class = Privileged
	l.join(3, terms)
	if got := l.serve(1000, 1<<20, 0); len(got) != 1 || got[3] == 0 {
		t.Errorf("%v", got)
	}
	l.o.Deactivate(l.nodes[3])
	if got := l.serve(1000, 1<<20, 0); len(got) != 1 || got[1] == 0 {
		t.Errorf("%v", got)
	}
}

// TestRoundRobin: flows share evenly, whosever they are.
func TestRoundRobin(t *testing.T) {
	l := newLineup(t, NewRoundRobin[int](0))
	for i := range 10 {
		terms := plainTerms(min(i, 1))
		terms.Weight = 1 + i
		l.join(i, terms)
	}
	for i, n := range l.serve(1000, 10<<20, 0) {
		l.near(fmt.Sprint("flow ", i), n, 1<<20, 0.02)
	}
}

// busy makes an order with idle flows beside a thousand busy ones of a hundred
// users, and returns what sends one chunk.
func busy(idle int) func() {
	d := NewDRR[int](0)
	now := time.Unix(1000, 0)
	for i := range idle {
		n := &Node[int]{Flow: -1}
		d.Join(n, plainTerms(1000+i%20_000), now)
		d.Activate(n, now)
		d.Charge(n, 1000)
		d.Deactivate(n)
	}
	for i := range 1000 {
		n := &Node[int]{Flow: i}
		terms := plainTerms(i % 100)
		terms.Class, terms.Weight = Class(i%100%int(classCount)), 1+i%100%3
		if i%100%10 == 0 {
			terms.Guarantee, terms.Limit = 1e6, 1e8
		}
		d.Join(n, terms, now)
		d.Activate(n, now)
	}
	return func() {
		now = now.Add(100 * time.Microsecond)
		d.Begin(now)
		n := d.Next()
		d.Charge(n, 12_000)
		if n.sent%5 == 0 {
			d.Deactivate(n)
			d.Activate(n, now)
		}
	}
}

// TestDRRCost: a chunk costs the same whatever the number of idle flows, and
// allocates nothing.
func TestDRRCost(t *testing.T) {
	few, many := busy(0), busy(100_000)
	if n := testing.AllocsPerRun(1000, many); n > 0 {
		t.Errorf("%.0f allocations per chunk", n)
	}
	worst := 0.0
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 5 { // caches are shared with others
		worst = cost(many).Seconds() / cost(few).Seconds()
		if worst < 1.5 {
			return
		}
	}
	t.Errorf("with 100000 idle flows a chunk costs %.2f times as much", worst)
}

// cost is the time that the thread is at work, however long it waits for a processor.
func cost(f func()) time.Duration {
	from := worked()
	for range 50_000 {
		f()
	}
	return worked() - from
}

func worked() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func BenchmarkDRR(b *testing.B) {
	for _, idle := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprint("idle=", idle), func(b *testing.B) {
			f := busy(idle)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
