package main

import (
	"fmt"
	"slices"
	"time"
)

// report is all that was measured.
type report struct {
	connects []connectRow
	costs    []costRow
	goods    []goodRow
	shakes   []shakeRow
}

// connectRow is how clients fared.
type connectRow struct {
	what         string
	quiet, flood result
	sent         float64 // SYNs per second
	before, peak int     // RSS of the edge in KiB; 0 for the kernel
	entries      int     // of connection tracking on the edge, more than before
	flows        int     // that the guard has made, beyond the clients' own
}

// costRow is what a flood costs alone, in µs per SYN.
type costRow struct {
	what         string
	sent         float64
	sender, edge float64
}

// goodRow is a download's rate in Mbit/s.
type goodRow struct {
	what  string
	rates [3][]float64 // quiet, under the dropped flood, under the flood
}

// shakeRow is what handshakes leave.
type shakeRow struct {
	what         string
	sent, acked  int
	pending      int
	clients      result
	before, peak int
}

func (r *report) print() error {
	if len(r.connects) > 0 {
		fmt.Printf("\n%-26s %9s  %31s  %31s %8s  %s\n", "clients", "SYN/s", "quiet: conn/s  ok  p50  p99", "flood: conn/s  ok  p50  p99", "entries", "edge RSS MB")
	}
	for _, c := range r.connects {
		fmt.Printf("%-26s %9.0f  %s  %s %8d  %.1f > %.1f\n", c.what, c.sent, c.quiet, c.flood, c.entries, mb(c.before), mb(c.peak))
	}
	if len(r.costs) > 0 {
		fmt.Printf("\n%-26s %9s %16s %16s\n", "µs of CPU per SYN", "SYN/s", "sender and host", "edge's process")
	}
	for _, c := range r.costs {
		fmt.Printf("%-26s %9.0f %16.2f %16.2f\n", c.what, c.sent, c.sender, c.edge)
	}
	if len(r.goods) > 0 {
		fmt.Printf("\n%-26s %9s %16s %16s\n", "download, Mbit/s, median", "quiet", "dropped flood", "flood")
	}
	for _, g := range r.goods {
		fmt.Printf("%-26s %9.0f %16.0f %16.0f\n", g.what, median(g.rates[0]), median(g.rates[1]), median(g.rates[2]))
	}
	if len(r.shakes) > 0 {
		fmt.Printf("\n%-48s %9s %9s %8s  %31s  %s\n", "handshakes of 1,000 addresses", "SYNs", "ACKs", "pending", "clients: conn/s  ok  p50  p99", "edge RSS MB")
	}
	for _, s := range r.shakes {
		fmt.Printf("%-48s %9d %9d %8d  %s  %.1f > %.1f\n", s.what, s.sent, s.acked, s.pending, s.clients, mb(s.before), mb(s.peak))
	}
	r.judge()
	return nil
}

// What a guarded edge has to reach.
const (
	mostGrowth  = 16.0 // MB that its memory grows by
	leastRate   = 0.5  // of the rate of the kernel's listener under its flood
	mostSlower  = 2.0  // times the p99 of before
	leastGoodly = 0.9  // of a download's rate while the same flood is dropped at once
)

// judge says of the edge as it is, the first of the rows that are not the
// kernel's, whether it has reached all that.
func (r *report) judge() {
	fmt.Println()
	var kernel *connectRow
	for i := range r.connects {
		c := &r.connects[i]
		if c.peak == 0 {
			kernel = c
			continue
		}
		verdict("flows that SYNs have made", float64(c.flows), 0, true)
		verdict("connections that failed", float64(c.flood.failed), 0, true)
		verdict("MB that the edge has grown by", mb(c.peak-c.before), mostGrowth, true)
		verdict("p99, times that of before", ratio(c.flood.at(99), c.quiet.at(99)), mostSlower, true)
		if kernel != nil {
			verdict("connections, of what the kernel's listener takes", c.flood.perSecond()/kernel.flood.perSecond(), leastRate, false)
		}
		break
	}
	if len(r.goods) > 0 {
		g := r.goods[0]
		verdict("download, of that while the flood is dropped at once", median(g.rates[2])/median(g.rates[1]), leastGoodly, false)
	}
	for _, s := range r.shakes[:min(len(r.shakes), 2)] {
		verdict("MB that the edge has grown by, "+s.what, mb(s.peak-s.before), mostGrowth, true)
		verdict("connections that failed beside "+s.what, float64(s.clients.failed), 0, true)
	}
}

// verdict prints what was reached beside what is wanted, at most or at least.
func verdict(what string, got, want float64, most bool) {
	bound, ok := "at least", got >= want
	if most {
		bound, ok = "at most", got <= want
	}
	word := "reached"
	if !ok {
		word = "MISSED"
	}
	fmt.Printf("%-7s %-70s %8.2f, want %s %g\n", word, what, got, bound, want)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func mb(kib int) float64 { return float64(kib) / 1024 }
