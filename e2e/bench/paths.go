package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

// pathResult is all readings of one scenario.
type pathResult struct {
	Scenario string                    `json:"scenario"`
	Capacity float64                   `json:"capacity_mbps"` // mean, in the bulk flow's direction
	DeadMs   float64                   `json:"all_dead_ms"`   // longest time in which no uplink carried anything
	Best     []float64                 `json:"optimum_ms"`    // of the objects
	Runs     map[string][]*pathReading `json:"runs"`          // by rival
}

// pathFlags are the flags of `bench paths`.
type pathFlags struct {
	only, rivals, traces, out string
	runs                      int
	seconds                   float64
	shared                    bool
	faults                    int
	kinds                     []faultKind // of faults, that -only names
	transport                 string
	lanes, policies           string
	timeline                  bool
}

func parsePathFlags(args []string) (pathFlags, error) {
	var f pathFlags
	set := flag.NewFlagSet("bench paths", flag.ContinueOnError)
	set.StringVar(&f.only, "only", "", "scenarios, separated by commas; empty: all")
	set.StringVar(&f.rivals, "rivals", "", "rows, separated by commas; empty: all")
	set.StringVar(&f.traces, "traces", os.Getenv("HAWSER_TRACES"), "folder of the recordings that this project may not distribute")
	set.StringVar(&f.out, "out", "bench-results", "directory of the raw readings")
	set.IntVar(&f.runs, "runs", 3, "runs of which the median is shown")
	set.Float64Var(&f.seconds, "seconds", 8, "length of a reading, where the scenario does not say")
	set.IntVar(&f.faults, "faults", 0, "instead of the scenarios: so many silent faults, beside bulk and new connections; -only then names kinds of faults")
	set.StringVar(&f.transport, "transport", "tcp", "of the links, for -faults")
	set.StringVar(&f.lanes, "lanes", "", "instead of the rows and scenarios: hawser with these numbers of lanes per link, such as 1,2,4, on scenarios of their own")
	set.StringVar(&f.policies, "kinds", "", "instead of the rows: hawser with these of the scheduler's kinds, such as earliest,minrtt,fifo")
	set.BoolVar(&f.timeline, "timeline", false, "note where each uplink's capacity went, and save what it did every 100 ms")
	set.BoolVar(&f.shared, "shared", false, "do not run everything at real-time priority: other work on the machine then shows in the figures")
	return f, set.Parse(args)
}

// measurePaths measures how uplinks are used side by side with others' ways to
// use them, and returns how many gates were missed.
func (b *bench) measurePaths(args []string) (missed int, err error) {
	f, err := parsePathFlags(args)
	if err != nil {
		return 0, err
	}
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("needs root, to make network namespaces")
	}
	chosen, rows, err := f.choose()
	if err != nil {
		return 0, err
	}
	if err := lab.CleanStale(); err != nil {
		return 0, err
	}
	if !f.shared {
		// All programs of the lab, peers' as well as hawser's, inherit it.
		if err := emu.RaisePriority(); err != nil {
			return 0, err
		}
	}
	b.runs, b.out, b.seconds, b.timeline = max(f.runs, 1), f.out, max(f.seconds, 3), f.timeline
	fmt.Printf("%s\n\n", thisMachine())
	if f.faults > 0 {
		return b.measureFaults(f.transport, f.faults, f.kinds)
	}
	for _, s := range chosen {
		if s.missing != "" {
			fmt.Printf("### %s: skipped\n\n%s\n\n", s.name, s.missing)
			continue
		}
		n, err := b.measureScenario(s, rows)
		if err != nil {
			return missed, fmt.Errorf("%s: %w", s.name, err)
		}
		missed += n
	}
	return missed, nil
}

// choose returns the scenarios and rows that are asked for.
func (f *pathFlags) choose() (chosen []scenario, rows []rival, err error) {
	all := pathScenarios(f.traces)
	if f.faults > 0 {
		f.kinds, err = chooseNamed("-only", "kind of fault", f.only, faultKinds, func(k faultKind) string { return k.name })
		return nil, nil, err
	}
	switch {
	case f.lanes != "":
		all = laneScenarios()
		rows, err = laneRivals(f.lanes)
	case f.policies != "":
		rows, err = kindRivals(f.policies)
	default:
		rows, err = chooseNamed("-rivals", "row", f.rivals, rivals, func(r rival) string { return r.name })
	}
	if err != nil {
		return nil, nil, err
	}
	chosen, err = chooseNamed("-only", "scenario", f.only, all, func(s scenario) string { return s.name })
	if err != nil {
		return nil, nil, err
	}
	return chosen, rows, readable(chosen)
}

// readable says before the first reading, and not a quarter of an hour later,
// that a scenario's recording cannot be read.
func readable(chosen []scenario) error {
	for _, s := range chosen {
		if s.missing != "" {
			continue
		}
		if _, err := s.lines(); err != nil {
			return fmt.Errorf("%s: %w: run this in the clone, where %s is, and let -traces name the folder of the other recordings", s.name, err, bundled)
		}
	}
	return nil
}

// chooseNamed picks the items that a comma-separated list names.
func chooseNamed[T any](flag, what, list string, all []T, name func(T) string) (chosen []T, err error) {
	if list == "" {
		return all, nil
	}
	var names []string
	for _, it := range all {
		names = append(names, name(it))
	}
	for _, want := range strings.Split(list, ",") {
		i := slices.Index(names, want)
		if i < 0 {
			return nil, fmt.Errorf("%s: there is no %s %q, only %s", flag, what, want, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// measureScenario takes the readings of all rows in turn and prints the table.
func (b *bench) measureScenario(s scenario, rows []rival) (int, error) {
	began := begin()
	res := &pathResult{Scenario: s.name, Runs: map[string][]*pathReading{}}
	capacity, dead, err := s.capacity(b.lengthOf(s))
	if err != nil {
		return 0, err
	}
	res.Capacity, res.DeadMs = capacity*8/1e6/b.lengthOf(s).Seconds(), millis(dead)
	for _, size := range objectSizes {
		res.Best = append(res.Best, millis(optimum(s.uplinks, size)))
	}
	for run := range b.runs {
		for _, r := range rows {
			p, err := b.readRival(s, r, uint64(run+1))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", r.name, err)
			}
			res.Runs[r.name] = append(res.Runs[r.name], &p)
		}
	}
	t := res.table(s, rows)
	began.finish(t)
	t.print(os.Stdout)
	return t.missed(), t.save(b.out, "paths-"+s.name)
}
