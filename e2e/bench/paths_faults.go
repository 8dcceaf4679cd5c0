package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

// faultKind is a way in which an uplink dies silently, again and again.
type faultKind struct {
	name string
	dir  emu.Direction
	idle bool // without a bulk flow
	part int  // of this many faults one is of this kind, measured against the first kind
}

var faultKinds = []faultKind{
	{"both ways", emu.Both, false, 1},
	{"towards the edge only", emu.Down, false, 2},
	{"towards the cloud only", emu.Up, false, 2},
	{"both ways in an idle tunnel", emu.Both, true, 2},
}

// Times of the faults.
const (
	cutFor     = time.Second
	calmFor    = 700 * ms // and a random phase as long
	backLimit  = 5 * time.Second
	fetchEvery = 25 * ms
	smallFetch = 1000 // bytes of the object that new connections ask for
)

// faultReading is all faults of one kind.
type faultReading struct {
	Kind     string    `json:"kind"`
	StallMs  []float64 `json:"stall_ms"`  // of the bulk flow, by fault
	BackMs   []float64 `json:"back_ms"`   // from the repair until the uplink is used again, by fault
	NormalMs []float64 `json:"normal_ms"` // new connections while all is well, connect to last byte
	FaultMs  []float64 `json:"fault_ms"`  // those begun during a fault

	dead [][2]time.Time // the faults
}

// measureFaults cuts each uplink in turn under a bulk download and new
// connections.
func (b *bench) measureFaults(transport string, faults int, kinds []faultKind) (int, error) {
	began := begin()
	lines := unlikeLines().uplinks
	t := &report{
		Title: fmt.Sprintf("faults: %s, hawser-%s; an uplink dies silently for %v, in turn; ms", unlikeLines().name, transport, cutFor),
		Head:  []string{"fault", "faults", "bulk stall p50", "p95", "max", "new connection, normal p50", "p99", "during a fault p50", "p99", "max", "used again after p50", "max"},
	}
	var raw []*faultReading
	for _, k := range kinds {
		f, err := b.readFaults(lines, transport, k, max(faults/k.part, 2))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", k.name, err)
		}
		raw = append(raw, f)
		cells := []string{k.name, fmt.Sprint(len(f.BackMs))}
		for _, v := range []float64{
			quantile(f.StallMs, 0.5), quantile(f.StallMs, 0.95), quantile(f.StallMs, 1), quantile(f.NormalMs, 0.5), quantile(f.NormalMs, 0.99),
			quantile(f.FaultMs, 0.5), quantile(f.FaultMs, 0.99), quantile(f.FaultMs, 1), quantile(f.BackMs, 0.5), slices.Max(f.BackMs),
		} {
			cells = append(cells, fmt.Sprintf("%.0f", v))
		}
		t.add(cells...)
		f.gates(t, k)
	}
	t.Raw = raw
	began.finish(t)
	t.print(os.Stdout)
	return t.missed(), t.save(b.out, "paths-faults-"+transport)
}

func (f *faultReading) gates(t *report, k faultKind) {
	most := func(what string, got, want float64) {
		t.Gates = append(t.Gates, gate{What: k.name + ": " + what, Got: got, Want: want, Most: true, Unit: " ms"})
	}
	if !k.idle {
		most("stall p50", quantile(f.StallMs, 0.5), 160)
		most("stall p95", quantile(f.StallMs, 0.95), 500)
	}
	most("new connections p99", quantile(f.FaultMs, 0.99), quantile(f.NormalMs, 0.99)+500)
	most("used again, at most", slices.Max(f.BackMs), 1000)
}

// readFaults takes one reading.
func (b *bench) readFaults(lines []lab.Uplink, transport string, k faultKind, faults int) (f *faultReading, err error) {
	w, err := openRival(scenario{uplinks: lines}, rival{transport: transport}, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	f = &faultReading{Kind: k.name}
	dial := w.dialerOf(rival{transport: transport})
	var g *progress
	if !k.idle {
		flow, err := w.startFlow(dial, "", false, "")
		if err != nil {
			return nil, err
		}
		defer flow.close()
		g = &progress{count: flow.count, last: flow.count.Load(), since: time.Now()}
	}
	p := &prober{}
	stop := make(chan struct{})
	p.wg.Go(func() { p.run(dial, stop) })
	defer p.wg.Wait()
	defer close(stop)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range faults {
		calm := calmFor + time.Duration(rng.Int64N(int64(calmFor)))
		if i == 0 {
			calm += 2 * time.Second
		}
		if err := b.oneFault(w, lines[i%len(lines)].Name, k, calm, g, f); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen {
		if f.during(s.at) {
			f.FaultMs = append(f.FaultMs, s.ms)
		} else {
			f.NormalMs = append(f.NormalMs, s.ms)
		}
	}
	return f, nil
}

// during reports whether something was begun during a fault. What was begun in
// the second after one is counted as such, too.
func (f *faultReading) during(at time.Time) bool {
	return slices.ContainsFunc(f.dead, func(d [2]time.Time) bool {
		return at.After(d[0]) && at.Before(d[1].Add(time.Second))
	})
}

// prober opens new connections all the time, several at once, so that one that
// hangs does not hide the others.
type prober struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	seen []probed
}

type probed struct {
	at time.Time
	ms float64
}

func (p *prober) run(dial dialer, stop <-chan struct{}) {
	tick := time.NewTicker(fetchEvery)
	defer tick.Stop()
	var under sync.WaitGroup
	defer under.Wait()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		under.Go(func() {
			at := time.Now()
			took, err := fetchOne(dial, "", "", smallFetch)
			if err != nil {
				took = fetchLimit
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.seen = append(p.seen, probed{at, millis(took)})
		})
	}
}

// watch lets time pass and watches the bulk flow, if there is one.
func (b *bench) watch(g *progress, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := b.sleep(min(progressEvery, d)); err != nil {
			return err
		}
		if g != nil {
			g.look()
		}
	}
	return nil
}

func (w *world) downBytes(uplink string) (uint64, error) {
	s, err := w.Counters(uplink)
	return s.Down.Counters.Forwarded.Bytes, err
}

// inUse reports whether an uplink carries payload again or, in an idle tunnel,
// whether both ends take it for alive.
func (w *world) inUse(uplink string, idle bool, base uint64) (bool, error) {
	if !idle {
		n, err := w.downBytes(uplink)
		return n >= base+backBytes, err
	}
	for _, role := range []string{"edge", "cloud"} {
		s, err := w.pair.Status(role)
		if err != nil {
			return false, err
		}
		for _, l := range s.Sessions[0].Links {
			if l.Name == uplink && l.State != "up" {
				return false, nil
			}
		}
	}
	return true, nil
}

// oneFault cuts an uplink once.
func (b *bench) oneFault(w *world, uplink string, k faultKind, calm time.Duration, g *progress, f *faultReading) error {
	if err := b.watch(g, calm); err != nil {
		return err
	}
	if g != nil {
		g.longest = 0
	}
	cut := time.Now()
	if err := w.Blackhole(uplink, k.dir, true); err != nil {
		return err
	}
	if err := b.watch(g, cutFor); err != nil {
		return err
	}
	if g != nil {
		f.StallMs = append(f.StallMs, millis(g.longest))
	}
	if err := w.Blackhole(uplink, k.dir, false); err != nil {
		return err
	}
	back := time.Now()
	f.dead = append(f.dead, [2]time.Time{cut, back})
	base, err := w.downBytes(uplink)
	if err != nil {
		return err
	}
	for time.Since(back) < backLimit {
		used, err := w.inUse(uplink, k.idle, base)
		if err != nil {
			return err
		}
		if used {
			break
		}
		if err := b.watch(g, 5*ms); err != nil {
			return err
		}
	}
	f.BackMs = append(f.BackMs, millis(time.Since(back)))
	return nil
}
