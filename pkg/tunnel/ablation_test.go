package tunnel

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/scheduler"
)

var ablationTable = flag.Bool("ablation", false, "print the whole table of TestAblation")

var ablationOnly = flag.String("terrain", "", "terrains of the table, separated by commas; empty: all")

var ablationVariants = flag.String("variants", "", "variants of the table whose names hold this, beside the default; empty: all")

// Wrappers that leave one thing out.
type (
	noOverdue  struct{ scheduler.Data }
	noUrgent   struct{ scheduler.Data }
	impatience struct{}
)

// Copy implements scheduler.Data.
func (noOverdue) Copy([]scheduler.Link, int, int, time.Duration) (int, bool) {
	return 0, false
}

// Urgent implements scheduler.Data.
func (noUrgent) Urgent([]scheduler.Link, int, int, int, bool) (int, bool) { return 0, false }

// Beside implements scheduler.Data.
func (noUrgent) Beside(int, int, bool) bool { return false }

// Pick implements scheduler.Path: earliest completion among the links that have
// room, without waiting for a better one.
func (impatience) Pick(links []scheduler.Link, c scheduler.Chunk) (int, bool) {
	best := -1
	for i, l := range links {
		if l.State == scheduler.Up && l.Room > 0 && (best < 0 || l.ETA(c.Size) < links[best].ETA(c.Size)) {
			best = i
		}
	}
	return max(best, 0), best >= 0
}

// everything is the scheduler as it is by default.
var everything = variant{name: "all as by default"}

var variants = []variant{
	everything,
	{name: "and two urgent connections per link, as in the programs", beside: true},
	{name: "and one urgent connection per link", beside: true, single: true},
	{name: "no overdue copies", data: func(d scheduler.Data) scheduler.Data { return noOverdue{d} }},
	{name: "no urgent copies", data: func(d scheduler.Data) scheduler.Data { return noUrgent{d} }},
	{name: "data order fifo (neither)", kinds: scheduler.Kinds{Data: scheduler.DataFIFO}},
	{name: "no caps in flight", omit: scheduler.Omit{Caps: true}},
	{name: "no just-in-time pull (1 MB of transport buffer, no caps)", omit: scheduler.Omit{Caps: true}, unsent: 1 << 20},
	{name: "transports tell nothing", blind: true},
	{name: "no fresh connection where the old one speaks again", timid: true},
	{name: "no rate follower", omit: scheduler.Omit{Follower: true}},
	{name: "earliest that never waits", path: func(scheduler.Path) scheduler.Path { return impatience{} }},
	{name: "path minrtt", kinds: scheduler.Kinds{Path: scheduler.PathMinRTT}},
	{name: "path roundrobin", kinds: scheduler.Kinds{Path: scheduler.PathRoundRobin}},
	{name: "path weighted", kinds: scheduler.Kinds{Path: scheduler.PathWeighted}},
	{name: "path blest", kinds: scheduler.Kinds{Path: scheduler.PathBLEST}},
	{name: "path ecf", kinds: scheduler.Kinds{Path: scheduler.PathECF}},
	{name: "path redundant", kinds: scheduler.Kinds{Path: scheduler.PathRedundant}},
	{name: "order round-robin", kinds: scheduler.Kinds{Order: scheduler.OrderRoundRobin}},
	{name: "order strict", kinds: scheduler.Kinds{Order: scheduler.OrderStrict}},
}

// TestAblationTable prints what each mechanism brings: `make ablation`.
func TestAblationTable(t *testing.T) {
	if !*ablationTable {
		t.Skip("prints a table: make ablation")
	}
	for _, g := range terrains() {
		if *ablationOnly != "" && !slices.Contains(strings.Split(*ablationOnly, ","), g.name) {
			continue
		}
		fmt.Printf("\n%s\n\n| variant | Mbit/s | of the capacity | longest stall ms | extra %% | message p50 / p99 ms | 100 KB p50 ms | queue p50 ms | found it full |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", g.title())
		for _, v := range variants {
			if v.name != everything.name && !strings.Contains(v.name, *ablationVariants) {
				continue
			}
			o := g.run(v, 1, 2)
			fmt.Printf("| %s | %.1f | %.3f | %.0f | %.1f | %.0f / %.0f | %.0f | %.0f | %d |\n", v.name, mean(o.goodput), mean(o.used), slices.Max(o.stall), mean(o.extra),
				quantile(o.message, 0.5), quantile(o.message, 0.99), quantile(o.object, 0.5), o.worstQueue(), o.dropped)
		}
	}
}

func mean(x []float64) (m float64) {
	for _, v := range x {
		m += v / float64(len(x))
	}
	return m
}

// title describes a terrain.
func (g terrain) title() string {
	var parts []string
	for _, l := range g.lines {
		parts = append(parts, fmt.Sprintf("%.0f Mbit/s, %v", l.mbit, l.rtt))
	}
	return fmt.Sprintf("%s: %s%s", g.name, strings.Join(parts, " + "), g.about)
}

// TestAblation holds what the mechanisms are there for: without one of them
// something is worse by a margin. Everything is decided by the seeds. A change
// that breaks it is looked at in the table of `make ablation`.
func TestAblation(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	with := map[string]outcome{} // by terrain
	for _, c := range []struct {
		terrain, without string
		what             string
		of               func(outcome) float64
		times            float64 // what it is without the mechanism is at least so many times what it is with it
	}{
		{"unlike", "no just-in-time pull", "message p50", func(o outcome) float64 { return quantile(o.message, 0.5) }, 2},
		{"unlike", "earliest that never waits", "object p50", func(o outcome) float64 { return quantile(o.object, 0.5) }, 1.2},
		{"twins", "path redundant", "time per byte", func(o outcome) float64 { return 1 / mean(o.goodput) }, 1.3},
		{"unlike", "order strict", "answers that do not come, and one", func(o outcome) float64 { return float64(1 + o.failed) }, 2},
	} {
		t.Run(c.without, func(t *testing.T) {
			g := terrains()[slices.IndexFunc(terrains(), func(g terrain) bool { return g.name == c.terrain })]
			v := variants[slices.IndexFunc(variants, func(v variant) bool { return strings.HasPrefix(v.name, c.without) })]
			all, known := with[c.terrain]
			if !known {
				all = g.run(everything, 1)
				with[c.terrain] = all
			}
			less := g.run(v, 1)
			t.Logf("%s: %s: %.4g, with everything %.4g", c.terrain, c.what, c.of(less), c.of(all))
			if all.failed > 0 {
				t.Errorf("%s: %d wrong or missing answers", c.terrain, all.failed)
			}
			if c.of(less) < c.times*c.of(all) {
				t.Errorf("%s: %s: %.4g, with everything %.4g: wanted %.1f times", c.terrain, c.what, c.of(less), c.of(all), c.times)
			}
		})
	}
	if n := buffer.Live(); n > 1<<20 {
		t.Errorf("%d bytes were not given back", n)
	}
}
