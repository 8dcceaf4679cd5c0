package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// crowdTables are what `bench crowd` measures.
var crowdTables = []table{
	{name: "memory", measure: (*bench).memory},
	{name: "slow", measure: (*bench).slow},
	{name: "workers", measure: (*bench).workers},
	{name: "dead", measure: (*bench).dead},
}

// measureCrowd measures what very many flows cost.
func (b *bench) measureCrowd(args []string) (missed int, err error) {
	f := flag.NewFlagSet("bench crowd", flag.ContinueOnError)
	only := f.String("only", "", "tables to measure, separated by commas; empty: all")
	f.IntVar(&b.runs, "runs", 3, "runs of which the median is shown")
	f.IntVar(&b.flows, "flows", idleFlows, "flows at rest")
	f.IntVar(&b.readers, "readers", slowReaders, "clients of table slow")
	f.IntVar(&b.budget, "memory", budgetMB, "both agents' budget in table slow, in MB")
	f.StringVar(&b.racers, "racers", "", "ways of table slow, by a part of their names; empty: all")
	f.StringVar(&b.out, "out", "bench-results", "directory of the raw readings")
	if err := f.Parse(args); err != nil {
		return 0, err
	}
	b.runs, b.flows = max(b.runs, 1), max(b.flows, 1)
	return b.measure(crowdTables, *only)
}

const (
	// idleFlows is how many flows rest at a time.
	idleFlows = 100_000
	// idleClients is how many client addresses they come from.
	idleClients = 8
	// restTime is how long flows rest before memory is read: agents give back
	// what a rush has left behind some seconds after it.
	restTime = 20 * time.Second
	// Bounds of the resident memory of one flow at rest, in bytes, and of what
	// is left after all have ended, as a share of the start.
	hubFlow, socketFlow, leftover = 6 << 10, 2560, 1.10
)

// idleRow is one world's reading.
type idleRow struct {
	Way    string        `json:"way"`
	Flows  int           `json:"flows"`
	Opened time.Duration `json:"opened"`
	Before footprint     `json:"before"`
	During footprint     `json:"during"`
	After  footprint     `json:"after"`
}

// footprint is resident memory and kernel slabs, in bytes.
type footprint struct{ Edge, Cloud, Slab int64 }

// each is what one of n flows takes of a figure, in bytes.
func (r *idleRow) each(of func(footprint) int64) float64 {
	return float64(of(r.During)-of(r.Before)) / float64(r.Flows)
}

func edgeOf(f footprint) int64  { return f.Edge }
func cloudOf(f footprint) int64 { return f.Cloud }
func slabOf(f footprint) int64  { return f.Slab }

// memory measures what flows at rest take.
func (b *bench) memory() (*report, error) {
	r := &report{
		Title: "memory: flows that have exchanged some bytes and rest",
		Head:  []string{"way", "flows", "opened in", "edge KB/flow", "cloud KB/flow", "slabs of all KB/flow", "edge MB start, full, after", "cloud MB start, full, after"},
	}
	var rows []*idleRow
	for _, h := range []host{{"hub to hub", "hub", "hub"}, {"tproxy to socket", "tproxy", "socket"}} {
		more, err := b.idleOn(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		rows = append(rows, more...)
	}
	r.Raw = rows
	for _, row := range rows {
		r.idleRow(row)
	}
	r.Notes = append(r.Notes,
		"each flow has carried a hello and its echo; memory is read "+restTime.String()+" later",
		"slabs: the whole machine's, clients' and servers' sockets included; the direct row has these and the hosts' connection tracking only",
	)
	return r, nil
}

func (r *report) idleRow(row *idleRow) {
	kb := func(of func(footprint) int64) string { return fmt.Sprintf("%.2f", row.each(of)/1024) }
	mb := func(of func(footprint) int64) string {
		return fmt.Sprintf("%.1f, %.1f, %.1f", mega(of(row.Before)), mega(of(row.During)), mega(of(row.After)))
	}
	direct := row.Way == directWay
	if direct {
		r.add(row.Way, strconv.Itoa(row.Flows), row.Opened.Round(100*ms).String(), "-", "-", kb(slabOf), "-", "-")
		return
	}
	r.add(row.Way, strconv.Itoa(row.Flows), row.Opened.Round(100*ms).String(), kb(edgeOf), kb(cloudOf), kb(slabOf), mb(edgeOf), mb(cloudOf))
	edge, cloud := float64(socketFlow), float64(socketFlow)
	if strings.HasPrefix(row.Way, "hub") {
		edge, cloud = hubFlow, hubFlow
	}
	for _, g := range []struct {
		agent string
		of    func(footprint) int64
		bound float64
	}{{"edge", edgeOf, edge}, {"cloud", cloudOf, cloud}} {
		r.Gates = append(r.Gates,
			gate{What: row.Way + ", " + g.agent + ", one flow at rest", Got: row.each(g.of) / 1024, Want: g.bound / 1024, Most: true, Unit: " KB"},
			gate{What: row.Way + ", " + g.agent + ", memory after all have ended", Got: float64(g.of(row.After)) / float64(g.of(row.Before)), Want: leftover, Most: true, Unit: " of the start"})
	}
}

const directWay = "direct, beside it"

func mega(n int64) float64 { return float64(n) / (1 << 20) }

// idleOn measures one kind of host, and the direct way beside it.
func (b *bench) idleOn(h host) (rows []*idleRow, err error) {
	w, err := openWith(bareLines(), idleClients, pair.Options{Intercept: h.intercept, Egress: h.egress,
		Connects: "{edge_rate: 1000000, server_rate: 1000000}"}) // as if the crowd came for the servers of a whole town
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	flows := b.flows
	if h.intercept != "hub" || h.egress != "hub" {
		flows = min(flows, w.socketFlows())
	}
	row, err := b.idle(w, h.name, flows, ownPort)
	if err != nil {
		return nil, err
	}
	err = w.service.close() // its port is the direct one
	w.service = nil
	if err != nil {
		return nil, err
	}
	direct, err := b.idle(w, directWay, flows, func(int) int { return pair.DirectPort })
	return []*idleRow{row, direct}, err
}

// socketFlows is how many flows an agent with a descriptor per flow can have.
func (w *world) socketFlows() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", w.pair.Edge.Pid()))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if n, err := strconv.Atoi(strings.Fields(rest)[0]); err == nil {
				return n - 2048
			}
		}
	}
	return crowdShare
}

// idle opens flows, lets them rest and ends them.
func (b *bench) idle(w *world, way string, flows int, port func(int) int) (*idleRow, error) {
	servers, at, err := w.servers((flows+crowdShare-1)/crowdShare, port)
	if err != nil {
		return nil, err
	}
	row := &idleRow{Way: way, Flows: flows}
	err = b.idleWith(w, row, slices.Compact(at)) // once where they share a port
	return row, errors.Join(err, servers.dismiss())
}

func (b *bench) idleWith(w *world, row *idleRow, at []netip.AddrPort) (err error) {
	if err := b.sleep(restTime); err != nil {
		return err
	}
	if row.Before, err = w.footprint(); err != nil {
		return err
	}
	began := time.Now()
	clients, err := w.clients(row.Flows, at)
	if err != nil {
		return errors.Join(err, w.ended())
	}
	row.Opened = time.Since(began)
	err = b.sleep(restTime)
	if err == nil {
		row.During, err = w.footprint()
	}
	if err = errors.Join(err, clients.dismiss()); err != nil {
		return err
	}
	if err := w.pair.WaitIdle(time.Minute); err != nil {
		return err
	}
	if err := b.sleep(restTime); err != nil {
		return err
	}
	row.After, err = w.footprint()
	return err
}

// ended says why the agents have ended connections or not begun them.
func (w *world) ended() error {
	var errs []error
	for _, role := range []string{"edge", "cloud"} {
		st, err := w.pair.Status(role)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var said []string
		for _, name := range slices.Sorted(maps.Keys(st.Counters)) {
			why, _, _ := strings.Cut(name, "_")
			if n := st.Counters[name]; n > 0 && slices.Contains([]string{"guard", "resets", "egress", "hub", "flows", "kernel"}, why) {
				said = append(said, fmt.Sprintf("%s %d", name, n))
			}
		}
		errs = append(errs, fmt.Errorf("%s: %s", role, strings.Join(said, ", ")))
	}
	return errors.Join(errs...)
}

// footprint reads memory now.
func (w *world) footprint() (f footprint, err error) {
	var err1, err2, err3 error
	f.Edge, err1 = resident(w.pair.Edge)
	f.Cloud, err2 = resident(w.pair.Cloud)
	f.Slab, err3 = kilobytes("/proc/meminfo", "Slab:")
	return f, errors.Join(err1, err2, err3)
}

// resident is a process's resident memory in bytes.
func resident(p *lab.Proc) (int64, error) {
	return kilobytes(fmt.Sprintf("/proc/%d/status", p.Pid()), "VmRSS:")
}

// kilobytes reads a line of a file under /proc, in bytes.
func kilobytes(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no line %s", file, name)
}
