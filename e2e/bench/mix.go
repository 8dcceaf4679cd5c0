package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// mixRest lets the agents find that one processor is enough again.
const mixRest = 1200 * ms

// mixHosts are the ways with one of each kind of party at either end.
var mixHosts = []host{hosts[0], hosts[2]}

// mixCost is what one load cost the agents.
type mixCost struct {
	Way   string  `json:"way"`
	Load  string  `json:"load"`
	Units float64 `json:"units"` // GB, connections or messages
	Edge  spent   `json:"edge"`
	Cloud spent   `json:"cloud"`
}

// spent is what a program used during a load.
type spent struct {
	CPU    float64 `json:"cpu_s"`
	Sleeps int64   `json:"sleeps"` // times that one of its threads went to sleep
}

// mix runs every kind of load, with CPU profiles of both agents, and says what they
// cost per unit.
func (b *bench) mix() (*report, error) {
	dir, err := filepath.Abs(b.out)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	a, err := openArena()
	if err != nil {
		return nil, err
	}
	var costs []*mixCost
	for i, h := range mixHosts {
		if !strings.Contains(h.name, b.racers) {
			continue
		}
		for run := range b.runs {
			a.port = bulkPort(i)
			more, err := b.mixOn(a, h, filepath.Join(dir, fmt.Sprintf("mix-%d-%d", i, run)))
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", h.name, err), a.close())
			}
			costs = append(costs, more...)
		}
	}
	return mixReport(costs), a.close()
}

// mixOn runs the loads through a pair whose profiles' names begin with file.
func (b *bench) mixOn(a *arena, h host, file string) (costs []*mixCost, err error) {
	p, err := pair.New(a.Lab, a.spec, pair.Options{
		Intercept: h.intercept, Egress: h.egress, Transport: "tcp",
		EdgeEnv: []string{"HAWSER_CPUPROFILE=" + file + "-edge.pprof"}, CloudEnv: []string{"HAWSER_CPUPROFILE=" + file + "-cloud.pprof"},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err := p.Start(); err != nil {
		return nil, err
	}
	a.carrier = ofPair(p)
	if err := a.ready(); err != nil {
		return nil, err
	}
	for _, l := range b.mixLoads(a) {
		c := &mixCost{Way: h.name, Load: l.name}
		edge, cloud := spentBy(p.Edge), spentBy(p.Cloud)
		if c.Units, err = l.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		c.Edge, c.Cloud = spentBy(p.Edge).since(edge), spentBy(p.Cloud).since(cloud)
		costs = append(costs, c)
	}
	return costs, nil
}

// mixLoad is one load; run returns how many units it carried.
type mixLoad struct {
	name string
	run  func() (float64, error)
}

func (b *bench) mixLoads(a *arena) (loads []mixLoad) {
	add := func(name string, q request, flows int) {
		loads = append(loads, mixLoad{name, func() (float64, error) {
			m, err := b.bulk(a.world, way{}, q, flows, phases{0, b.mixTime()})
			return float64(m.Steady.Bytes) / 1e9, err
		}})
	}
	for _, l := range peerLoads {
		add(l.name+", GB", l.request, l.flows)
	}
	add("16 down, text, GB", request{kind: download, text: true}, 16)
	add("16 up, text, GB", request{kind: upload, text: true}, 16)
	loads = append(loads, mixLoad{"connections, 1000", func() (float64, error) {
		row, err := b.churn(a.world, b.mixTime())
		return float64(row.Done) / 1e3, err
	}})
	loads = append(loads, mixLoad{"ping-pong, 1000", func() (float64, error) {
		time.Sleep(mixRest)
		n := 0
		for end := time.Now().Add(b.mixTime()); time.Now().Before(end); n += mixPings {
			if _, err := a.pingN(way{}, mixPings); err != nil {
				return 0, err
			}
		}
		return float64(n) / 1e3, nil
	}})
	return slices.DeleteFunc(loads, func(l mixLoad) bool { return !strings.Contains(l.name, b.load) })
}

// mixTime is the length of each load.
func (b *bench) mixTime() time.Duration { return time.Duration(b.seconds * float64(time.Second)) }

// spentBy is what a program has used so far.
func spentBy(p *lab.Proc) (s spent) {
	user, system, _ := p.CPU()
	s.CPU = (user + system).Seconds()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
	for _, f := range files {
		text, _ := os.ReadFile(f) // the thread may have ended
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		var n int64
		_, _ = fmt.Sscan(rest, &n)
		s.Sleeps += n
	}
	return s
}

func (s spent) since(was spent) spent { return spent{s.CPU - was.CPU, s.Sleeps - was.Sleeps} }

func mixReport(costs []*mixCost) *report {
	r := &report{
		Title: "mix: what each kind of load costs the agents per unit",
		Head:  []string{"way", "load, unit", "units", "CPU-s edge", "cloud", "both", "sleeps edge", "cloud"},
		Notes: []string{"sleeps: how often a thread of the agent went to sleep, per unit"},
		Raw:   costs,
	}
	for _, c := range costs {
		per := func(format string, v float64) string { return fmt.Sprintf(format, v/max(c.Units, 1e-9)) }
		r.add(c.Way, c.Load, fmt.Sprintf("%.2f", c.Units), per("%.3f", c.Edge.CPU), per("%.3f", c.Cloud.CPU), per("%.3f", c.Edge.CPU+c.Cloud.CPU),
			per("%.0f", float64(c.Edge.Sleeps)), per("%.0f", float64(c.Cloud.Sleeps)))
	}
	return r
}
