package main

import (
	"errors"
	"fmt"

	"hawser/e2e/pair"
)

// What the pair may add to a small message's round trip at p50 and p99, in us (issue 3).
const addedP50, addedP99 = 150, 1000

// pings measures only the time that the programs add to small messages.
func (b *bench) pings() (*report, error) {
	r := &report{
		Title: fmt.Sprintf("pings: round trips of %d bytes, unshaped, us", pingSize),
		Head:  []string{"way", "p50", "p99", "p50 beyond direct", "p99 beyond direct"},
	}
	raw := map[string][]*pingRow{}
	for _, h := range hosts {
		tunnel, direct, err := b.pingsOn(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		r.pingRows(tunnel, direct)
		raw[h.name] = append(tunnel, direct...)
	}
	r.Raw = raw
	return r, nil
}

// pingRows adds the rows of one world, and what the pair is held to.
func (r *report) pingRows(tunnel, direct []*pingRow) {
	base50, base99 := midQuantile(direct, 0.5), midQuantile(direct, 0.99)
	for _, runs := range [][]*pingRow{tunnel, direct} {
		p50, p99 := midQuantile(runs, 0.5), midQuantile(runs, 0.99)
		r.add(runs[0].Way, fmt.Sprintf("%.0f", p50), fmt.Sprintf("%.0f", p99), fmt.Sprintf("%.0f", p50-base50), fmt.Sprintf("%.0f", p99-base99))
	}
	way := tunnel[0].Way
	r.Gates = append(r.Gates,
		gate{What: way + ", added at p50", Got: midQuantile(tunnel, 0.5) - base50, Want: addedP50, Most: true, Unit: " us"},
		gate{What: way + ", added at p99", Got: midQuantile(tunnel, 0.99) - base99, Want: addedP99, Most: true, Unit: " us"})
}

// pingsOn measures one kind of host and, in turn, the direct path.
func (b *bench) pingsOn(h host) (tunnel, direct []*pingRow, err error) {
	w, err := open(bareLines(), pair.Options{Intercept: h.intercept, Egress: h.egress})
	if err != nil {
		return nil, nil, err
	}
	for range b.runs {
		rows, err := w.pingBoth(h.name)
		if err != nil {
			return nil, nil, errors.Join(err, w.close())
		}
		tunnel, direct = append(tunnel, rows[0]), append(direct, rows[1])
	}
	return tunnel, direct, w.close()
}

// midQuantile is the median over the runs of each run's quantile.
func midQuantile(runs []*pingRow, q float64) float64 {
	return median(each(runs, func(p *pingRow) float64 { return quantile(p.Us, q) }))
}
