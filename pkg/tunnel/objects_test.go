package tunnel

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/pkg/stream"
)

var (
	objectLines = flag.String("objects-lines", "", "lines on which TestObjectsOver fetches, separated by commas")
	objectSeeds = flag.Int("objects-seeds", 4, "seeds of TestObjectsOver")
)

// page is objects that are fetched at once, over a flow each.
type page struct{ objects, size int }

var pages = []page{{1, 10_000}, {1, 100_000}, {1, 1_000_000}, {4, 300_000}, {20, 50_000}, {40, 100_000}}

// pagesEach is how often a page is fetched, as the bench does with objects.
const pagesEach = 12

// pagesOver fetches pages over lines by TCP links, one after the other, and returns how
// long each took until its last byte.
func (g terrain) pagesOver(seed uint64, all []page) [][]time.Duration {
	m, _ := g.enter(variant{beside: true}, seed)
	m.Run(m.Now().Add(simStart+time.Duration(seed)*37*time.Millisecond), nil)
	took := make([][]time.Duration, len(all))
	for i, p := range all {
		for range pagesEach {
			m.Run(m.Now().Add(50*time.Millisecond), nil)
			took[i] = append(took[i], m.fetch(p))
		}
		slices.Sort(took[i])
	}
	m.end()
	return took
}

// fetch fetches a page.
func (m *sim) fetch(p page) time.Duration {
	began := m.Now()
	var flows []*simFlow
	for range p.objects {
		flows = append(flows, m.request(1, p.size))
	}
	for slices.ContainsFunc(flows, func(f *simFlow) bool { return f.ended.IsZero() }) {
		m.Run(m.Now().Add(100*time.Microsecond), nil)
	}
	for _, f := range flows {
		m.edge.post(stream.Command{Kind: stream.CmdReset, Flow: f.id, Code: stream.CodeAbort})
		delete(m.edge.byID, f.id)
	}
	m.edge.wake()
	return m.Now().Sub(began)
}

// leastOf is what a page takes at least, after requests over the quickest line: all lines
// are used from when the first byte may have come by them.
func (g terrain) leastOf(p page) time.Duration {
	quickest, best := time.Hour, time.Hour
	for _, l := range g.lines {
		quickest = min(quickest, l.rtt/2)
	}
	for _, last := range g.lines {
		bytes, rate := float64(p.objects*p.size), 0.0
		for _, l := range g.lines {
			if l.rtt <= last.rtt {
				bytes += l.mbit * mbit * l.rtt.Seconds() / 2
				rate += l.mbit * mbit
			}
		}
		best = min(best, time.Duration(bytes/rate*float64(time.Second)))
	}
	return quickest + best
}

// lineNamed is one of fixedLines.
func lineNamed(name string) terrain {
	all := fixedLines()
	return all[slices.IndexFunc(all, func(g terrain) bool { return g.name == name })]
}

// TestObjectsOver prints how long the bench's objects, and pages of some, take by TCP links.
func TestObjectsOver(t *testing.T) {
	if *objectLines == "" {
		t.Skip("prints a table: -args -objects-lines unlike,satellite")
	}
	for _, name := range strings.Split(*objectLines, ",") {
		g := lineNamed(name)
		p50s, p90s := make([][]time.Duration, len(pages)), make([][]time.Duration, len(pages))
		for seed := range *objectSeeds {
			for i, took := range g.pagesOver(uint64(seed+1), pages) {
				p50s[i] = append(p50s[i], took[pagesEach/2])
				p90s[i] = append(p90s[i], took[pagesEach*9/10])
			}
		}
		for i, p := range pages {
			least, p50 := g.leastOf(p).Seconds()*1000, quantile(p50s[i], 0.5)
			t.Logf("%-9s %2d of %4d KB: p50 %5.1f (worst seed %5.1f), p90 %5.1f ms; least %5.1f; %.2f", name, p.objects, p.size/1000, p50, quantile(p50s[i], 1), quantile(p90s[i], 0.5), least, p50/least)
		}
	}
}

// TestObjectsUnlike: objects over lines that differ wait for no far one, and use it where
// that is sooner: 1 MB takes at most 1.3 times what the lines need, and 40 objects at once
// 1.2 times.
func TestObjectsUnlike(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	all := []page{pages[0], pages[1], pages[2], pages[len(pages)-1]}
	for _, name := range []string{"unlike", "satellite", "100+10"} {
		g := lineNamed(name)
		took := g.pagesOver(1, all)
		for i, p := range all {
			most := 1.3
			if p.objects > 1 || name == "100+10" { // where credit once ran out behind what the slow line brought
				most = 1.2
			}
			if share := took[i][pagesEach/2].Seconds() / g.leastOf(p).Seconds(); share > most {
				t.Errorf("%s: %d of %d KB take %v, %.2f times what the lines need", name, p.objects, p.size/1000, took[i][pagesEach/2], share)
			}
		}
	}
}

// TestLefts: before a flow's last byte go as many of others as it has left itself, at most,
// and none of those that have more.
func TestLefts(t *testing.T) {
	var l lefts
	l.move(0, 1000)
	if got := l.work(1000, 1000); got != 1000 {
		t.Errorf("alone: %d", got)
	}
	l.move(0, 300)
	l.move(0, 100_000)
	if got := l.work(1000, 1000); got != 1300 {
		t.Errorf("beside less and more: %d, want 1300", got)
	}
	l.move(300, 1010)
	if got := l.work(1000, 1000); got != 2000 {
		t.Errorf("beside as much: %d, want 2000", got)
	}
	if got := l.work(200_000, 100_000); got != 202_010 {
		t.Errorf("the last: %d, want 202010", got)
	}
	l.move(1010, 0)
	l.move(100_000, 0)
	if got := l.work(500, 1000); got != 500 {
		t.Errorf("alone again: %d", got)
	}
	if l.move(1000, 0); l != (lefts{}) {
		t.Errorf("all have gone: %v", l)
	}
}
