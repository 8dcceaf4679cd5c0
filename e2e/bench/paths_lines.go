package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

// scenario is one set of uplinks and what happens to them while a bulk flow
// runs.
type scenario struct {
	name    string
	uplinks []lab.Uplink // the best one first
	up      bool         // the bulk flow is an upload
	seconds float64      // of the reading; 0: as the flag says
	script  []step       // in order of time
	objects bool         // small objects are measured as well
	lte     bool         // its messages are held to the bound of LTE pairs
	rail    bool         // its goodput is held to a share of what the lines can carry
	kind    kind
	missing string // why it cannot be measured here, or ""
}

// kind says which gate the goodput is held to.
type kind int

// Kinds of scenario.
const (
	fixed  kind = iota // constant lines
	lossy              // constant lines that lose packets
	traced             // recorded lines
	train              // the invented train
	dying              // an uplink dies and returns
)

// least is the share of the sum of single-link goodputs that a kind must reach. The
// invented train is held to railLeast alone.
func (k kind) least() float64 { return [...]float64{0.97, 0.93, 0.90, 0, 0.85}[k] }

// railLeast is the share of what the lines can carry that is wanted on trains.
const railLeast = 0.85

// step changes an uplink at a time.
type step struct {
	at      time.Duration
	uplink  string
	dir     emu.Direction
	changes []emu.Change
}

func two(a, b lab.Uplink) []lab.Uplink {
	a.Name, b.Name = "first", "second"
	return []lab.Uplink{a, b}
}

func mbit(rate float64, rtt time.Duration) lab.Uplink {
	return lab.Uplink{Rate: int64(rate * 1e6), Delay: rtt / 2}
}

func losing(u lab.Uplink, loss float64) lab.Uplink {
	u.Loss = loss
	return u
}

func bursty(u lab.Uplink, share, length float64) lab.Uplink {
	u.Burst = emu.BurstOf(share, length)
	return u
}

func deep(u lab.Uplink, queue time.Duration) lab.Uplink {
	u.Queue = queue
	return u
}

func trembling(u lab.Uplink, jitter time.Duration) lab.Uplink {
	u.Jitter = jitter
	return u
}

// lopsided gives a line an upload rate of its own.
func lopsided(u lab.Uplink, up float64) lab.Uplink {
	u.Up = &emu.Params{Delay: u.Delay, Rate: int64(up * 1e6), QueueTime: max(20*ms, 2*u.Delay)}
	return u
}

// pathScenarios are those of issue 4. traces is the folder of recordings that
// may not be distributed with this project, or "".
func pathScenarios(traces string) []scenario {
	three := []lab.Uplink{mbit(300, 20*ms), mbit(30, 40*ms), mbit(5, 60*ms)}
	for i := range three {
		three[i].Name = fmt.Sprintf("line%d", i+1)
	}
	wifi, lte := mbit(50, 20*ms), mbit(20, 80*ms)
	all := []scenario{
		{name: "twins", uplinks: two(wifi, wifi), objects: true},
		{name: "unlike", uplinks: two(wifi, lte), objects: true},
		{name: "unlike-up", uplinks: two(wifi, lte), up: true},
		{name: "loss", uplinks: two(losing(wifi, 0.01), bursty(lte, 0.01, 4)), kind: lossy},
		{name: "loss-up", uplinks: two(losing(wifi, 0.01), bursty(lte, 0.01, 4)), up: true, kind: lossy},
		{name: "loss-both", uplinks: two(losing(wifi, 0.01), losing(wifi, 0.01)), kind: lossy},
		{name: "dead", uplinks: two(wifi, wifi), seconds: 15, kind: dying, script: deadFrom(5*time.Second, 10*time.Second)},
		{name: "deep", uplinks: two(deep(wifi, time.Second), deep(lte, time.Second)), seconds: 12},
		{name: "100+10", uplinks: two(mbit(100, 20*ms), mbit(10, 50*ms))},
		{name: "300+30+5", uplinks: three},
		{name: "satellite", uplinks: two(mbit(50, 20*ms), mbit(20, 200*ms)), objects: true, seconds: 12},
		{name: "geo", uplinks: two(mbit(50, 30*ms), mbit(20, 600*ms)), seconds: 15},
		{name: "jitter", uplinks: two(trembling(mbit(50, 60*ms), 20*ms), trembling(mbit(20, 80*ms), 20*ms))},
		{name: "lopsided", uplinks: two(lopsided(wifi, 10), lopsided(lte, 5))},
		{name: "lopsided-up", uplinks: two(lopsided(wifi, 10), lopsided(lte, 5)), up: true},
		trainScenario(),
	}
	return append(all, tracedScenarios(traces)...)
}

// deadFrom cuts the second uplink silently for a while.
func deadFrom(from, to time.Duration) []step {
	return []step{
		{from, "second", emu.Both, []emu.Change{emu.SetBlackhole(true)}},
		{to, "second", emu.Both, []emu.Change{emu.SetBlackhole(false)}},
	}
}

// trainScenario is thirty seconds of a train: two operators of 2 to 60 Mbit/s
// and 40 to 120 ms, which change every second or two; tunnels of 0.5 to 3 s
// kill one of them, and both together for 1.8 s.
func trainScenario() scenario {
	s := scenario{name: "train", kind: train, rail: true, seconds: 30}
	s.uplinks = two(deep(mbit(20, 80*ms), 300*ms), deep(mbit(20, 80*ms), 300*ms))
	rng := rand.New(rand.NewPCG(11, 22))
	for _, name := range []string{"first", "second"} {
		for at := time.Duration(0); at < 30*time.Second; at += time.Second + time.Duration(rng.Int64N(int64(time.Second))) {
			rate := int64((2 + 58*rng.Float64()*rng.Float64()) * 1e6)
			delay := 20*ms + time.Duration(rng.Int64N(int64(40*ms)))
			s.script = append(s.script, step{at, name, emu.Both, []emu.Change{emu.SetRate(rate), emu.SetDelay(delay)}})
		}
	}
	for _, o := range []struct {
		uplink   string
		from, to time.Duration
	}{
		{"first", 3000 * ms, 3700 * ms}, {"second", 6000 * ms, 8500 * ms}, {"first", 11000 * ms, 14000 * ms},
		{"second", 13200 * ms, 14000 * ms}, {"second", 17000 * ms, 17500 * ms}, {"first", 20000 * ms, 21200 * ms},
		{"second", 20200 * ms, 22500 * ms}, {"first", 26000 * ms, 27500 * ms},
	} {
		s.script = append(s.script,
			step{o.from, o.uplink, emu.Both, []emu.Change{emu.SetBlackhole(true)}},
			step{o.to, o.uplink, emu.Both, []emu.Change{emu.SetBlackhole(false)}})
	}
	sortSteps(s.script)
	return s
}

// bundled is where the recordings lie that this project distributes.
const bundled = "e2e/testdata/traces"

// tracedScenarios replay recordings.
func tracedScenarios(traces string) []scenario {
	own, _ := filepath.Abs(bundled)
	lte := scenario{name: "lte", kind: traced, lte: true, seconds: 30}
	mix := scenario{name: "starlink-lte", kind: traced, seconds: 30}
	if traces == "" {
		lte.missing = "needs -traces or HAWSER_TRACES: a folder with att-lte-driving-2016 and verizon-lte-short of Mahimahi (GPL-3.0, not part of this project)"
		mix.missing = lte.missing
	}
	lte.replay(recording{filepath.Join(traces, "verizon-lte-short"), true, 1}, recording{filepath.Join(traces, "att-lte-driving-2016"), true, 1})
	mix.replay(recording{filepath.Join(own, "starlink-direct"), true, 1}, recording{filepath.Join(traces, "verizon-lte-short"), true, 1})
	hsr := scenario{name: "train-trace", kind: traced, rail: true, seconds: 60}
	hsr.replay(recording{filepath.Join(own, "hsr-pair-1529470329-carrierM"), false, 1}, recording{filepath.Join(own, "hsr-pair-1529470329-carrierU"), false, 1})
	return []scenario{lte, mix, hsr}
}

// recording is a pair of trace files, or one that serves for both directions.
type recording struct {
	file  string
	both  bool
	scale float64
}

// replay makes the uplinks replay recordings from the reading's start on.
func (s *scenario) replay(r ...recording) {
	s.uplinks = two(deep(mbit(5, 50*ms), 500*ms), deep(mbit(5, 60*ms), 500*ms))
	for i, u := range s.uplinks {
		up := r[i].file + ".down"
		if r[i].both {
			up = r[i].file + ".up"
		}
		s.script = append(s.script,
			step{0, u.Name, emu.Up, []emu.Change{emu.SetRate(0), emu.SetTrace(up), emu.SetTraceScale(r[i].scale)}},
			step{0, u.Name, emu.Down, []emu.Change{emu.SetRate(0), emu.SetTrace(r[i].file + ".down"), emu.SetTraceScale(r[i].scale)}})
	}
}
