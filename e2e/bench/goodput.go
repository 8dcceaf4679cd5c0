package main

import (
	"errors"
	"fmt"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Times of one goodput reading. The first second shows the start; what the
// gates speak of is the steady rate.
const (
	goodputFirst  = time.Second
	goodputSteady = 4 * time.Second
)

// lines are two uplinks and what issue 2 asks of them.
type lines struct {
	name    string
	uplinks []lab.Uplink
	least   float64 // of the sum of capacities
}

// twinLines are equal uplinks, unlikeLines differ in rate and delay.
func twinLines() lines {
	return lines{"50+50 Mbit/s, 20+20 ms", []lab.Uplink{
		{Name: "wifi", Rate: 50e6, Delay: 10 * ms},
		{Name: "lte", Rate: 50e6, Delay: 10 * ms},
	}, 0.90}
}

func unlikeLines() lines {
	return lines{"50+20 Mbit/s, 20+80 ms", []lab.Uplink{
		{Name: "wifi", Rate: 50e6, Delay: 10 * ms},
		{Name: "lte", Rate: 20e6, Delay: 40 * ms},
	}, 0.88}
}

// sum and best are the capacities in Mbit/s.
func (l lines) sum() (s float64) {
	for _, u := range l.uplinks {
		s += float64(u.Rate) / 1e6
	}
	return s
}

func (l lines) best() (s float64) {
	for _, u := range l.uplinks {
		s = max(s, float64(u.Rate)/1e6)
	}
	return s
}

// contestant is one row of the table per pair of lines and direction.
type contestant struct {
	name      string
	transport string // of the links; "" for a direct path
	way       way
}

var contestants = []contestant{
	{"hawser, TCP links", "tcp", way{}},
	{"hawser, QUIC links", "quic", way{}},
	{"direct, best uplink, cubic", "", way{direct: true, congestion: "cubic"}},
	{"direct, best uplink, bbr", "", way{direct: true, congestion: "bbr"}},
}

// goodputRow is the readings of one contestant.
type goodputRow struct {
	Lines      string     `json:"lines"`
	Contestant string     `json:"contestant"`
	Direction  string     `json:"direction"`
	Runs       []measured `json:"runs"`
}

// goodput measures one bulk flow.
func (b *bench) goodput() (*report, error) {
	r := &report{
		Title: "goodput: one bulk flow over shaped uplinks, Mbit/s of payload",
		Head:  []string{"uplinks", "way", "direction", "steady Mbit/s", "of the sum", "of the best uplink", "first second"},
		Notes: []string{
			"capacity counts IP bytes: the headers of plain TCP leave at most 0.966 of it to payload",
			fmt.Sprintf("steady: %v after the first second", goodputSteady),
		},
	}
	var raw []*goodputRow
	for _, l := range []lines{twinLines(), unlikeLines()} {
		rows, err := b.goodputOver(l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		raw = append(raw, rows...)
		for _, row := range rows {
			r.goodputRow(l, row)
		}
	}
	r.Raw = raw
	return r, nil
}

func (r *report) goodputRow(l lines, row *goodputRow) {
	steady := each(row.Runs, func(m measured) float64 { return m.Steady.mbps() })
	first := each(row.Runs, func(m measured) float64 { return m.First.mbps() })
	share := median(steady) / l.sum()
	r.add(l.name, row.Contestant, row.Direction, spread("%.1f", steady), fmt.Sprintf("%.3f", share),
		fmt.Sprintf("%.2f", median(steady)/l.best()), fmt.Sprintf("%.1f", median(first)))
	if row.Contestant == contestants[0].name {
		r.Gates = append(r.Gates, gate{What: fmt.Sprintf("share of the sum, %s, %s", l.name, row.Direction), Got: share, Want: l.least})
	}
}

// goodputOver runs all contestants over the same lines, in turn.
func (b *bench) goodputOver(l lines) ([]*goodputRow, error) {
	var rows []*goodputRow
	for _, c := range contestants {
		for _, direction := range []string{"down", "up"} {
			rows = append(rows, &goodputRow{Lines: l.name, Contestant: c.name, Direction: direction})
		}
	}
	for range b.runs {
		for i, c := range contestants {
			if err := b.contest(l, c, rows[2*i:2*i+2]); err != nil {
				return nil, err
			}
		}
	}
	return rows, nil
}

// contest takes one reading of a contestant in each direction.
func (b *bench) contest(l lines, c contestant, rows []*goodputRow) error {
	w, err := open(l.uplinks, pair.Options{Transport: c.transport})
	if err != nil {
		return err
	}
	for i, kind := range []byte{download, upload} {
		var m measured
		if m, err = b.bulk(w, c.way, request{kind: kind}, 1, phases{goodputFirst, goodputSteady}); err != nil {
			break
		}
		rows[i].Runs = append(rows[i].Runs, m)
	}
	return errors.Join(err, w.close())
}
