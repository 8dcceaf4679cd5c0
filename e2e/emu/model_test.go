package emu

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// bench drives one model in virtual time.
type bench struct {
	t   *testing.T
	m   *Model
	now time.Duration
	out []exit
	// sent maps the number of a packet, carried in its frame, to its arrival.
	sent []time.Duration
}

// exit is a packet that left the link.
type exit struct {
	number int
	at     time.Duration
	fate   Fate
}

func newBench(t *testing.T, p Params, trace string) *bench {
	t.Helper()
	return &bench{t: t, m: NewModel(p, mustTrace(t, trace), 7)}
}

func mustTrace(t *testing.T, lines string) *Trace {
	t.Helper()
	if lines == "" {
		return nil
	}
	trace, err := ParseTrace(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// arrive offers a packet at the time, after everything due before it has left.
func (b *bench) arrive(at time.Duration, size int) Fate {
	b.t.Helper()
	b.runTo(at)
	n := len(b.sent)
	b.sent = append(b.sent, at)
	return b.m.Arrive(at, Packet{Frame: []byte{byte(n), byte(n >> 8), byte(n >> 16)}, Size: size})
}

// runTo lets the link hand out what is due by then, each packet at its exact time.
func (b *bench) runTo(at time.Duration) {
	b.t.Helper()
	for {
		next, ok := b.m.Next()
		if !ok || next > at {
			break
		}
		b.now = max(b.now, next)
		b.collect()
	}
	b.now = max(b.now, at)
	b.collect()
}

func (b *bench) collect() {
	for {
		p, fate, ok := b.m.Leave(b.now)
		if !ok {
			return
		}
		n := int(p.Frame[0]) | int(p.Frame[1])<<8 | int(p.Frame[2])<<16
		b.out = append(b.out, exit{n, b.now, fate})
	}
}

// exits returns when the packets left.
func (b *bench) exits() []time.Duration {
	var at []time.Duration
	for _, e := range b.out {
		at = append(at, e.at)
	}
	return at
}

func (b *bench) wantExits(want ...time.Duration) {
	b.t.Helper()
	b.runTo(time.Hour)
	if got := b.exits(); !slices.Equal(got, want) {
		b.t.Errorf("packets left at %v, want %v", got, want)
	}
}

func TestPacketTimes(t *testing.T) {
	type packet struct {
		at   time.Duration
		size int
	}
	for _, c := range []struct {
		name    string
		p       Params
		trace   string
		packets []packet
		want    []time.Duration
	}{
		{"perfect wire", Params{}, "", []packet{{0, 1500}, {3 * ms, 100}}, []time.Duration{0, 3 * ms}},
		{"delay", Params{Delay: 20 * ms}, "", []packet{{0, 1500}, {1 * ms, 1500}}, []time.Duration{20 * ms, 21 * ms}},
		{"rate: 1500 bytes at 12 Mbit/s take 1 ms", Params{Rate: 12e6}, "",
			[]packet{{0, 1500}, {0, 1500}, {10 * ms, 750}}, []time.Duration{1 * ms, 2 * ms, 10*ms + ms/2}},
		{"rate and delay", Params{Rate: 12e6, Delay: 5 * ms}, "",
			[]packet{{0, 1500}, {0, 1500}}, []time.Duration{6 * ms, 7 * ms}},
		{"trace: unused opportunities are lost", Params{Trace: "x"}, "1\n2\n10\n",
			[]packet{{3 * ms, 1500}, {3 * ms, 1500}}, []time.Duration{10 * ms, 11 * ms}},
		{"trace: small packets share an opportunity", Params{Trace: "x"}, "5\n9\n",
			[]packet{{0, 500}, {0, 1000}, {0, 100}}, []time.Duration{5 * ms, 5 * ms, 9 * ms}},
		{"trace: a packet over two opportunities", Params{Trace: "x"}, "5\n9\n",
			[]packet{{0, 500}, {0, 1500}}, []time.Duration{5 * ms, 9 * ms}},
		{"trace: the rest of an opportunity is gone for who comes later", Params{Trace: "x"}, "5\n9\n",
			[]packet{{0, 500}, {6 * ms, 500}}, []time.Duration{5 * ms, 9 * ms}},
		{"trace: several opportunities in one millisecond", Params{Trace: "x"}, "5\n5\n9\n",
			[]packet{{0, 1500}, {0, 1500}, {0, 1500}}, []time.Duration{5 * ms, 5 * ms, 9 * ms}},
		{"trace: loops with the period of its last line", Params{Trace: "x"}, "4\n10\n",
			[]packet{{11 * ms, 1500}, {35 * ms, 1500}}, []time.Duration{14 * ms, 40 * ms}},
		{"trace: an opportunity on the seam", Params{Trace: "x"}, "0\n10\n",
			[]packet{{10 * ms, 1500}, {10 * ms, 1500}, {10 * ms, 1500}}, []time.Duration{10 * ms, 10 * ms, 20 * ms}},
		{"trace: scaled", Params{Trace: "x", TraceScale: 2}, "5\n9\n",
			[]packet{{0, 1500}, {0, 1500}, {0, 1500}}, []time.Duration{5 * ms, 5 * ms, 9 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.p, c.trace)
			for _, p := range c.packets {
				if fate := b.arrive(p.at, p.size); fate != Kept {
					t.Fatalf("a packet was dropped: %v", fate)
				}
			}
			b.wantExits(c.want...)
		})
	}
}

func TestQueueBound(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Params
		kept int // of packets of 1500 bytes offered at once
	}{
		{"bytes", Params{Rate: 12e6, QueueBytes: 15000}, 10},
		{"time", Params{Rate: 12e6, QueueTime: 5 * ms}, 5},
		{"default is 100 ms", Params{Rate: 12e6}, 100},
		{"an empty queue takes one", Params{Rate: 12e6, QueueBytes: 1}, 1},
		{"time on a trace counts at its mean rate", Params{Trace: "x", QueueTime: 10 * ms}, 5},
		{"unlimited rate never queues", Params{QueueBytes: 1500}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			trace := ""
			if c.p.Trace != "" {
				trace = "2\n4\n"
			}
			b := newBench(t, c.p, trace)
			for range 200 {
				b.arrive(0, 1500)
			}
			got := b.m.Counters(0)
			if got.Dropped.Queue.Packets != uint64(200-c.kept) {
				t.Errorf("%d dropped, want %d", got.Dropped.Queue.Packets, 200-c.kept)
			}
			b.runTo(time.Hour)
			if n := b.m.Counters(b.now).Forwarded.Packets; n != uint64(c.kept) {
				t.Errorf("%d forwarded, want %d", n, c.kept)
			}
		})
	}
}

// The queue is seen as it is at the arrival, however late the owner reports it.
func TestLateReportOfArrivals(t *testing.T) {
	b := newBench(t, Params{Rate: 12e6, QueueBytes: 3000}, "")
	for i := range 20 {
		if fate := b.m.Arrive(time.Duration(i)*ms, Packet{Frame: make([]byte, 3), Size: 1500}); fate != Kept {
			t.Fatalf("packet %d, paced at the link's rate, was dropped: %v", i, fate)
		}
	}
	b.runTo(time.Hour)
	if n := len(b.out); n != 20 {
		t.Errorf("%d packets left, want 20", n)
	}
}

func TestRateIsExactInTheLongRun(t *testing.T) {
	for _, rate := range []int64{1e6, 37_123_457, 200e6, 10e9} {
		m := NewModel(Params{Rate: rate, QueueBytes: 3e6}, nil, 1)
		var now time.Duration
		var bytes int
		frame := []byte{0}
		for bytes < 15e6 { // keep the queue full; look at odd times
			for m.Arrive(now, Packet{Frame: frame, Size: 1337}) == Kept {
			}
			now += 977 * time.Microsecond
			for {
				p, _, ok := m.Leave(now)
				if !ok {
					break
				}
				bytes += p.Size
			}
		}
		got := float64(bytes) * 8 / now.Seconds()
		if rate < 10e9 && math.Abs(got/float64(rate)-1) > 0.002 {
			t.Errorf("rate %d: forwarded at %.0f", rate, got)
		}
	}
}

func TestLossShares(t *testing.T) {
	const packets = 400_000
	for _, c := range []struct {
		name       string
		p          Params
		share, run float64 // expected share and mean length of a run of losses
	}{
		{"random 1 %", Params{Loss: 0.01}, 0.01, 1 / 0.99},
		{"random 30 %", Params{Loss: 0.3}, 0.3, 1 / 0.7},
		{"bursts of 8, 2 %", Params{Burst: BurstOf(0.02, 8)}, 0.02, 8},
		{"bursts of 3, 20 %", Params{Burst: BurstOf(0.2, 3)}, 0.2, 3},
		{"soft states", Params{Burst: Burst{Enter: 0.01, Leave: 0.1, BadLoss: 0.5, GoodLoss: 0.001}}, 0.0464, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewModel(c.p, nil, 42)
			lost, runs, before := 0, 0, false
			for range packets {
				drop := m.Arrive(0, Packet{Frame: nil, Size: 1}) != Kept
				m.Leave(0)
				if drop {
					lost++
					if !before {
						runs++
					}
				}
				before = drop
			}
			share := float64(lost) / packets
			if math.Abs(share/c.share-1) > 0.06 {
				t.Errorf("share %.4f, want %.4f", share, c.share)
			}
			if run := float64(lost) / float64(runs); c.run > 0 && math.Abs(run/c.run-1) > 0.05 {
				t.Errorf("mean run %.2f, want %.2f", run, c.run)
			}
			if b := c.p.Burst; b != (Burst{}) && math.Abs(b.Share()-c.share) > 0.001 {
				t.Errorf("Share() = %.4f, want %.4f", b.Share(), c.share)
			}
		})
	}
}

func TestSameSeedSameLosses(t *testing.T) {
	losses := func(p Params) (lost []int) {
		m := NewModel(p, nil, 9)
		for i := range 5000 {
			if m.Arrive(0, Packet{Size: 1}) == Loss {
				lost = append(lost, i)
			}
			m.Leave(0)
		}
		return lost
	}
	first := losses(Params{Loss: 0.01})
	if !slices.Equal(first, losses(Params{Loss: 0.01})) {
		t.Error("equal seeds lost different packets")
	}
	if !slices.Equal(first, losses(Params{Loss: 0.01, Burst: Burst{Enter: 1, Leave: 0.5}})) {
		t.Error("switching the burst process on changed the random losses")
	}
}

func TestJitter(t *testing.T) {
	for _, reorder := range []bool{false, true} {
		b := newBench(t, Params{Delay: 50 * ms, Jitter: 20 * ms, Reorder: reorder}, "")
		const packets = 20_000
		for i := range packets {
			b.arrive(time.Duration(i)*ms, 100)
		}
		b.runTo(time.Hour)
		overtaken := false
		var sum, least, most time.Duration = 0, time.Hour, 0
		for i, e := range b.out {
			overtaken = overtaken || e.number != i
			d := e.at - b.sent[e.number]
			sum, least, most = sum+d, min(least, d), max(most, d)
		}
		if overtaken != reorder {
			t.Errorf("reorder %v: packets overtaken: %v", reorder, overtaken)
		}
		if least < 30*ms || most > 70*ms || least > 35*ms || most < 65*ms {
			t.Errorf("reorder %v: delays from %v to %v, want nearly 30ms to 70ms", reorder, least, most)
		}
		if mean := sum / packets; mean < 48*ms || mean > 52*ms {
			t.Errorf("reorder %v: mean delay %v, want 50ms", reorder, mean)
		}
	}
}

func TestBlackhole(t *testing.T) {
	b := newBench(t, Params{Delay: 10 * ms}, "")
	b.arrive(0, 100)    // leaves before the cut
	b.arrive(5*ms, 100) // in flight when the cut comes, would leave during it
	b.runTo(12 * ms)
	p := b.m.Params()
	p.Blackhole = true
	b.m.Set(b.now, p, nil)
	if fate := b.arrive(13*ms, 100); fate != Blackhole {
		t.Errorf("a packet entered the blackhole: %v", fate)
	}
	b.runTo(20 * ms)
	p.Blackhole = false
	b.m.Set(b.now, p, nil)
	b.arrive(21*ms, 100)
	b.runTo(time.Second)
	want := []exit{{0, 10 * ms, Forwarded}, {1, 15 * ms, Blackhole}, {3, 31 * ms, Forwarded}}
	if !slices.Equal(b.out, want) {
		t.Errorf("got %v, want %v", b.out, want)
	}
	c := b.m.Counters(b.now)
	if c.Dropped.Blackhole.Packets != 2 || c.Forwarded.Packets != 2 || c.Arrived.Packets != 4 {
		t.Errorf("counters: %+v", c)
	}
}

func TestLiveChange(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after Params
		at            time.Duration
		want          []time.Duration // of three packets of 1500 bytes that arrive at 0
	}{
		{"faster: the part already sent stays sent", Params{Rate: 12e6}, Params{Rate: 24e6}, ms / 2,
			[]time.Duration{750 * time.Microsecond, 1250 * time.Microsecond, 1750 * time.Microsecond}},
		{"slower", Params{Rate: 12e6}, Params{Rate: 6e6}, ms / 2,
			[]time.Duration{1500 * time.Microsecond, 3500 * time.Microsecond, 5500 * time.Microsecond}},
		{"from near standstill", Params{Rate: 120_000, QueueBytes: 1e6}, Params{Rate: 12e6}, 50 * ms,
			[]time.Duration{50*ms + ms/2, 51*ms + ms/2, 52*ms + ms/2}},
		{"to unlimited", Params{Rate: 12e6}, Params{}, ms / 2, []time.Duration{ms / 2, ms / 2, ms / 2}},
		{"less delay does not reorder", Params{Rate: 12e6, Delay: 10 * ms}, Params{Rate: 12e6}, 1500 * time.Microsecond,
			[]time.Duration{11 * ms, 11 * ms, 11 * ms}},
		{"a shorter queue keeps who waits", Params{Rate: 12e6}, Params{Rate: 12e6, QueueBytes: 1}, 0,
			[]time.Duration{1 * ms, 2 * ms, 3 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.before, "")
			for range 3 {
				b.arrive(0, 1500)
			}
			b.runTo(c.at)
			b.m.Set(c.at, c.after, nil)
			b.wantExits(c.want...)
		})
	}
}

func TestLiveChangeOfTrace(t *testing.T) {
	trace := mustTrace(t, "4\n8\n")
	m := NewModel(Params{Trace: "x", QueueBytes: 1e6}, trace, 1)
	b := &bench{t: t, m: m}
	for range 4 {
		b.arrive(0, 1500)
	}
	b.runTo(5 * ms)
	p := m.Params()
	p.Delay = ms
	m.Set(5*ms, p, trace) // the same trace runs on: 8, 12
	b.runTo(12 * ms)
	m.Set(12*ms, Params{Rate: 12e6}, nil)
	b.wantExits(4*ms, 9*ms, 13*ms, 13*ms)
}

func TestLateness(t *testing.T) {
	m := NewModel(Params{Delay: 10 * ms}, nil, 1)
	m.Arrive(0, Packet{Size: 100})
	m.Arrive(2*ms, Packet{Size: 100})
	for range 2 {
		m.Leave(12 * ms)
	}
	want := Lateness{Mean: 1 * ms, Worst: 2 * ms, Over1ms: 1}
	if got := m.Counters(12 * ms).Late; got != want {
		t.Errorf("lateness %+v, want %+v", got, want)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := NewModel(Params{Delay: time.Minute}, nil, 1)
	for range maxHeld + 10 {
		m.Arrive(0, Packet{Size: 100})
	}
	if c := m.Counters(0); c.Dropped.Overflow.Packets != 10 || c.Faults() != 10 {
		t.Errorf("overflow %d, faults %d, want 10", c.Dropped.Overflow.Packets, c.Faults())
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	m := NewModel(Params{Rate: 100e6, Delay: 10 * ms, Jitter: ms, Loss: 0.01, Burst: BurstOf(0.01, 4)}, nil, 1)
	frames := pool{size: 2048}
	var now time.Duration
	step := func() {
		now += 100 * time.Microsecond
		if f := frames.get(); m.Arrive(now, Packet{Frame: f, Size: 1500}) != Kept {
			frames.put(f)
		}
		for p, _, ok := m.Leave(now); ok; p, _, ok = m.Leave(now) {
			frames.put(p.Frame)
		}
	}
	for range 10_000 {
		step()
	}
	if n := testing.AllocsPerRun(10_000, step); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}
