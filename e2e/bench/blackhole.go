package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/admin"
)

// Times and numbers of the faults.
const (
	faults   = 20
	cutTime  = 1500 * ms // how long an uplink is dead
	settle   = 500 * ms  // of steady transfer before the next fault, and a random phase
	backMost = 10 * time.Second
	after    = 700 * ms // watched after the uplink is in use again
	look     = 2 * ms
	// backBytes forwarded after the repair are no handshakes and probes: the
	// uplink carries payload again.
	backBytes = 128 << 10
)

// fault is one silent blackhole.
type fault struct {
	StallMs  float64 `json:"stall_ms"`  // longest time without a byte in order, until the repair
	DetectMs float64 `json:"detect_ms"` // until the sender stopped using the uplink
	BackMs   float64 `json:"back_ms"`   // from the repair until the uplink carried payload
	ReturnMs float64 `json:"return_ms"` // longest time without a byte in order, from the repair on
}

// faultRow is all faults of one uplink.
type faultRow struct {
	Uplink string  `json:"uplink"`
	Faults []fault `json:"faults"`
}

// blackhole cuts uplinks silently during a bulk download.
func (b *bench) blackhole() (*report, error) {
	l := unlikeLines()
	r := &report{
		Title: fmt.Sprintf("blackhole: an uplink dies silently for %v under a bulk download, %s, %d faults each, ms", cutTime, l.name, faults),
		Head:  []string{"uplink that dies", "stall p50", "p95", "max", "detected after p50", "max", "in use again after p50", "max", "stall then p50", "max"},
		Notes: []string{"stall: the longest time in which the client received nothing, from the fault to the repair; stall then: from the repair until shortly after the uplink was used again",
			"detected: the sender no longer uses the uplink; in use again: time from the repair until it has carried 128 KB"},
	}
	var rows []*faultRow
	for _, u := range l.uplinks {
		row, err := b.faultsOf(l, u)
		if err != nil {
			return nil, fmt.Errorf("uplink %s: %w", u.Name, err)
		}
		rows = append(rows, row)
		stall := each(row.Faults, func(f fault) float64 { return f.StallMs })
		detect := each(row.Faults, func(f fault) float64 { return f.DetectMs })
		back := each(row.Faults, func(f fault) float64 { return f.BackMs })
		again := each(row.Faults, func(f fault) float64 { return f.ReturnMs })
		cells := []string{row.Uplink}
		for _, v := range []float64{quantile(stall, 0.5), quantile(stall, 0.95), slices.Max(stall), quantile(detect, 0.5), slices.Max(detect), quantile(back, 0.5), slices.Max(back), quantile(again, 0.5), slices.Max(again)} {
			cells = append(cells, fmt.Sprintf("%.0f", v))
		}
		r.add(cells...)
	}
	r.Raw = rows
	return r, nil
}

func (b *bench) faultsOf(l lines, u lab.Uplink) (*faultRow, error) {
	w, err := open(l.uplinks, pair.Options{Transport: "tcp"})
	if err != nil {
		return nil, err
	}
	row := &faultRow{Uplink: fmt.Sprintf("%s, %.0f Mbit/s, %v", u.Name, float64(u.Rate)/1e6, 2*u.Delay)}
	load, err := w.startLoad(way{}, request{kind: download}, 1)
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	rng := rand.New(rand.NewPCG(7, uint64(u.Rate)))
	if err = b.sleep(2 * time.Second); err == nil {
		for range faults {
			var f fault
			if f, err = b.fault(w, load, u.Name, time.Duration(rng.Int64N(int64(settle)))); err != nil {
				break
			}
			row.Faults = append(row.Faults, f)
		}
	}
	return row, errors.Join(err, load.stop(), w.close())
}

// fault cuts an uplink once and watches what follows.
func (b *bench) fault(w *world, l *load, uplink string, phase time.Duration) (f fault, err error) {
	if err := b.sleep(settle + phase); err != nil {
		return f, err
	}
	before, err := w.lossesOf(uplink)
	if err != nil {
		return f, err
	}
	if err := w.Blackhole(uplink, emu.Both, true); err != nil {
		return f, err
	}
	g := &gaps{load: l, last: l.count.Load(), since: time.Now()}
	cut := time.Now()
	detected := func() (bool, error) {
		n, err := w.lossesOf(uplink)
		return n > before, err
	}
	took, err := b.until(g, cutTime, detected)
	if err != nil {
		return f, fmt.Errorf("detection: %w", err)
	}
	f.DetectMs = millis(took)
	if _, err := b.until(g, time.Until(cut.Add(cutTime)), never); err != nil {
		return f, err
	}
	f.StallMs, g.longest = millis(g.longest), 0
	if err := w.Blackhole(uplink, emu.Both, false); err != nil {
		return f, err
	}
	if f.BackMs, err = b.reuse(w, g, uplink); err != nil {
		return f, err
	}
	_, err = b.until(g, after, never)
	f.ReturnMs = millis(g.longest)
	return f, err
}

// reuse waits until the uplink carries payload again.
func (b *bench) reuse(w *world, g *gaps, uplink string) (float64, error) {
	s, err := w.Counters(uplink)
	if err != nil {
		return 0, err
	}
	base := s.Down.Counters.Forwarded.Bytes
	took, err := b.until(g, backMost, func() (bool, error) {
		s, err := w.Counters(uplink)
		return s.Down.Counters.Forwarded.Bytes >= base+backBytes, err
	})
	return millis(took), err
}

func never() (bool, error) { return false, nil }

// until looks again and again, at the flow's progress too, until done says so
// or the time is over. It returns how long that took.
func (b *bench) until(g *gaps, limit time.Duration, done func() (bool, error)) (time.Duration, error) {
	began := time.Now()
	for {
		g.look()
		ok, err := done()
		took := time.Since(began)
		if ok || err != nil || took >= limit {
			return took, err
		}
		if err := b.sleep(look); err != nil {
			return took, err
		}
	}
}

// gaps watches a load for the longest time without progress, to about look.
type gaps struct {
	load    *load
	last    int64
	since   time.Time
	longest time.Duration
}

func (g *gaps) look() {
	n, now := g.load.count.Load(), time.Now()
	if n == g.last {
		g.longest = max(g.longest, now.Sub(g.since))
		return
	}
	g.last, g.since = n, now
}

// lossesOf is how often the sender, the cloud, has found an uplink silent.
func (w *world) lossesOf(uplink string) (uint64, error) {
	s, err := w.pair.Status("cloud")
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(s.Sessions[0].Links, func(l admin.Link) bool { return l.Name == uplink })
	if i < 0 {
		return 0, fmt.Errorf("the cloud has no link %s", uplink)
	}
	return s.Sessions[0].Links[i].Losses, nil
}
