package main

import (
	"fmt"
	"slices"
	"strings"
)

// of returns a figure of all runs of a rival.
func (p *pathResult) of(rival string, f func(*pathReading) float64) []float64 {
	return each(p.Runs[rival], f)
}

func mbpsOf(r *pathReading) float64  { return r.Mbps }
func stallOf(r *pathReading) float64 { return r.StallMs }
func extraOf(r *pathReading) float64 { return r.Extra * 100 }

// singles are, by uplink, the best median of single connections, and their
// sum; zero when none were measured.
func (p *pathResult) singles() (best, sum float64) {
	for i := range len(p.firstSingles()) {
		rate := 0.0
		for _, r := range rivals {
			if r.single() {
				rate = max(rate, median(p.of(r.name, func(x *pathReading) float64 { return x.Singles[i] })))
			}
		}
		best, sum = max(best, rate), sum+rate
	}
	return best, sum
}

func (p *pathResult) firstSingles() []float64 {
	for _, r := range rivals {
		if runs := p.Runs[r.name]; r.single() && len(runs) > 0 {
			return runs[0].Singles
		}
	}
	return nil
}

// multipath is the better median of kernel MPTCP, 0 when it was not measured.
func (p *pathResult) multipath() (rate float64) {
	for _, r := range rivals {
		if r.multipath {
			rate = max(rate, median(p.of(r.name, mbpsOf)))
		}
	}
	return rate
}

// table makes a scenario's report.
func (p *pathResult) table(s scenario, rows []rival) *report {
	best, sum := p.singles()
	direction := map[bool]string{false: "down", true: "up"}[s.up]
	t := &report{
		Title: fmt.Sprintf("%s: one bulk flow %s, uplinks carry %.1f Mbit/s", s.name, direction, p.Capacity),
		Head:  []string{"way", "Mbit/s", "of the capacity", "of the sum of singles", "of the best single", "of MPTCP", "by uplink, IP", "longest stall ms", "extra %", "queue p50 ms", "message p50 / p99 ms", "emulator late us"},
		Raw:   p,
	}
	if s.objects {
		t.Head = append(t.Head, "objects 10 KB / 100 KB / 1 MB p50 ms")
	}
	for _, r := range rows {
		rate := median(p.of(r.name, mbpsOf))
		cells := []string{
			r.name, spread("%.1f", p.of(r.name, mbpsOf)), share(rate, p.Capacity), share(rate, sum), share(rate, best), share(rate, p.multipath()),
			p.carried(r.name), spread("%.0f", p.of(r.name, stallOf)), "", p.queues(r.name), p.messages(r.name), fmt.Sprintf("%.0f", median(p.of(r.name, func(x *pathReading) float64 { return x.LateUs }))),
		}
		if r.single() {
			cells[0] += ", each uplink alone, in all"
		}
		if r.hawser() {
			cells[8] = spread("%.1f", p.of(r.name, extraOf))
		}
		if s.objects {
			cells = append(cells, p.objects(r.name))
		}
		t.add(cells...)
	}
	p.notes(t, s, best, sum)
	for _, r := range rows {
		if r.hawser() {
			p.gates(t, s, r.name)
		}
	}
	return t
}

func (p *pathResult) notes(t *report, s scenario, best, sum float64) {
	if sum > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("the best single connection: %.1f Mbit/s; of each uplink the better of Cubic and BBR, in all: %.1f", best, sum))
	}
	if p.DeadMs > 5 {
		t.Notes = append(t.Notes, fmt.Sprintf("the longest time in which no uplink carried anything: %.0f ms", p.DeadMs))
	}
	if s.objects {
		t.Notes = append(t.Notes, fmt.Sprintf("objects: the clairvoyant optimum is %.1f / %.1f / %.1f ms", p.Best[0], p.Best[1], p.Best[2]))
	}
	for name, runs := range p.Runs {
		t.Notes = append(t.Notes, fmt.Sprintf("%s: packets that found a full queue: %.0f; times an uplink was suspected: %.0f (medians)", name,
			median(p.of(name, func(x *pathReading) float64 { return float64(x.Dropped) })), median(p.of(name, func(x *pathReading) float64 { return float64(x.Suspected) }))))
		for _, r := range runs {
			t.Notes = append(t.Notes, r.Went...)
			if r.LateUs > lateMost {
				t.Notes = append(t.Notes, fmt.Sprintf("DISTURBED: the emulator was %.1f ms late in the mean in a run of %s: the processors were short", r.LateUs/1e3, name))
			}
			if r.EndMs > endLate {
				t.Notes = append(t.Notes, fmt.Sprintf("%s: %.1f s until both agents had let go of the flows that were reset at the end", name, r.EndMs/1e3))
			}
			if r.Faults > 0 {
				t.Notes = append(t.Notes, fmt.Sprintf("INVALID: the emulator itself dropped %d packets in a run of %s", r.Faults, name))
			}
		}
	}
	slices.Sort(t.Notes)
}

// lateMost is how late, us in the mean, the emulator may let packets leave before
// a reading counts as disturbed.
const lateMost = 600

// gates holds a row of hawser's to issue 4.
func (p *pathResult) gates(t *report, s scenario, name string) {
	best, sum := p.singles()
	rate := median(p.of(name, mbpsOf))
	add := func(what string, got, want float64, most bool, unit string) {
		t.Gates = append(t.Gates, gate{What: name + ": " + what, Got: got, Want: want, Most: most, Unit: unit})
	}
	if s.rail {
		add("of the capacity", rate/p.Capacity, railLeast, false, "")
	}
	if sum > 0 {
		if s.kind != train {
			add("of the sum of singles", rate/sum, s.kind.least(), false, "")
		}
		add("of the best single", rate/best, 1, false, "")
	}
	if m := p.multipath(); m > 0 {
		add("of MPTCP", rate/m, 0.99, false, "")
	}
	if s.kind == train || s.kind == traced {
		add("longest stall", slices.Max(p.of(name, stallOf)), p.DeadMs+500, true, " ms")
	}
	add("extra bytes, mean", mean(p.of(name, extraOf)), 3, true, " %")
	add("extra bytes, most", slices.Max(p.of(name, extraOf)), 5, true, " %")
	add("queue p50 of the worst uplink", p.worstQueue(name), 50, true, " ms")
	switch {
	case s.lte:
		add("message p99", p.messageAt(name, 0.99), 250, true, " ms")
	case s.kind == fixed, s.kind == lossy:
		add("message p99", p.messageAt(name, 0.99), 4*leastDelay(s)+20, true, " ms")
	}
	if s.objects {
		for i, size := range objectSizes {
			add(fmt.Sprintf("%d KB object p50 over the optimum", size/1000), p.objectAt(name, i)/p.Best[i], 1.3, true, "")
		}
	}
}

// leastDelay is the shortest one-way delay, ms.
func leastDelay(s scenario) float64 {
	least := millis(s.uplinks[0].Delay)
	for _, u := range s.uplinks {
		least = min(least, millis(u.Delay))
	}
	return least
}

func mean(values []float64) (m float64) {
	for _, v := range values {
		m += v / float64(len(values))
	}
	return m
}

func share(rate, of float64) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%.3f", rate/of)
}

// carried shows what each uplink carried.
func (p *pathResult) carried(name string) string {
	var cells []string
	for i := range p.Runs[name][0].Carried {
		cells = append(cells, fmt.Sprintf("%.1f", median(p.of(name, func(x *pathReading) float64 { return x.Carried[i] }))))
	}
	return strings.Join(cells, " / ")
}

// queues shows each uplink's queue.
func (p *pathResult) queues(name string) string {
	var cells []string
	for i := range p.Runs[name][0].QueueMs {
		cells = append(cells, fmt.Sprintf("%.0f", median(p.queueOf(name, i))))
	}
	return strings.Join(cells, " / ")
}

func (p *pathResult) queueOf(name string, i int) []float64 {
	return p.of(name, func(x *pathReading) float64 {
		if i >= len(x.QueueMs) {
			return 0
		}
		return x.QueueMs[i]
	})
}

func (p *pathResult) worstQueue(name string) (worst float64) {
	for i := range p.Runs[name][0].QueueMs {
		worst = max(worst, median(p.queueOf(name, i)))
	}
	return worst
}

// messageAt is a quantile over the messages of all runs.
func (p *pathResult) messageAt(name string, q float64) float64 {
	var all []float64
	for _, r := range p.Runs[name] {
		all = append(all, r.MessageMs...)
	}
	return quantile(all, q)
}

func (p *pathResult) messages(name string) string {
	return fmt.Sprintf("%.0f / %.0f", p.messageAt(name, 0.5), p.messageAt(name, 0.99))
}

// objectAt is the median of the objects of one size.
func (p *pathResult) objectAt(name string, size int) float64 {
	var all []float64
	for _, r := range p.Runs[name] {
		all = append(all, r.Objects[size].Ms...)
	}
	return quantile(all, 0.5)
}

func (p *pathResult) objects(name string) string {
	var cells []string
	for i := range objectSizes {
		cells = append(cells, fmt.Sprintf("%.0f", p.objectAt(name, i)))
	}
	return strings.Join(cells, " / ")
}
