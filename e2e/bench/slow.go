package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

const (
	// slowReaders is how many clients read slowly, slowRate how much each reads
	// per second, slowObject what each has asked for, in bytes.
	slowReaders, slowRate, slowObject = 10_000, 1 << 10, 10 << 20
	// slowBuffer is a slow client's receive buffer (SO_RCVBUF), and the servers'
	// send buffer: ten thousand of the kernel's choice would be gigabytes.
	slowBuffer = 16 << 10
	// paced is the rate of the other flow, in bytes per second, and pacedTick how
	// often its client reads.
	paced, pacedTick = 12_500_000, 10 * ms
	// slowPings is how many round trips of another flow are timed.
	slowPings = 300
	// stuckTime and slowTime are how long the agents are watched while nobody
	// reads, and while all do.
	stuckTime, slowTime = 10 * time.Second, 15 * time.Second
	// budgetMB is `memory` of both agents: their default.
	budgetMB = 512
)

// slowLines have room for the slow readers and the others.
func slowLines() []lab.Uplink {
	return []lab.Uplink{{Name: "wifi", Rate: 200e6, Delay: 10 * ms}, {Name: "lte", Rate: 200e6, Delay: 10 * ms}}
}

// others is how flows fare that are not slow.
type others struct {
	Mbps float64   `json:"mbit_per_s"`
	Ms   []float64 `json:"round_trips_ms"`
}

// slowRow is one world's reading.
type slowRow struct {
	Way             string        `json:"way"`
	Alone, Beside   others        // without slow readers, and while they read
	Still           others        // beside slow readers of which none reads
	Before, Stuck   footprint     // before they came, and while none reads
	Reading         footprint     // the most while they read
	StuckCPU        [2]float64    `json:"stuck_cpu"`  // share of a core, edge and cloud
	BesideCPU       [2]float64    `json:"beside_cpu"` // the same with the others, while they read
	Opened          time.Duration `json:"opened"`
	PerReader       float64       `json:"bytes_per_s_and_reader"`
	Ended           int           `json:"ended"` // slow readers whose connection broke
	EdgeUsed, Limit uint64
}

// slow measures what clients that hardly read do to the agents and to others.
func (b *bench) slow() (*report, error) {
	r := &report{
		Title: fmt.Sprintf("slow readers: %d clients that read 1 KB/s of 10 MB each from fast servers, 2 x 200 Mbit/s, 20 ms, budget %d MB", b.readers, b.budget),
		Head:  []string{"way", "edge MB before, stuck, reading", "cloud MB before, stuck, reading", "CPU % of a core while stuck, edge, cloud", "while they read", "other flow Mbit/s alone, while stuck, while they read", "ping ms p50, the same", "p99", "B/s per reader"},
	}
	var rows []*slowRow
	for _, h := range []host{{"hub to hub", "hub", "hub"}, {"tproxy to socket", "tproxy", "socket"}} {
		if !strings.Contains(h.name, b.racers) {
			continue
		}
		row, err := b.slowOn(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		rows = append(rows, row)
		b.slowRow(r, row)
	}
	r.Raw = rows
	r.Notes = append(r.Notes,
		"the other flow reads 100 Mbit/s; ping-pong of 64 bytes on a third one; clients and servers of the crowd have socket buffers of 16 KB",
		"stuck: all windows are full and nobody reads")
	return r, nil
}

func (b *bench) slowRow(r *report, row *slowRow) {
	mb := func(of func(footprint) int64) string {
		return fmt.Sprintf("%.0f, %.0f, %.0f", mega(of(row.Before)), mega(of(row.Stuck)), mega(of(row.Reading)))
	}
	three := func(format string, of func(others) float64) string {
		return fmt.Sprintf(format+", "+format+", "+format, of(row.Alone), of(row.Still), of(row.Beside))
	}
	cpu := func(c [2]float64) string { return fmt.Sprintf("%.1f, %.1f", 100*c[0], 100*c[1]) }
	mbps := func(o others) float64 { return o.Mbps }
	p50 := func(o others) float64 { return quantile(o.Ms, 0.5) }
	p99 := func(o others) float64 { return quantile(o.Ms, 0.99) }
	r.add(row.Way, mb(edgeOf), mb(cloudOf), cpu(row.StuckCPU), cpu(row.BesideCPU),
		three("%.1f", mbps), three("%.2f", p50), three("%.2f", p99), fmt.Sprintf("%.0f", row.PerReader))
	most := max(row.Stuck.Edge, row.Stuck.Cloud, row.Reading.Edge, row.Reading.Cloud)
	r.Gates = append(r.Gates, gate{What: row.Way + ", resident memory of either agent", Got: mega(most), Want: float64(b.budget), Most: true, Unit: " MB"})
	for _, o := range []struct {
		while string
		others
	}{{"while nobody reads", row.Still}, {"while all read", row.Beside}} {
		r.Gates = append(r.Gates,
			gate{What: row.Way + ", goodput of another flow " + o.while + ", to that alone", Got: o.Mbps / row.Alone.Mbps, Want: 0.95},
			gate{What: row.Way + ", its p50 round trip " + o.while + ", to that alone", Got: p50(o.others) / p50(row.Alone), Want: 1.05, Most: true})
	}
	r.Gates = append(r.Gates,
		gate{What: row.Way + ", CPU of either agent while nothing can move", Got: 100 * max(row.StuckCPU[0], row.StuckCPU[1]), Want: 5, Most: true, Unit: " % of a core"},
		gate{What: row.Way + ", slow readers whose connection broke", Got: float64(row.Ended), Want: 0, Most: true})
}

// slowOn measures one kind of host.
func (b *bench) slowOn(h host) (row *slowRow, err error) {
	w, err := openWith(slowLines(), 2, pair.Options{Intercept: h.intercept, Egress: h.egress, Memory: fmt.Sprintf("%dMiB", b.budget)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	servers, at, err := w.servers(2, ownPort, "-flood", strconv.Itoa(slowObject), "-buffer", strconv.Itoa(slowBuffer))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, servers.dismiss()) }()
	row = &slowRow{Way: h.name}
	if row.Before, err = w.footprint(); err != nil {
		return nil, err
	}
	if row.Alone, err = b.othersFare(w); err != nil {
		return nil, err
	}
	began := time.Now()
	clients, err := w.clients(b.readers, at, "-rate", strconv.Itoa(slowRate), "-buffer", strconv.Itoa(slowBuffer))
	if err != nil {
		return nil, err
	}
	row.Opened = time.Since(began)
	err = b.slowPhases(w, row, clients)
	return row, errors.Join(err, clients.dismiss())
}

// slowPhases watches the agents while nobody reads, then while all do.
func (b *bench) slowPhases(w *world, row *slowRow, clients *crew) (err error) {
	if err := b.sleep(restTime); err != nil { // windows fill, the rush is over
		return err
	}
	if row.StuckCPU, err = w.spent(func() error { return b.sleep(stuckTime) }); err != nil {
		return err
	}
	if row.Stuck, err = w.footprint(); err != nil {
		return err
	}
	if row.Still, err = b.othersFare(w); err != nil {
		return err
	}
	for _, m := range clients.members {
		if _, err := io.WriteString(m.in, "read\n"); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := b.sleep(3 * time.Second); err != nil {
		return err
	}
	row.BesideCPU, err = w.spent(func() (err error) { row.Beside, err = b.othersFare(w); return err })
	if err != nil {
		return err
	}
	for {
		f, err := w.footprint()
		if err != nil {
			return err
		}
		row.Reading.Edge, row.Reading.Cloud = max(row.Reading.Edge, f.Edge), max(row.Reading.Cloud, f.Cloud)
		if time.Since(began) >= slowTime {
			break
		}
		if err := b.sleep(time.Second); err != nil {
			return err
		}
	}
	took := time.Since(began)
	if s, err := w.pair.Status("edge"); err == nil {
		row.EdgeUsed, row.Limit = s.Memory.Used, s.Memory.Budget
	}
	for _, m := range clients.members {
		if err := m.in.Close(); err != nil {
			return err
		}
		words, err := m.hear("read")
		if err != nil {
			return err
		}
		bytes, _ := strconv.ParseFloat(words[0], 64)
		ended, _ := strconv.Atoi(words[1])
		row.PerReader += bytes / float64(b.readers) / took.Seconds()
		row.Ended += ended
	}
	return nil
}

// spent is what the agents use of a core during f.
func (w *world) spent(f func() error) (share [2]float64, err error) {
	before, err1 := w.cpu()
	began := time.Now()
	err2 := f()
	after, err3 := w.cpu()
	for i := range share {
		share[i] = (after[i] - before[i]).Seconds() / time.Since(began).Seconds()
	}
	return share, errors.Join(err1, err2, err3)
}

// cpu is the processor time of both agents.
func (w *world) cpu() ([2]time.Duration, error) {
	eu, es, err1 := w.pair.Edge.CPU()
	cu, cs, err2 := w.pair.Cloud.CPU()
	return [2]time.Duration{eu + es, cu + cs}, errors.Join(err1, err2)
}

// othersFare runs a flow that reads at a fixed rate and one that plays
// ping-pong.
func (b *bench) othersFare(w *world) (o others, err error) {
	c, _, err := w.dial(way{})
	if err != nil {
		return o, err
	}
	defer c.Close()
	if _, err := c.Write(request{kind: download}.encode()); err != nil {
		return o, err
	}
	done := make(chan float64, 1)
	go pacedRead(c, 8*time.Second, done)
	us, err := w.pingN(way{}, slowPings)
	if errors.Is(err, os.ErrDeadlineExceeded) { // a busy machine: the last one took as long as all may
		us, err = append(us, float64(fetchLimit.Microseconds())), nil
	}
	for _, x := range us {
		o.Ms = append(o.Ms, x/1000)
	}
	o.Mbps = <-done
	return o, err
}

// pacedRead reads at a fixed rate for a time, after a second in which windows
// open, and tells what came per second.
func pacedRead(c *net.TCPConn, d time.Duration, done chan<- float64) {
	b := make([]byte, 1<<20)
	tick := time.NewTicker(pacedTick)
	defer tick.Stop()
	began := time.Now()
	var from time.Time
	var got, base, due int64
	for time.Since(began) < d {
		<-tick.C
		due = int64(time.Since(began).Seconds() * paced)
		_ = c.SetReadDeadline(time.Now().Add(pacedTick / 2))
		for due > got {
			n, err := c.Read(b[:min(int64(len(b)), due-got)])
			got += int64(n)
			if err != nil {
				break
			}
		}
		if from.IsZero() && time.Since(began) > time.Second {
			from, base = time.Now(), got
		}
	}
	done <- float64(got-base) * 8 / 1e6 / time.Since(from).Seconds()
}
