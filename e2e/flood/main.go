// Command flood measures how clients and transfers fare while somebody floods
// the edge, beside a kernel listener with SYN cookies under the same flood in
// the same run, and what a flood costs.
//
// Goroutines: one sender of the flood, a few clients; all end with a phase.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// settings are the command's flags.
type settings struct {
	rate      int
	length    time.Duration
	parts     string
	worlds    int
	unguarded string
}

func main() {
	var s settings
	flag.IntVar(&s.rate, "rate", 100_000, "SYNs per second")
	flag.DurationVar(&s.length, "time", 10*time.Second, "length of the floods that clients connect under; the others, and quiet phases, take half of it, at most 10 s")
	flag.StringVar(&s.parts, "only", "connect,cost,goodput,shake", "parts to measure")
	flag.IntVar(&s.worlds, "worlds", 4, "how many of the edge's rows to take: as it is, by the guard alone, tproxy, unguarded")
	flag.StringVar(&s.unguarded, "unguarded", "", "a hawser-edge without the guard, to stand beside")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

// short is the length of what need not be long to be measured.
func (s settings) short() time.Duration { return min(s.length/2, 10*time.Second) }

// world is one way to take clients' connections.
type world struct {
	name   string
	opts   pair.Options
	binary string
}

func run(s settings) error {
	if err := lab.CleanStale(); err != nil {
		return err
	}
	worlds := []world{
		{name: "edge"},
		{name: "edge, syn_flood: never", opts: pair.Options{Limits: "{syn_flood: never}"}},
		{name: "edge, tproxy", opts: pair.Options{Intercept: "tproxy"}},
	}
	if s.unguarded != "" {
		worlds = append(worlds, world{name: "edge without guard", binary: s.unguarded})
	}
	var r report
	for i, w := range worlds[:min(max(s.worlds, 1), len(worlds))] {
		if err := w.measure(s, &r, i == 0); err != nil {
			return errors.Join(err, r.print())
		}
	}
	return r.print()
}

// listenPort is the kernel listener's on the edge, which is not steered.
const listenPort = pair.DirectPort

// stage is a world that runs.
type stage struct {
	*lab.Lab
	pair *pair.Pair
	set  settings
	// origin is a server behind the tunnel, local the kernel listener on the
	// edge, dropped an address whose packets the edge drops first of all, dead
	// one that nobody has.
	origin, local, dropped, dead netip.AddrPort
}

// measure takes a world's rows; with kernel those of the listener, too.
func (w world) measure(s settings, r *report, kernel bool) (err error) {
	spec := lab.Spec{Name: "flood", Uplinks: []lab.Uplink{{Name: "wire", Unshaped: true}}, Seed: 1}
	l, err := lab.New(spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if w.binary != "" {
		old := os.Getenv("HAWSER_BIN")
		defer os.Setenv("HAWSER_BIN", old)
		os.Setenv("HAWSER_BIN", filepath.Dir(w.binary))
	}
	st := &stage{Lab: l, set: s}
	// What the cloud allows per second is less than the clients reach, all to one server.
	w.opts.Connects = "{edge_rate: 1000000, server_rate: 1000000}"
	if st.pair, err = pair.New(l, spec, w.opts); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.pair.Stop()) }()
	if err := st.pair.Start(); err != nil {
		return err
	}
	done, err := st.prepare()
	defer done()
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		take func(world, *report, bool) error
	}{{"connect", st.connect}, {"cost", st.cost}, {"goodput", st.goodput}, {"shake", st.shake}} {
		if strings.Contains(s.parts, part.name) {
			fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format(time.TimeOnly), w.name, part.name)
			if err := part.take(w, r, kernel); err != nil {
				return fmt.Errorf("%s: %s: %w", w.name, part.name, err)
			}
		}
	}
	printCounters(w.name, st.pair)
	return nil
}

// prepare makes what the edge and the origin need besides the agents.
func (st *stage) prepare() (done func(), err error) {
	edge, origin := st.Address("edge", lab.IPv4), st.Address("origin", lab.IPv4)
	st.origin, st.local = netip.AddrPortFrom(origin, 80), netip.AddrPortFrom(edge, listenPort)
	st.dropped = netip.MustParseAddrPort("198.18.250.1:80")
	st.dead = netip.AddrPortFrom(origin.Next().Next().Next(), 80)
	// Answers to forged sources go back to the LAN.
	client := st.Address("client1", lab.IPv4).String()
	done = func() {}
	for _, argv := range [][]string{
		{"ip", "route", "add", "10.64.0.0/10", "via", client},
		{"iptables", "-t", "raw", "-I", "PREROUTING", "-d", st.dropped.Addr().String(), "-j", "DROP"},
	} {
		if out, err := st.Exec("edge", argv...); err != nil {
			return done, fmt.Errorf("%v: %w: %s", argv, err, out)
		}
	}
	if err := st.Sysctl("edge", "net/ipv4/tcp_syncookies", "2"); err != nil {
		return done, err
	}
	closers, err := serve(st.Lab, map[string]uint16{"edge": listenPort, "origin": 80})
	return func() {
		for _, c := range closers {
			c.Close()
		}
	}, err
}

// printCounters shows what the guard and the kernel have counted.
func printCounters(name string, p *pair.Pair) {
	s, err := p.Status("edge")
	if err != nil {
		return
	}
	fmt.Print(name, ":")
	for name, n := range s.Counters {
		if n > 0 && (strings.HasPrefix(name, "guard_") || strings.HasPrefix(name, "kernel_") || name == "hub_overruns") {
			fmt.Printf(" %s %d", name, n)
		}
	}
	fmt.Println()
}
