// Command flood measures how clients fare while somebody floods the edge with
// SYNs of forged sources, beside a kernel listener with SYN cookies under the
// same flood in the same run.
//
// Goroutines: one sender of the flood, a few clients; all end with a phase.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/e2e/spray"
)

func main() {
	rate := flag.Int("rate", 100_000, "SYNs per second")
	length := flag.Duration("time", 10*time.Second, "length of each phase")
	unguarded := flag.String("unguarded", "", "a hawser-edge without the guard, to stand beside")
	flag.Parse()
	if err := run(*rate, *length, *unguarded); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

// row is one line of the table.
type row struct {
	what         string
	quiet, flood result
	sent         float64 // SYNs per second
	before, peak int     // RSS of the edge in KiB; 0 for the kernel
	cpu          float64 // µs of the edge per SYN
}

func run(rate int, length time.Duration, unguarded string) error {
	if err := lab.CleanStale(); err != nil {
		return err
	}
	rows := []row{}
	for _, binary := range []string{"", unguarded} {
		if binary == "" && len(rows) > 0 {
			break
		}
		more, err := measure(rate, length, binary)
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	fmt.Printf("%-26s %9s  %28s  %28s  %16s %8s\n", "", "SYN/s", "quiet: conn/s  ok  p50  p99", "flood: conn/s  ok  p50  p99", "edge RSS MB", "µs/SYN")
	for _, r := range rows {
		fmt.Printf("%-26s %9.0f  %s  %s  %7.1f > %6.1f %8.2f\n", r.what, r.sent, r.quiet, r.flood,
			float64(r.before)/1024, float64(r.peak)/1024, r.cpu)
	}
	return nil
}

// listenPort is the kernel listener's on the edge, which is not steered.
const listenPort = pair.DirectPort

// measure takes the rows of one world. With another binary the kernel's row is
// left out.
func measure(rate int, length time.Duration, binary string) (rows []row, err error) {
	spec := lab.Spec{Name: "flood", Uplinks: []lab.Uplink{{Name: "wire", Unshaped: true}}, Seed: 1}
	l, err := lab.New(spec)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if binary != "" {
		old := os.Getenv("HAWSER_BIN")
		defer os.Setenv("HAWSER_BIN", old)
		os.Setenv("HAWSER_BIN", filepath.Dir(binary))
	}
	p, err := pair.New(l, spec, pair.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err := p.Start(); err != nil {
		return nil, err
	}
	// Answers to forged sources go back to the LAN.
	if _, err := l.Exec("edge", "ip", "route", "add", "10.64.0.0/10", "via", l.Address("client1", lab.IPv4).String()); err != nil {
		return nil, err
	}
	if err := l.Sysctl("edge", "net/ipv4/tcp_syncookies", "2"); err != nil {
		return nil, err
	}
	closers, err := serve(l, map[string]uint16{"edge": listenPort, "origin": 80})
	defer func() {
		for _, c := range closers {
			c.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	targets := []struct {
		name string
		addr netip.AddrPort
		edge bool
	}{
		{"kernel, SYN cookies", netip.AddrPortFrom(l.Address("edge", lab.IPv4), listenPort), false},
		{"edge with guard", netip.AddrPortFrom(l.Address("origin", lab.IPv4), 80), true},
	}
	if binary != "" {
		targets = targets[1:]
		targets[0].name = "edge without guard"
	}
	for _, t := range targets {
		r := row{what: t.name}
		if r.quiet, err = phase(l, t.addr, length/2); err != nil {
			return rows, err
		}
		if err := r.flooded(l, p, t.addr, rate, length, t.edge); err != nil {
			return rows, err
		}
		rows = append(rows, r)
		if t.edge {
			printCounters(p)
		}
	}
	return rows, nil
}

// flooded fills in what is measured during the flood.
func (r *row) flooded(l *lab.Lab, p *pair.Pair, addr netip.AddrPort, rate int, length time.Duration, edge bool) error {
	s, err := spray.NewSender(l, addr, rate)
	if err != nil {
		return err
	}
	r.before = rss(p.Edge.Pid())
	u0, s0, _ := p.Edge.CPU()
	began := time.Now()
	stop := make(chan struct{})
	done := make(chan int, 1)
	go func() { done <- s.Run(stop) }()
	watch := make(chan int, 1)
	go func() { watch <- peak(p.Edge.Pid(), stop) }()
	time.Sleep(500 * time.Millisecond)
	r.flood, err = phase(l, addr, length)
	close(stop)
	sent := <-done
	r.peak = <-watch
	u1, s1, _ := p.Edge.CPU()
	r.sent = float64(sent) / time.Since(began).Seconds()
	if edge {
		r.cpu = float64((u1 + s1 - u0 - s0).Microseconds()) / float64(sent)
	} else {
		r.before, r.peak = 0, 0
	}
	return err
}

// serve accepts in the named nodes and echoes.
func serve(l *lab.Lab, where map[string]uint16) (closers []io.Closer, err error) {
	for node, port := range where {
		err := l.Do(node, func() error {
			ln, err := net.Listen("tcp", ":"+strconv.Itoa(int(port)))
			if err != nil {
				return err
			}
			closers = append(closers, ln)
			go accept(ln)
			return nil
		})
		if err != nil {
			return closers, err
		}
	}
	return closers, nil
}

// accept echoes until the listener is closed.
func accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// rss is a process's resident memory in KiB.
func rss(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(v)[0])
			return n
		}
	}
	return 0
}

// peak is the most memory that a process has until stop.
func peak(pid int, stop <-chan struct{}) int {
	most := 0
	for {
		select {
		case <-stop:
			return most
		case <-time.After(50 * time.Millisecond):
			most = max(most, rss(pid))
		}
	}
}

// printCounters shows what the guard has counted.
func printCounters(p *pair.Pair) {
	s, err := p.Status("edge")
	if err != nil {
		return
	}
	for name, n := range s.Counters {
		if n > 0 && (strings.HasPrefix(name, "guard_") || name == "hub_overruns") {
			fmt.Printf("  %s %d", name, n)
		}
	}
	fmt.Println()
}
