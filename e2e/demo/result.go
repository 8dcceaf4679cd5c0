package main

import (
	"fmt"
	"strings"
	"time"

	"hawser/e2e/lab"
)

// result is what the demo has measured.
type result struct {
	origin file
	tunnel *gauge
	direct *gauge // nil when it was left out
	best   lab.Uplink
	cut    string
	cutAt  time.Duration
	links  []share
}

// share is what one link has carried to the edge, headers included.
type share struct {
	name  string
	bytes uint64
}

// whole returns an error unless every download brought the origin's file.
func (r result) whole() error {
	for _, d := range []struct {
		what string
		g    *gauge
	}{{"through the tunnel", r.tunnel}, {"directly", r.direct}} {
		if d.g == nil {
			continue
		}
		if got := d.g.got.Load(); got != r.origin.size {
			return fmt.Errorf("%s %d bytes arrived, the origin's file has %d", d.what, got, r.origin.size)
		}
		if d.g.sum != r.origin.sum {
			return fmt.Errorf("%s other bytes arrived than the origin sent: sha256 %s, want %s", d.what, d.g.sum, r.origin.sum)
		}
	}
	return nil
}

// String is the summary.
func (r result) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-16s "+format+"\n", append([]any{name}, args...)...)
	}
	b.WriteString("summary\n")
	verdict := "equal at origin and client"
	if r.whole() != nil {
		verdict = "DIFFERENT at origin and client"
	}
	line("checksum", "%s (sha256 %s...)", verdict, r.tunnel.sum[:16])
	line("tunnel", "%s, %s cut at %.2f s", figures(r.tunnel), r.cut, r.cutAt.Seconds())
	line("longest stall", "%d ms, beginning at %.2f s; since the cut %d ms", r.tunnel.stall.Milliseconds(), r.tunnel.stalled.Seconds(), r.tunnel.late.Milliseconds())
	line("bytes per link", "%s", r.shares())
	if r.direct != nil {
		line("direct over "+r.best.Name, "%s, longest stall %d ms, nothing cut", figures(r.direct), r.direct.stall.Milliseconds())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func figures(g *gauge) string {
	return fmt.Sprintf("%.1f s, %.1f Mbit/s", g.took.Seconds(), g.rate()/1e6)
}

func (r result) shares() string {
	var total uint64
	for _, l := range r.links {
		total += l.bytes
	}
	parts := make([]string, len(r.links))
	for i, l := range r.links {
		parts[i] = fmt.Sprintf("%s %.1f MB (%.0f %%)", l.name, float64(l.bytes)/megabyte, 100*float64(l.bytes)/float64(max(total, 1)))
	}
	return strings.Join(parts, ", ")
}
