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
	f.StringVar(&b.racers, "racers", "", "ways of tables memory and slow, by a part of their names; empty: all")
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
	// ebbTime is how long after the last has ended: very many take the agents longer to
	// be done with, and what there is to collect then as well.
	ebbTime = time.Minute
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

// restingWay is a way whose flows at rest are measured.
type restingWay struct {
	name  string
	most  float64 // bytes of a flow at each agent
	files int     // descriptors of a flow at each agent
	open  func(servers int) (*world, error)
}

var restingWays = []restingWay{
	{"hub to hub", hubFlow, 0, restingPair("hub", "hub")},
	{"tproxy to socket", socketFlow, 1, restingPair("tproxy", "socket")},
	{"stand-alone relay", socketFlow, 2, restingRelay},
}

// restingPair opens worlds with both agents.
func restingPair(intercept, egress string) func(int) (*world, error) {
	return func(int) (*world, error) {
		return openWith(bareLines(), idleClients, pair.Options{Intercept: intercept, Egress: egress,
			Connects: "{edge_rate: 1000000, server_rate: 1000000}"}) // as if the crowd came for the servers of a whole town
	}
}

// restingRelay opens a world with both sides of the stand-alone relay before so many
// servers, which listen on a port each.
func restingRelay(servers int) (*world, error) {
	l, err := lab.New(lab.Spec{Name: "bench", Uplinks: bareLines()[:1], Seed: 1, Clients: idleClients})
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l, clientNodes: idleClients}
	var forwards []pair.Forward
	for i := range servers {
		at := uint16(ownPort(i))
		forwards = append(forwards, pair.Forward{Port: at, To: netip.AddrPortFrom(l.Address("origin", lab.IPv4), at)})
	}
	r, err := pair.NewRelay(l, forwards...)
	if err == nil {
		w.relay = r
		err = r.Start()
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.carrier = ofRelay(l, r)
	return w, nil
}

// memory measures what flows at rest take.
func (b *bench) memory() (*report, error) {
	r := &report{
		Title: "memory: flows that have exchanged some bytes and rest",
		Head: []string{"way", "flows", "opened in", "edge KB/flow", "cloud KB/flow", "kernel's slabs KB/flow", "beyond the direct way's",
			"edge MB start, full, after", "cloud MB start, full, after"},
	}
	var all []*idleRow
	for _, v := range restingWays {
		if !strings.Contains(v.name, b.racers) {
			continue
		}
		row, direct, err := b.idleOn(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		r.idleRows(v, row, direct)
		all = append(all, row, direct)
	}
	r.Raw = all
	r.Notes = append(r.Notes,
		"each flow has carried a hello and its echo; memory is read "+restTime.String()+" later, and "+ebbTime.String()+" after the last has ended",
		"the kernel's slabs are the whole machine's: clients' and servers' sockets, and for direct flows the hosts' connection tracking; what is beyond those of direct flows is what the pair adds, at both hosts together",
	)
	return r, nil
}

// idleRows adds a way and the direct one beside it.
func (r *report) idleRows(v restingWay, row, direct *idleRow) {
	kb := func(row *idleRow, of func(footprint) int64) string { return fmt.Sprintf("%.2f", row.each(of)/1024) }
	mb := func(of func(footprint) int64) string {
		return fmt.Sprintf("%.1f, %.1f, %.1f", mega(of(row.Before)), mega(of(row.During)), mega(of(row.After)))
	}
	opened := func(row *idleRow) string { return row.Opened.Round(100 * ms).String() }
	r.add(row.Way, strconv.Itoa(row.Flows), opened(row), kb(row, edgeOf), kb(row, cloudOf), kb(row, slabOf),
		fmt.Sprintf("%.2f", (row.each(slabOf)-direct.each(slabOf))/1024), mb(edgeOf), mb(cloudOf))
	r.add(direct.Way, strconv.Itoa(direct.Flows), opened(direct), "-", "-", kb(direct, slabOf), "", "-", "-")
	for _, g := range []struct {
		agent string
		of    func(footprint) int64
	}{{"edge", edgeOf}, {"cloud", cloudOf}} {
		r.Gates = append(r.Gates,
			gate{What: row.Way + ", " + g.agent + ", one flow at rest", Got: row.each(g.of) / 1024, Want: v.most / 1024, Most: true, Unit: " KB"},
			gate{What: row.Way + ", " + g.agent + ", memory after all have ended", Got: float64(g.of(row.After)) / float64(g.of(row.Before)), Want: leftover, Most: true, Unit: " of the start"})
	}
}

const directWay = "direct, beside it"

func mega(n int64) float64 { return float64(n) / (1 << 20) }

// idleOn measures one way, and the direct one beside it.
func (b *bench) idleOn(v restingWay) (row, direct *idleRow, err error) {
	w, err := v.open(serversFor(b.flows))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	flows := b.flows
	if v.files > 0 {
		flows = min(flows, w.fileLimit()/v.files-spareFiles)
	}
	if row, err = b.idle(w, v.name, flows, way{}); err != nil {
		return nil, nil, err
	}
	if w.service != nil {
		err = w.service.close() // its port is the direct one
		w.service = nil
		if err != nil {
			return nil, nil, err
		}
	}
	direct, err = b.idle(w, directWay, flows, way{direct: true})
	return row, direct, err
}

// spareFiles are descriptors that flows leave to everything else, and to workers that get
// more flows than others.
const spareFiles = 2048

// fileLimit is how many descriptors an agent may have.
func (w *world) fileLimit() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", w.carrier.edge[0].Pid()))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if n, err := strconv.Atoi(strings.Fields(rest)[0]); err == nil {
				return n
			}
		}
	}
	return crowdShare
}

// serversFor is how many servers hold so many connections.
func serversFor(flows int) int { return (flows + crowdShare - 1) / crowdShare }

// idle opens flows, lets them rest and ends them.
func (b *bench) idle(w *world, name string, flows int, v way) (*idleRow, error) {
	port := ownPort
	if v.direct {
		port = func(int) int { return pair.DirectPort }
	}
	servers, at, err := w.servers(serversFor(flows), port)
	if err != nil {
		return nil, err
	}
	for i := range at {
		at[i] = netip.AddrPortFrom(w.host(v), at[i].Port())
	}
	row := &idleRow{Way: name, Flows: flows}
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
	if err := w.carrier.idle(time.Minute); err != nil {
		return err
	}
	if err := b.sleep(ebbTime); err != nil {
		return err
	}
	row.After, err = w.footprint()
	return err
}

// ended says why the agents have ended connections or not begun them.
func (w *world) ended() error {
	if w.pair == nil {
		return errors.New(w.carrier.output())
	}
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
	f.Edge, err1 = resident(w.carrier.edge[0])
	f.Cloud, err2 = resident(w.carrier.cloud[0])
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
