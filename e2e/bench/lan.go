package main

import (
	"errors"
	"fmt"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Times of one reading on a poor LAN.
const (
	lanFirst  = 700 * ms
	lanSteady = 2500 * ms
	lanQueue  = 20 * ms // of a line with a rate
)

// poorLAN is one condition of the clients' line.
type poorLAN struct {
	RTT  time.Duration `json:"rtt"`
	Loss float64       `json:"loss"`
}

func (p poorLAN) String() string { return fmt.Sprintf("%v, %.1f %%", p.RTT, 100*p.Loss) }

// poorLANs are the conditions that issue 3 names.
func poorLANs() (out []poorLAN) {
	for _, loss := range []float64{0.001, 0.01} {
		for _, rtt := range []time.Duration{300 * time.Microsecond, 3 * ms, 10 * ms} {
			out = append(out, poorLAN{rtt, loss})
		}
	}
	return out
}

// lanKind is what is lost and who sends.
type lanKind struct {
	title string
	kind  byte  // of the request
	rate  int64 // of the line, in bit/s; 0: without limit
	whole bool  // whole frames as the host hands them over, of up to 64 KB
	hosts []host
	note  string
}

func (b *bench) lan() (*report, error) {
	return b.lanTable(lanKind{
		title: "lan: a download over a LAN that loses packets, one flow",
		kind:  download, hosts: []host{hosts[0], hosts[2]},
		note: "senders hand over frames of up to 64 KB; the line cuts them to packets and loses single ones of 1500 bytes",
	})
}

func (b *bench) lanWiFi() (*report, error) {
	return b.lanTable(lanKind{
		title: "lan-wifi: a download over a LAN of 200 Mbit/s that loses packets, one flow",
		kind:  download, rate: 200e6, hosts: []host{hosts[0], hosts[2]},
		note: "as lan, at the rate of a good Wi-Fi; the queue holds 20 ms, and what it cannot hold is lost, too",
	})
}

func (b *bench) lanFrames() (*report, error) {
	return b.lanTable(lanKind{
		title: "lan-frames: a download over a LAN that loses whole GSO frames, one flow",
		kind:  download, whole: true, hosts: hosts[:1],
		note: "what is lost is a frame as the sender handed it over, up to 64 KB; without tproxy, whose socket would hear of the loss at once",
	})
}

func (b *bench) lanUp() (*report, error) {
	return b.lanTable(lanKind{
		title: "lan-up: an upload over a LAN that loses packets, one flow",
		kind:  upload, hosts: []host{hosts[0], hosts[2]},
		note: "the client sends with Cubic in all rows",
	})
}

// lanRow is the readings of one way under one condition.
type lanRow struct {
	poorLAN
	Way  string   `json:"way"`
	Runs []window `json:"runs"`
}

func (r *lanRow) mbps() float64 {
	return median(each(r.Runs, func(w window) float64 { return w.mbps() }))
}

// lanTable measures a client on a line that loses, beside the kernel's Cubic on
// the same line.
func (b *bench) lanTable(k lanKind) (*report, error) {
	r := &report{
		Title: k.title,
		Head:  []string{"round trip, loss", "way", "Mbit/s", "of Cubic beside it", "CPU-s/GB edge"},
		Notes: []string{k.note,
			"Cubic: a plain kernel sender over the same LAN, not through hawser; tproxy sends with the kernel's default congestion control"},
	}
	var all []*lanRow
	for _, h := range k.hosts {
		rows, err := b.lanOn(k, h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		r.lanRows(h, rows)
		all = append(all, rows...)
	}
	r.Raw = all
	return r, nil
}

// lanRows adds the rows of one world: hawser and Cubic in turn.
func (r *report) lanRows(h host, rows []*lanRow) {
	for i := 0; i+1 < len(rows); i += 2 {
		own, cubic := rows[i], rows[i+1]
		share := own.mbps() / cubic.mbps()
		for _, row := range []*lanRow{own, cubic} {
			cpu, of := "", ""
			if row == own {
				cpu = fmt.Sprintf("%.2f", median(each(row.Runs, func(w window) float64 { return w.perGB(w.Edge) })))
				of = fmt.Sprintf("%.2f", share)
			}
			r.add(row.String(), row.Way, spread("%.1f", each(row.Runs, func(w window) float64 { return w.mbps() })), of, cpu)
		}
		if h.intercept == "hub" {
			r.Gates = append(r.Gates, gate{What: fmt.Sprintf("hub beside Cubic, %v", own.poorLAN), Got: share, Want: 1})
		}
	}
}

// lanOn measures one kind of host under all conditions.
func (b *bench) lanOn(k lanKind, h host) ([]*lanRow, error) {
	spec := lab.Spec{Name: "bench", Uplinks: bareLines(), Seed: 1, Tick: 50 * time.Microsecond, LAN: &lab.Uplink{Name: "lan", Rate: k.rate}}
	if k.rate > 0 {
		spec.LAN.Queue = lanQueue
	}
	w, err := openSpec(spec, pair.Options{Intercept: h.intercept, Egress: h.egress})
	if err != nil {
		return nil, err
	}
	var rows []*lanRow
	for _, p := range poorLANs() {
		more, err := b.lanUnder(w, k, h, p)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%v: %w", p, err), w.close())
		}
		rows = append(rows, more...)
	}
	return rows, w.close()
}

// lanUnder measures hawser and Cubic in turn under one condition.
func (b *bench) lanUnder(w *world, k lanKind, h host, p poorLAN) ([]*lanRow, error) {
	undo, err := w.spoil(k, p)
	if err != nil {
		return nil, err
	}
	rows := []*lanRow{{poorLAN: p, Way: h.name}, {poorLAN: p, Way: "direct, cubic"}}
	ways := []way{{}, {direct: true, congestion: "cubic"}}
	if k.kind == upload {
		ways[0].congestion = "cubic"
	}
	for range b.runs {
		for i, v := range ways {
			m, err := b.bulk(w, v, request{kind: k.kind}, 1, phases{lanFirst, lanSteady})
			if err != nil {
				return nil, errors.Join(err, undo())
			}
			rows[i].Runs = append(rows[i].Runs, m.Steady)
		}
	}
	return rows, undo()
}

// spoil makes the LAN lose what is sent in the direction of the payload.
func (w *world) spoil(k lanKind, p poorLAN) (undo func() error, err error) {
	lossy := emu.Down // from the edge to the client
	if k.kind == upload {
		lossy = emu.Up
	}
	if err := w.Set("lan", emu.Both, emu.SetDelay(p.RTT/2)); err != nil {
		return nil, err
	}
	if !k.whole {
		undo = func() error { return w.Set("lan", lossy, emu.SetLoss(0)) }
		return undo, w.Set("lan", lossy, emu.SetLoss(p.Loss))
	}
	rule := func(verb string) error {
		_, err := w.Exec("edge", "iptables", "-t", "mangle", verb, "FORWARD", "-o", "lan0", "-p", "tcp",
			"-m", "statistic", "--mode", "random", "--probability", fmt.Sprint(p.Loss), "-j", "DROP")
		return err
	}
	return func() error { return rule("-D") }, rule("-A")
}
