package link

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/pkg/wire"
)

var (
	whereLines = flag.String("lines", "", "lines on which TestLines measures, separated by commas; all: all")
	whereSeeds = flag.Int("seeds", 6, "seeds of TestLines")
	whereFor   = flag.Duration("for", 5*time.Second, "how long TestLines measures")
	whereTaken = flag.String("taken", "0s,3ms", "for how long TestLines takes processors away, in the mean, separated by commas")
)

// simLines are the bench's scenarios of two or three uplinks.
func simLines() map[string][]simLine {
	wifi, lte := simMbit(50, 20*ms), simMbit(20, 80*ms)
	with := func(l simLine, f func(*simLine)) simLine {
		f(&l)
		return l
	}
	losing := func(l *simLine) { l.loss = 0.01 }
	deep := func(l *simLine) { l.limit = time.Second }
	return map[string][]simLine{
		"twins":     {wifi, wifi},
		"unlike":    {wifi, lte},
		"deep":      {with(wifi, deep), with(lte, deep)},
		"loss":      {with(wifi, losing), with(lte, losing)},
		"satellite": {wifi, simMbit(20, 200*ms)},
		"jitter":    {trembling(simMbit(50, 60*ms), 20*ms), trembling(simMbit(20, 80*ms), 20*ms)},
		"300+30+5":  {simMbit(300, 20*ms), simMbit(30, 40*ms), simMbit(5, 60*ms)},
	}
}

// TestLines prints what QUIC links bring on the bench's lines, also where the
// machine is busy: goodput of the capacity, messages, and what went twice.
func TestLines(t *testing.T) {
	if *whereLines == "" {
		t.Skip("no -args -lines")
	}
	for _, text := range strings.Split(*whereTaken, ",") {
		taken, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		for name, lines := range simLines() {
			if *whereLines != "all" && !slices.Contains(strings.Split(*whereLines, ","), name) {
				continue
			}
			var sum simResult
			var share, least float64
			least = 1
			for seed := range *whereSeeds {
				r := measureTaken(t, uint64(seed), wire.VersionMax, *whereFor, taken, lines...)
				capacity := 0.0
				for _, l := range lines {
					capacity += l.rate * 8 / 1e6
				}
				n := float64(*whereSeeds)
				share += r.then / capacity / n
				least = min(least, r.then/capacity)
				sum.first += r.first / n
				sum.p50 += r.p50 / time.Duration(*whereSeeds)
				sum.p99 += r.p99 / time.Duration(*whereSeeds)
				for i := range lines {
					sum.queue[i] += r.queue[i] / time.Duration(*whereSeeds)
				}
				sum.drops += r.drops
				sum.lost += r.lost
				sum.leads += r.leads
			}
			t.Logf("%-9s taken %v: %.3f of the capacity (least %.3f), first 2 s %.1f; messages p50 %.1f p99 %.1f ms; queues %.0f %.0f %.0f ms; %d found a full queue, %d lost; led %d times",
				name, taken, share, least, sum.first, sum.p50.Seconds()*1e3, sum.p99.Seconds()*1e3, sum.queue[0].Seconds()*1e3, sum.queue[1].Seconds()*1e3, sum.queue[2].Seconds()*1e3, sum.drops, sum.lost, sum.leads)
		}
	}
}
