package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"hawser/e2e/lab"
)

// bench is one invocation.
type bench struct {
	ctx  context.Context
	runs int
	out  string // directory of the raw readings

	seconds  float64 // length of a reading of `bench paths`, or of a load of table mix
	load     string  // part of the names of the loads of table mix
	timeline bool    // of its readings
	racers   string  // parts of the names of those that table peers is for, separated by commas; empty: all
	flows    int     // of `bench crowd`
	readers  int     // of its table slow
	budget   int     // of both agents in that table, in MB
}

// table is one that can be measured.
type table struct {
	name    string
	measure func(*bench) (*report, error)
	apart   bool // measured only where -only names it
}

// tables are what can be measured, in the order of printing.
var tables = []table{
	{name: "goodput", measure: (*bench).goodput},
	{name: "objects", measure: (*bench).objects},
	{name: "unshaped", measure: (*bench).unshaped},
	{name: "pings", measure: (*bench).pings},
	{name: "peers", measure: (*bench).peers},
	{name: "lan", measure: (*bench).lan, apart: true},
	{name: "lan-wifi", measure: (*bench).lanWiFi, apart: true},
	{name: "lan-frames", measure: (*bench).lanFrames, apart: true},
	{name: "lan-up", measure: (*bench).lanUp, apart: true},
	{name: "fairness", measure: (*bench).fairness},
	{name: "blackhole", measure: (*bench).blackhole},
	{name: "profile", measure: (*bench).profile},
	{name: "mix", measure: (*bench).mix, apart: true},
	{name: "scheduler", measure: (*bench).decisions},
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "paths" {
		return exitCode((&bench{ctx: ctx}).measurePaths(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "crowd" {
		return exitCode((&bench{ctx: ctx}).measureCrowd(os.Args[2:]))
	}
	only := flag.String("only", "", "tables to measure, separated by commas; empty: all but mix and those of a poor LAN")
	runs := flag.Int("runs", 5, "runs of which the median is shown")
	out := flag.String("out", "bench-results", "directory of the raw readings")
	racers := flag.String("racers", "", "racers of table peers, by parts of their names, separated by commas; empty: all")
	load := flag.String("load", "", "loads of table mix, by a part of their names; empty: all")
	seconds := flag.Float64("seconds", 1.5, "length of each load of table mix")
	flag.Parse()
	b := bench{ctx: ctx, runs: max(*runs, 1), out: *out, racers: *racers, load: *load, seconds: *seconds}
	return exitCode(b.measure(tables, *only))
}

// exitCode reports what a measurement came to.
func exitCode(missed int, err error) int {
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 2
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	case missed > 0:
		fmt.Fprintf(os.Stderr, "bench: %d gates missed\n", missed)
		return 1
	}
	return 0
}

// measure measures those of the tables that only names and returns how many gates were missed.
func (b *bench) measure(tables []table, only string) (missed int, err error) {
	if os.Geteuid() != 0 {
		return 0, fmt.Errorf("needs root, to make network namespaces")
	}
	wanted, err := choose(tables, only)
	if err != nil {
		return 0, err
	}
	if err := lab.CleanStale(); err != nil {
		return 0, err
	}
	fmt.Printf("%s\n\n", thisMachine())
	for _, t := range tables {
		if !slices.Contains(wanted, t.name) {
			continue
		}
		began := begin()
		r, err := t.measure(b)
		if err != nil {
			return missed, fmt.Errorf("%s: %w", t.name, err)
		}
		began.finish(r)
		r.print(os.Stdout)
		if err := r.save(b.out, t.name); err != nil {
			return missed, err
		}
		missed += r.missed()
	}
	return missed, nil
}

// choose checks the names of tables.
func choose(tables []table, only string) ([]string, error) {
	var all, usual []string
	for _, t := range tables {
		if all = append(all, t.name); !t.apart {
			usual = append(usual, t.name)
		}
	}
	if only == "" {
		return usual, nil
	}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("-only: there is no table %q, only %s", name, strings.Join(all, ", "))
		}
	}
	return wanted, nil
}
