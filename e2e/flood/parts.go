package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/spray"
)

// settle is the time between the beginning of a flood and that of a
// measurement.
const settle = 500 * time.Millisecond

// flood is one that is under way.
type flood struct {
	sender *spray.Sender
	stop   chan struct{}
	done   chan int
	began  time.Time
	sent   int
	rate   float64 // SYNs per second
}

func (st *stage) flood(to netip.AddrPort) (*flood, error) {
	s, err := spray.NewSender(st.Lab, to, st.set.rate)
	if err != nil {
		return nil, err
	}
	f := &flood{sender: s, stop: make(chan struct{}), done: make(chan int, 1), began: time.Now()}
	go func() { f.done <- s.Run(f.stop) }()
	time.Sleep(settle)
	return f, nil
}

func (f *flood) end() {
	close(f.stop)
	f.sent = <-f.done
	f.rate = float64(f.sent) / time.Since(f.began).Seconds()
}

// connect measures clients that connect in a loop, quiet and under a flood.
func (st *stage) connect(w world, r *report, kernel bool) error {
	targets := map[string]netip.AddrPort{w.name: st.origin}
	order := []string{w.name}
	if kernel {
		const listener = "kernel, SYN cookies"
		targets[listener] = st.local
		order = []string{listener, w.name}
	}
	for _, name := range order {
		row := connectRow{what: name}
		var err error
		if row.quiet, err = phase(st.Lab, targets[name], st.set.short()); err != nil {
			return err
		}
		time.Sleep(settle) // the last of them
		entries, admitted := st.tracked(), st.admitted()
		before := rss(st.pair.Edge.Pid())
		f, err := st.flood(targets[name])
		if err != nil {
			return err
		}
		stop := make(chan struct{})
		watch := make(chan int, 1)
		go func() { watch <- peak(st.pair.Edge.Pid(), stop) }()
		row.flood, err = phase(st.Lab, targets[name], st.set.length)
		row.entries = st.tracked() - entries
		f.end()
		close(stop)
		if most := <-watch; name == w.name {
			row.before, row.peak = before, most
			row.flows = st.admitted() - admitted - len(row.flood.took) - row.flood.failed
		}
		row.sent = f.rate
		r.connects = append(r.connects, row)
		if err != nil {
			return err
		}
	}
	return nil
}

// admitted is how many flows the edge's guard has made so far.
func (st *stage) admitted() int {
	s, err := st.pair.Status("edge")
	if err != nil {
		return 0
	}
	return int(s.Counters["guard_admitted"])
}

// tracked is how many entries connection tracking has on the edge.
func (st *stage) tracked() (n int) {
	_ = st.Do("edge", func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	return n
}

// cost measures what a flood costs when nothing else is done.
func (st *stage) cost(w world, r *report, kernel bool) error {
	type target struct {
		what string
		to   netip.AddrPort
	}
	targets := []target{{w.name, st.origin}}
	if kernel {
		targets = []target{{"dropped in raw", st.dropped}, {"kernel, SYN cookies", st.local}, targets[0]}
	}
	for _, t := range targets {
		u0, s0, _ := st.pair.Edge.CPU()
		f, err := st.flood(t.to)
		if err != nil {
			return err
		}
		time.Sleep(st.set.short())
		f.end()
		time.Sleep(settle) // what is queued
		u1, s1, _ := st.pair.Edge.CPU()
		row := costRow{what: t.what, sent: f.rate, sender: perSYN(f.sender.CPU, f.sent)}
		if t.to == st.origin {
			row.edge = perSYN(u1+s1-u0-s0, f.sent)
		}
		r.costs = append(r.costs, row)
	}
	return nil
}

// perSYN is a time's share of each SYN in µs.
func perSYN(d time.Duration, n int) float64 {
	return float64(d.Nanoseconds()) / 1000 / float64(max(n, 1))
}

// goodput measures a download while nothing, a flood of the server's address,
// and the same flood of a dropped address are under way.
func (st *stage) goodput(w world, r *report, _ bool) error {
	var bytes atomic.Int64
	c, err := st.download(&bytes)
	if err != nil {
		return err
	}
	defer c.Close()
	row := goodRow{what: w.name}
	for range goodRounds {
		for i, to := range []netip.AddrPort{{}, st.dropped, st.origin} {
			rate, err := st.during(to, &bytes)
			if err != nil {
				return err
			}
			row.rates[i] = append(row.rates[i], rate)
		}
	}
	r.goods = append(r.goods, row)
	return nil
}

// goodRounds is how often a download is measured quiet and under each flood, in
// turns: what else the machine does then falls on all of them.
const goodRounds = 5

// during is a download's rate in Mbit/s while an address is flooded; an invalid
// one is none.
func (st *stage) during(to netip.AddrPort, bytes *atomic.Int64) (float64, error) {
	if to.IsValid() {
		f, err := st.flood(to)
		if err != nil {
			return 0, err
		}
		defer f.end()
	}
	before, began := bytes.Load(), time.Now()
	time.Sleep(st.set.short() / goodRounds)
	return float64(bytes.Load()-before) * 8 / time.Since(began).Seconds() / 1e6, nil
}

// download receives from a server at the origin and counts.
func (st *stage) download(bytes *atomic.Int64) (io.Closer, error) {
	var ln net.Listener
	err := st.Do("origin", func() (err error) {
		ln, err = net.Listen("tcp", ":81")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	go pour(ln)
	var c net.Conn
	err = st.Do("client1", func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(st.origin.Addr(), 81).String(), 10*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	go drain(c, bytes)
	time.Sleep(settle)
	return c, nil
}

// pour writes to the first connection until it ends.
func pour(ln net.Listener) {
	c, err := ln.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	for p := make([]byte, 256<<10); err == nil; {
		_, err = c.Write(p)
	}
}

func drain(c net.Conn, bytes *atomic.Int64) {
	p := make([]byte, 256<<10)
	for {
		n, err := c.Read(p)
		bytes.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// shakers and shakeRate are the addresses that shake hands and how often.
const (
	shakers   = 1000
	shakeRate = 5000
)

// shake measures what handshakes leave that nothing follows, with a server that
// answers and with one that does not.
func (st *stage) shake(w world, r *report, _ bool) error {
	for _, t := range []struct {
		what string
		to   netip.AddrPort
	}{{"no server", st.dead}, {"a server that answers", st.origin}} {
		before := rss(st.pair.Edge.Pid())
		s, err := spray.NewShaker(st.Lab, t.to, shakeRate, shakers)
		if err != nil {
			return err
		}
		stop, done, watch := make(chan struct{}), make(chan int, 1), make(chan int, 1)
		go func() { done <- s.Run(stop) }()
		go func() { watch <- peak(st.pair.Edge.Pid(), stop) }()
		c, err := phase(st.Lab, st.origin, st.set.length/2)
		close(stop)
		sent, most := <-done, <-watch
		if err != nil {
			return err
		}
		status, err := st.pair.Status("edge")
		if err != nil {
			return err
		}
		row := shakeRow{what: fmt.Sprintf("%s: %s", w.name, t.what), sent: sent, acked: s.Acked, clients: c, before: before, peak: most}
		if h := status.Handshakes; h != nil {
			row.pending = int(h.Pending)
		}
		r.shakes = append(r.shakes, row)
	}
	return nil
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
