package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// verdicts are the gates of a report that hold word in what they are about.
func verdicts(gates []gate, word string) (n int) {
	for _, g := range gates {
		if strings.Contains(g.What, word) {
			n++
		}
	}
	return n
}

// TestPathGates: each scenario of `bench paths` has the verdicts that issue 4 wants of it,
// those on trains also where single connections were not read.
func TestPathGates(t *testing.T) {
	var names []string
	for _, s := range pathScenarios("x") {
		names = append(names, s.name)
		reading := func(mbps float64) []*pathReading {
			return []*pathReading{{Mbps: mbps, StallMs: 100, QueueMs: []float64{10, 10}, MessageMs: []float64{30, 40}, Singles: []float64{5, 4},
				Objects: []object{{Ms: []float64{20}}, {Ms: []float64{30}}, {Ms: []float64{100}}}}}
		}
		alone := &pathResult{Capacity: 10, Best: []float64{20, 28, 90}, Runs: map[string][]*pathReading{"hawser-tcp": reading(8)}}
		all := &pathResult{Capacity: 10, Best: alone.Best, Runs: map[string][]*pathReading{"hawser-tcp": reading(8), "single-bbr": reading(9), "mptcp-bbr": reading(7)}}
		var few, many report
		alone.gates(&few, s, "hawser-tcp")
		all.gates(&many, s, "hawser-tcp")
		rail := s.name == "train" || s.name == "train-trace"
		recorded := s.name == "lte" || s.name == "starlink-lte" || rail
		steady := !recorded && s.name != "dead"
		for _, c := range []struct {
			word string
			want bool
			of   []gate
		}{
			{"extra bytes, mean", true, few.Gates}, {"extra bytes, most", true, few.Gates}, {"queue p50", true, few.Gates},
			{"of the capacity", rail, few.Gates}, {"longest stall", recorded, few.Gates},
			{"message p99", steady || s.name == "lte", few.Gates},
			{"object p50", s.objects, few.Gates},
			{"of the best single", true, many.Gates}, {"of MPTCP", true, many.Gates},
			{"of the sum of singles", s.name != "train", many.Gates},
		} {
			if got := verdicts(c.of, c.word) > 0; got != c.want {
				t.Errorf("%s: a verdict %q is %v, want %v: %v", s.name, c.word, got, c.want, c.of)
			}
		}
		if rail && !slices.ContainsFunc(few.Gates, func(g gate) bool { return strings.Contains(g.What, "of the capacity") && !g.kept() }) {
			t.Errorf("%s: 0.8 of the capacity is enough: %v", s.name, few.Gates)
		}
	}
	if len(names) != 19 {
		t.Errorf("%d scenarios: %v", len(names), names)
	}
}

// TestFaultGates: a link that comes back late once is one too many.
func TestFaultGates(t *testing.T) {
	f := &faultReading{StallMs: []float64{100}, NormalMs: []float64{30}, FaultMs: []float64{40}, BackMs: make([]float64, 50)}
	for _, k := range faultKinds {
		var r report
		f.BackMs[7] = 999
		if f.gates(&r, k); r.missed() != 0 {
			t.Errorf("%s: %v", k.name, r.Gates)
		}
		r = report{}
		f.BackMs[7] = 1001
		if f.gates(&r, k); r.missed() != 1 {
			t.Errorf("%s: used again after 1001 ms once, and %d gates are missed: %v", k.name, r.missed(), r.Gates)
		}
	}
}

// TestPingGates: what counts is what hawser adds to the direct path; peers are not judged.
func TestPingGates(t *testing.T) {
	row := func(name string, peer bool, us ...float64) *pingRow {
		return &pingRow{Way: name, Peer: peer, Us: [][]float64{us}}
	}
	for _, c := range []struct {
		p50, p99 float64
		missed   int
	}{{190, 1089, 0}, {191, 1089, 1}, {190, 1091, 1}, {500, 5000, 2}} {
		r := pingReport([]*pingRow{row("way", false, c.p50, c.p50, c.p99), row("peer", true, 9000, 9000, 9000), row(nothingBetween, false, 40, 40, 90)})
		if r.missed() != c.missed || len(r.Gates) != 2 {
			t.Errorf("p50 %v and p99 %v us beside 40 and 90: %v", c.p50, c.p99, r.Gates)
		}
	}
	if r := pingReport([]*pingRow{row("way", false, 500)}); len(r.Gates) != 0 {
		t.Errorf("without a direct row: %v", r.Gates)
	}
}

// TestRestGates: a flow's bytes and what is left at each agent are judged, by the way's own
// bound, and the kernel's share is what is beyond the direct way's.
func TestRestGates(t *testing.T) {
	for _, v := range restingWays {
		const flows = 1000
		full := footprint{Edge: 20<<20 + int64(v.most)*flows, Cloud: 20<<20 + int64(v.most)*flows + flows, Slab: 9 << 20}
		before := footprint{Edge: 20 << 20, Cloud: 20 << 20}
		row := &idleRow{Way: v.name, Flows: flows, Before: before, During: full, After: footprint{Edge: 22 << 20, Cloud: 23 << 20}}
		direct := &idleRow{Way: directWay, Flows: flows, During: footprint{Slab: 4 << 20}, Opened: time.Second}
		var r report
		r.idleRows(v, row, direct)
		if len(r.Gates) != 4 || r.missed() != 2 || r.Gates[0].kept() != true || r.Gates[2].kept() {
			t.Errorf("%s: %v", v.name, r.Gates)
		}
		if got := r.Rows[0][6]; got != "5.12" { // 5 MB of a thousand flows, in KB
			t.Errorf("%s: the kernel's share is %s KB", v.name, got)
		}
	}
}

// TestOtherGates: objects over QUIC links are judged as those over TCP links are, and flows
// beside slow readers also while nobody reads.
func TestOtherGates(t *testing.T) {
	row := &objectRow{Way: "hawser, QUIC links", Optimum: 28, Ms: []float64{40}}
	gates := objectKind{bytes: 100_000, share: 1.3}.gates(row, 95)
	if len(gates) != 2 || !gates[0].kept() || gates[1].kept() || verdicts(gates, "QUIC") != 2 {
		t.Errorf("objects: %v", gates)
	}
	well, held := others{Mbps: 100, Ms: []float64{20}}, others{Mbps: 90, Ms: []float64{22}}
	for _, c := range []struct {
		row    slowRow
		missed int
	}{{slowRow{Alone: well, Still: well, Beside: well}, 0}, {slowRow{Alone: well, Still: held, Beside: well}, 2}, {slowRow{Alone: well, Still: well, Beside: held}, 2}} {
		var r report
		(&bench{budget: 512}).slowRow(&r, &c.row)
		if r.missed() != c.missed {
			t.Errorf("slow readers: %v", r.Gates)
		}
	}
}
