package emu_test

import (
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

const ms = time.Millisecond

// rig is a lab with two shaped paths, "one" and "two", measured between the edge and
// the cloud's end of each uplink. It floods upwards.
type rig struct {
	*testing.T
	l   *lab.Lab
	src map[string]*source
	dst map[string]*sink
	rev *source // from the cloud down path one
	up  *sink   // its sink at the edge
	try *try
}

func newRig(t *testing.T) *rig {
	if testing.Short() {
		t.Skip("measures real time for about a minute: not with -short")
	}
	r := &rig{T: t, src: map[string]*source{}, dst: map[string]*sink{}}
	r.l = lab.Build(t, lab.Spec{Name: "validate", Seed: 11, Uplinks: []lab.Uplink{{Name: "one"}, {Name: "two"}}})
	for _, path := range paths {
		to := netip.AddrPortFrom(r.l.Gateway(path, lab.IPv4), 9000)
		r.dst[path] = openSink(t, r.l, "cloud", to)
		r.src[path] = openSource(t, r.l, "edge", r.l.EdgeAddress(path, lab.IPv4), to)
	}
	down := netip.AddrPortFrom(r.l.EdgeAddress("one", lab.IPv4), 9000)
	r.up = openSink(t, r.l, "edge", down)
	r.rev = openSource(t, r.l, "cloud", r.l.Gateway("one", lab.IPv4), down)
	// The instruments must not be what a busy machine slows down. Now, and not before,
	// or the tools that build the lab would inherit it.
	if err := emu.RaisePriority(); err != nil {
		t.Log("measuring at normal priority:", err)
	}
	return r
}

// reset makes a path a perfect wire and then applies the changes.
func (r *rig) reset(path string, dir emu.Direction, changes ...emu.Change) {
	r.Helper()
	plain := []emu.Change{
		emu.SetRate(0), emu.SetDelay(0), emu.SetJitter(0), emu.SetReorder(false), emu.SetQueueBytes(0),
		emu.SetQueueTime(100 * ms), emu.SetLoss(0), emu.SetBurst(emu.Burst{}), emu.SetTrace(""),
		emu.SetTraceScale(0), emu.SetBlackhole(false),
	}
	r.set(path, emu.Both, plain...)
	r.set(path, dir, changes...)
}

func (r *rig) set(path string, dir emu.Direction, changes ...emu.Change) {
	r.Helper()
	if err := r.l.Set(path, dir, changes...); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) counters(path string) (up, down emu.Counters) {
	r.Helper()
	s, err := r.l.Counters(path)
	if err != nil {
		r.Fatal(err)
	}
	return s.Up.Counters, s.Down.Counters
}

// wantRate checks a measured rate against the nominal one, to 3 %.
func (r *rig) wantRate(what string, got, want float64) {
	r.Helper()
	// What is late at the ends of a window, which are about 2 s apart, is missing in it.
	bound := 0.03 + r.slack().Seconds()/2
	r.Logf("%s: %.2f Mbit/s for %.0f (%+.2f %%)", what, got/1e6, want/1e6, (got/want-1)*100)
	if math.Abs(got/want-1) > bound {
		r.Errorf("%s: %.2f Mbit/s, want %.0f within 3 %%", what, got/1e6, want/1e6)
	}
}

// TestEmulator measures the emulator with real packets through real namespaces.
func TestEmulator(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name string
		test func(*rig)
	}{
		{"rate", testRate},
		{"round trip", testRoundTrip},
		{"round trip beside a full path", testRoundTripUnderLoad},
		{"two paths at 200 Mbit/s", testTwoPaths},
		{"random loss", testLoss},
		{"bursty loss", testBurst},
		{"trace", testTrace},
		{"one-way blackhole", testBlackhole},
		{"queue bound", testQueue},
		{"live change", testLive},
		{"jitter", testJitter},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := *r
			sub.T = t
			sub.judge(c.test)
		})
	}
}

func testRate(r *rig) {
	for _, mbit := range []float64{1, 10, 50, 200} {
		r.reset("one", emu.Up, emu.SetRate(int64(mbit*1e6)), emu.SetDelay(5*ms))
		d := 2500 * ms
		got := run(r.src["one"], r.dst["one"], fullMTU, 1.2*mbit*1e6, d)
		r.wantRate("full packets", rateBetween(got, fullMTU, 300*ms, d-100*ms), mbit*1e6)
	}
	r.reset("one", emu.Up, emu.SetRate(10e6))
	got := run(r.src["one"], r.dst["one"], 200, 12e6, 2*time.Second)
	r.wantRate("packets of 200 bytes", rateBetween(got, 200, 300*ms, 1900*ms), 10e6)
}

func testRoundTrip(r *rig) {
	for _, c := range []struct{ up, down time.Duration }{{0, 0}, {1 * ms, 1 * ms}, {10 * ms, 10 * ms}, {20 * ms, 80 * ms}} {
		r.reset("one", emu.Up, emu.SetDelay(c.up))
		r.set("one", emu.Down, emu.SetDelay(c.down))
		r.wantEcho("one", 60, c.up+c.down)
	}
}

// wantEcho checks that most round trips of a path are the wanted one to 1 ms.
func (r *rig) wantEcho(path string, n int, want time.Duration) {
	r.Helper()
	times, err := echoTimes(r.l, "edge", r.l.Gateway(path, lab.IPv4), n, 7*ms)
	if err != nil {
		r.Fatal(err)
	}
	least, median, high := quantile(times, 0), quantile(times, 0.5), quantile(times, 0.8)
	r.Logf("round trip %v: least %v, median %v, p80 %v, p99 %v", want, least, median, high, quantile(times, 0.99))
	if len(times) < n*9/10 || least < want || median > want+ms {
		r.Errorf("round trips: %d of %d, least %v, median %v; want %v to 1ms more", len(times), n, least, median, want)
	}
}

func testRoundTripUnderLoad(r *rig) {
	r.reset("one", emu.Both, emu.SetDelay(10*ms))
	r.reset("two", emu.Both, emu.SetRate(100e6), emu.SetDelay(10*ms))
	var load sync.WaitGroup
	load.Go(func() { run(r.src["two"], r.dst["two"], fullMTU, 110e6, 2*time.Second) })
	r.wantEcho("one", 60, 20*ms)
	load.Wait()
}

// testTwoPaths also tells what the emulator costs.
func testTwoPaths(r *rig) {
	const d = 4 * time.Second
	user0, sys0, err := r.l.Emulator().CPU()
	if err != nil {
		r.Fatal(err)
	}
	start := time.Now()
	var both sync.WaitGroup
	got := map[string]*[]arrivalAt{}
	for _, path := range paths {
		r.reset(path, emu.Up, emu.SetRate(200e6), emu.SetDelay(10*ms))
		result := new([]arrivalAt)
		got[path] = result
		both.Go(func() { *result = run(r.src[path], r.dst[path], fullMTU, 215e6, d) })
	}
	both.Wait()
	took := time.Since(start)
	user, sys, err := r.l.Emulator().CPU()
	if err != nil {
		r.Fatal(err)
	}
	var bits float64
	for _, path := range paths {
		r.wantRate("path "+path, rateBetween(*got[path], fullMTU, 300*ms, d-100*ms), 200e6)
		bits += float64(len(*got[path]) * fullMTU * 8)
	}
	cpu := (user - user0 + sys - sys0).Seconds()
	r.Logf("emulator: %.2f CPU-s (user %v, system %v) for %.2f Gbit in %.1f s: %.2f CPU-s per Gbit",
		cpu, user-user0, sys-sys0, bits/1e9, took.Seconds(), cpu/(bits/1e9))
}

func testLoss(r *rig) {
	for _, p := range []float64{0.002, 0.01, 0.1} {
		r.reset("one", emu.Up, emu.SetLoss(p))
		lost, sent, _ := r.losses(2 * time.Second)
		share := float64(lost) / float64(sent)
		sigma := math.Sqrt(p * (1 - p) / float64(sent))
		r.Logf("loss %.4f: %d of %d = %.4f (%.1f sigma)", p, lost, sent, share, (share-p)/sigma)
		if math.Abs(share-p) > 4*sigma {
			r.Errorf("loss %.4f, want %.4f within %.4f", share, p, 4*sigma)
		}
	}
}

// losses floods small packets and returns how many were lost, sent, and the number of
// runs of losses. It checks the emulator's own count against the sink's.
func (r *rig) losses(d time.Duration) (lost, sent, runs int) {
	r.Helper()
	before, _ := r.counters("one")
	first := r.src["one"].next
	got := run(r.src["one"], r.dst["one"], 100, 12e6, d)
	after, _ := r.counters("one")
	sent = int(r.src["one"].next - first)
	expect := first
	for _, a := range got {
		if a.seq > expect {
			runs++
		}
		lost += int(a.seq - expect)
		expect = a.seq + 1
	}
	dropped := after.Dropped.Loss.Packets + after.Dropped.Burst.Packets - before.Dropped.Loss.Packets - before.Dropped.Burst.Packets
	tail := int(r.src["one"].next - expect) // lost after the last that arrived
	if int(dropped) != lost+tail {
		r.Errorf("the emulator counted %d losses, the sink %d", dropped, lost+tail)
	}
	return lost, sent, runs
}

func testBurst(r *rig) {
	const share, length = 0.05, 6.0
	r.reset("one", emu.Up, emu.SetBurst(emu.BurstOf(share, length)))
	lost, sent, runs := r.losses(5 * time.Second)
	gotShare, gotLength := float64(lost)/float64(sent), float64(lost)/float64(runs)
	// The number of runs is nearly Poisson, their lengths are geometric.
	sigmaLength := math.Sqrt(length*(length-1)) / math.Sqrt(float64(runs))
	sigmaShare := share * math.Sqrt(2/float64(runs))
	r.Logf("burst: share %.4f for %.4f, length %.2f for %.0f, %d runs", gotShare, share, gotLength, length, runs)
	if math.Abs(gotShare-share) > 4*sigmaShare || math.Abs(gotLength-length) > 4*sigmaLength {
		r.Errorf("share %.4f ± %.4f, mean length %.2f ± %.2f; want %.4f and %.0f", gotShare, sigmaShare, gotLength, sigmaLength, share, length)
	}
}

// A period of 1 s: 400 ms with one opportunity per ms (12 Mbit/s), 300 ms silence,
// 300 ms with three per ms (36 Mbit/s).
func stepTrace() string {
	var b strings.Builder
	for i := range 400 {
		b.WriteString(strconv.Itoa(i+1) + "\n")
	}
	for i := 700; i < 1000; i++ {
		b.WriteString(strings.Repeat(strconv.Itoa(i+1)+"\n", 3))
	}
	return b.String()
}

func testTrace(r *rig) {
	file := filepath.Join(r.TempDir(), "steps")
	if err := os.WriteFile(file, []byte(stepTrace()), 0o644); err != nil {
		r.Fatal(err)
	}
	trace, err := emu.LoadTrace(file)
	if err != nil {
		r.Fatal(err)
	}
	r.reset("one", emu.Up, emu.SetTrace(file))
	got := run(r.src["one"], r.dst["one"], fullMTU, 60e6, 5*time.Second)
	r.wantRate("steps over 4 periods", rateWithin(got, fullMTU, 500*ms, 4500*ms), trace.Rate())
	gaps := 0
	for i := 1; i < len(got); i++ {
		gap := got[i].at - got[i-1].at
		if gap < 50*ms {
			continue
		}
		gaps++
		if slack := r.slack(); gap < 299*ms-slack || gap > 304*ms+slack {
			r.Errorf("a gap of %v, want 301ms (±%v)", gap, slack)
		}
	}
	if gaps < 4 || gaps > 6 {
		r.Errorf("%d gaps in 5 periods", gaps)
	}
	recorded, _ := filepath.Abs("../testdata/traces/starlink-direct.up")
	r.reset("one", emu.Up, emu.SetTrace(recorded), emu.SetTraceScale(2))
	before, _ := r.counters("one")
	run(r.src["one"], r.dst["one"], fullMTU, 60e6, time.Second)
	after, _ := r.counters("one")
	if n := after.Forwarded.Packets - before.Forwarded.Packets; n < 200 {
		r.Errorf("the recorded trace let %d packets through in a second", n)
	}
}

func testBlackhole(r *rig) {
	r.reset("one", emu.Both)
	for _, c := range []struct {
		dir      emu.Direction
		up, down bool // pass
	}{{emu.Up, false, true}, {emu.Down, true, false}, {emu.Both, false, false}} {
		r.set("one", c.dir, emu.SetBlackhole(true))
		up := run(r.src["one"], r.dst["one"], 500, 1e6, 200*ms)
		down := run(r.rev, r.up, 500, 1e6, 200*ms)
		if (len(up) > 0) != c.up || (len(down) > 0) != c.down {
			r.Errorf("%s cut: %d packets up, %d down", c.dir, len(up), len(down))
		}
		r.set("one", emu.Both, emu.SetBlackhole(false))
	}
	if got := run(r.src["one"], r.dst["one"], 500, 1e6, 200*ms); len(got) == 0 {
		r.Errorf("nothing passes after the cut")
	}
}

func testQueue(r *rig) {
	r.reset("one", emu.Up, emu.SetRate(20e6), emu.SetDelay(10*ms), emu.SetQueueTime(50*ms))
	var load sync.WaitGroup
	load.Go(func() { run(r.src["one"], r.dst["one"], fullMTU, 40e6, 2*time.Second) })
	time.Sleep(300 * ms)
	times, err := echoTimes(r.l, "edge", r.l.Gateway("one", lab.IPv4), 20, 5*ms)
	load.Wait()
	if err != nil {
		r.Fatal(err)
	}
	// A full queue of 50 ms holds packets of 0.6 ms; echoes are among those that fit.
	median := quantile(times, 0.5)
	r.Logf("%d echoes through a full queue of 50 ms: median %v", len(times), median)
	if len(times) == 0 || median < 58*ms || median > 61*ms {
		r.Errorf("median round trip %v, want 10 ms and a queue of 50 ms", median)
	}
	up, _ := r.counters("one")
	if up.Queue.Bytes != 0 {
		r.Errorf("after the flood %d bytes still wait", up.Queue.Bytes)
	}
	if up.Dropped.Queue.Packets == 0 {
		r.Errorf("twice the rate, and no tail drop")
	}
}

func testLive(r *rig) {
	r.reset("one", emu.Up, emu.SetRate(20e6), emu.SetQueueTime(20*ms))
	var change sync.WaitGroup
	change.Go(func() {
		time.Sleep(time.Second)
		if err := r.l.Set("one", emu.Up, emu.SetRate(80e6)); err != nil {
			r.Errorf("%v", err)
		}
	})
	got := run(r.src["one"], r.dst["one"], fullMTU, 100e6, 2*time.Second)
	change.Wait()
	r.wantRate("before", rateBetween(got, fullMTU, 100*ms, 900*ms), 20e6)
	r.wantRate("after", rateBetween(got, fullMTU, 1100*ms, 1900*ms), 80e6)
}

func testJitter(r *rig) {
	r.reset("one", emu.Up, emu.SetDelay(20*ms), emu.SetJitter(10*ms))
	got := run(r.src["one"], r.dst["one"], 100, 4e6, 2*time.Second)
	for i := 1; i < len(got); i++ {
		if got[i].seq < got[i-1].seq {
			r.Errorf("jitter reordered packets")
			break
		}
	}
	times, err := echoTimes(r.l, "edge", r.l.Gateway("one", lab.IPv4), 150, 5*ms)
	if err != nil {
		r.Fatal(err)
	}
	low, high := quantile(times, 0.02), quantile(times, 0.98)
	r.Logf("delay 20 ms ± 10 ms: %v to %v, median %v", low, high, quantile(times, 0.5))
	if quantile(times, 0) < 10*ms || low > 16*ms || high < 24*ms || quantile(times, 0.9) > 31*ms {
		r.Errorf("round trips from %v to %v, want nearly 10ms to 30ms", low, high)
	}
	r.set("one", emu.Up, emu.SetReorder(true))
	overtaken := 0
	got = run(r.src["one"], r.dst["one"], 100, 4e6, time.Second)
	for i := 1; i < len(got); i++ {
		if got[i].seq < got[i-1].seq {
			overtaken++
		}
	}
	if overtaken == 0 {
		r.Errorf("reordering is on and no packet was overtaken")
	}
}
