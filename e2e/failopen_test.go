package e2e

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestFailOpen: with the cloud killed new connections work around the tunnel
// within a second, and go through it again when it is back; who has begun
// around it stays there, unharmed.
func TestFailOpen(t *testing.T) {
	for _, intercept := range []string{"hub", "tproxy"} {
		t.Run(intercept, func(t *testing.T) {
			r := start(t, fast(), pair.Options{Intercept: intercept})
			r.serveEcho(80)
			tunnel := map[lab.Family]string{}
			for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
				e := r.mustEcho(f)
				defer e.Close()
				tunnel[f] = e.from
			}
			killed := false
			r.fairly(t, func() []string {
				if killed {
					r.back(tunnel[lab.IPv4])
				}
				killed = true
				return r.killCloud(t, tunnel)
			})
			began := []*echo{r.mustEcho(lab.IPv4), r.mustEcho(lab.IPv6)}
			for i, e := range began {
				if f := []lab.Family{lab.IPv4, lab.IPv6}[i]; e.from == tunnel[f] {
					t.Errorf("connection %d has begun at the tunnel", i)
				}
				if err := e.send("while it is down"); err != nil {
					t.Error(err)
				}
			}
			r.back(tunnel[lab.IPv4])
			for i, e := range began {
				_ = e.SetDeadline(time.Now().Add(time.Minute))
				if err := e.send("after it came back"); err != nil {
					t.Errorf("connection %d around the tunnel: %v", i, err)
				}
				if err := e.bulk(4 << 20); err != nil {
					t.Errorf("connection %d around the tunnel: %v", i, err)
				}
				e.Close()
			}
			if err := r.pair.WaitUp(2, 2*time.Second); err != nil { // rules change one after the other
				t.Error(err)
			}
			s, err := r.pair.Status("edge")
			if err != nil {
				t.Fatal(err)
			}
			if !s.FailOpen || s.Detour {
				t.Errorf("status: fail_open %v, detour %v; want true, false", s.FailOpen, s.Detour)
			}
			if n := s.Counters["splice_opened"]; (n > 0) != (intercept == "hub") {
				t.Errorf("splice_opened is %d", n)
			}
			if n := s.Counters["splice_kernel"]; (n > 0) != (intercept == "hub" && shunts(t)) {
				t.Errorf("splice_kernel is %d", n)
			}
		})
	}
}

// killCloud kills the cloud and waits until connections work around the tunnel,
// whose addresses are given.
func (r *rig) killCloud(t *testing.T, tunnel map[lab.Family]string) (b bounds) {
	r.pair.Cloud.Kill()
	begin := time.Now()
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} { // in tproxy mode one after the other is no longer steered
		r.around(f, tunnel[f])
		took := time.Since(begin)
		t.Logf("cloud killed: an IPv%v connection works around the tunnel after %v", f, took.Round(ms))
		b.within("a connection around the tunnel", took, time.Second)
	}
	return b
}

// TestFailOpenSilent: a cloud that says nothing any more, stopped or cut off, is
// found out as well: connections that begin half a second to a second later
// work around the tunnel, and go through it again when it speaks.
func TestFailOpenSilent(t *testing.T) {
	r := start(t, fast(), pair.Options{})
	r.serveEcho(80)
	tunnel := r.mustEcho(lab.IPv4).from
	back := func(e *echo) bool { return e.from == tunnel }
	drop := []string{"INPUT", "-p", "tcp", "--dport", strconv.Itoa(pair.Port), "-j", "DROP"}
	for _, c := range []struct {
		name     string
		down, up func()
	}{
		{"stopped", func() { _ = r.pair.Cloud.Signal(syscall.SIGSTOP) }, func() { _ = r.pair.Cloud.Signal(syscall.SIGCONT) }},
		{"cut off", func() { r.mustExec("cloud", append([]string{"iptables", "-w", "-I"}, drop...)...) },
			func() { r.mustExec("cloud", append([]string{"iptables", "-w", "-D"}, drop...)...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.fairly(t, func() []string {
				var b bounds
				time.Sleep(1500 * ms) // the links are idle
				c.down()
				begun, worked := r.around(lab.IPv4, tunnel)
				c.up()
				took := r.until(back)
				t.Logf("connections that began after %v work around the tunnel, the first after %v; it was used again after %v",
					begun.Round(ms), worked.Round(ms), took.Round(ms))
				b.within("a connection around the tunnel", worked, time.Second)
				b.within("one through the tunnel again", took, 15*time.Second)
				return b
			})
		})
	}
}

// around begins a connection every 25 ms and returns when the first began that
// the server sees from elsewhere than from the tunnel, and when that worked.
func (r *rig) around(f lab.Family, tunnel string) (begun, worked time.Duration) {
	type result struct{ begun, worked time.Duration }
	const all = 400
	results, done := make(chan result, all), make(chan struct{})
	start := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	defer close(done)
	for range all {
		at := time.Since(start)
		running.Go(func() {
			e, err := r.echoUntil(f, done, 2*time.Second)
			if err != nil {
				return
			}
			defer e.Close()
			if e.from != tunnel {
				results <- result{at, time.Since(start)}
			}
		})
		select {
		case first := <-results:
			return first.begun, first.worked
		case <-time.After(25 * ms):
		}
	}
	r.t.Fatal("no connection works around the tunnel")
	return 0, 0
}

// echoUntil is echo, but given up once done is closed.
func (r *rig) echoUntil(f lab.Family, done <-chan struct{}, limit time.Duration) (*echo, error) {
	c, err := r.dial(r.origin(f, 80), limit)
	if err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-done:
			c.Close()
		case <-stop:
		}
	}()
	e := &echo{TCPConn: c, in: bufio.NewReader(c)}
	line, err := e.in.ReadString('\n')
	e.from = strings.TrimSpace(line)
	return e, err
}

// back starts the cloud again and waits until new connections use the tunnel.
func (r *rig) back(from string) {
	r.t.Helper()
	if err := r.pair.StartCloud(); err != nil {
		r.t.Fatal(err)
	}
	took := r.until(func(e *echo) bool { return e.from == from })
	r.t.Logf("cloud back: a connection uses the tunnel after %v", took)
	if took > 15*time.Second {
		r.t.Fatalf("took %v", took)
	}
}

// until opens connections until one is as wanted, and returns how long that
// took.
func (r *rig) until(want func(*echo) bool) time.Duration {
	r.t.Helper()
	begin := time.Now()
	for time.Since(begin) < 20*time.Second {
		if e, err := r.echo(lab.IPv4, 300*ms); err == nil {
			e.Close()
			if want(e) {
				return time.Since(begin)
			}
		}
		time.Sleep(10 * ms)
	}
	r.t.Fatal("no such connection within 20 s")
	return 0
}

// echo is a connection whose server has said whom it sees, and echoes.
type echo struct {
	*net.TCPConn
	in   *bufio.Reader
	from string // the address that the server sees
}

// serveEcho serves what echo expects.
func (r *rig) serveEcho(port int) {
	r.serve(port, func(c *net.TCPConn) {
		defer c.Close()
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		_, _ = c.Write([]byte(host + "\n"))
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if _, err = c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// echo connects and reads whom the server sees, both within limit.
func (r *rig) echo(f lab.Family, limit time.Duration) (*echo, error) { return r.echoAt(f, 80, limit) }

// echoAt is echo with another port.
func (r *rig) echoAt(f lab.Family, port int, limit time.Duration) (*echo, error) {
	c, err := r.dial(r.origin(f, port), limit)
	if err != nil {
		return nil, err
	}
	e := &echo{TCPConn: c, in: bufio.NewReader(c)}
	line, err := e.in.ReadString('\n')
	if err != nil {
		c.Close()
		return nil, err
	}
	e.from = strings.TrimSpace(line)
	return e, c.SetDeadline(time.Now().Add(60 * time.Second))
}

func (r *rig) mustEcho(f lab.Family) *echo {
	r.t.Helper()
	e, err := r.echo(f, 20*time.Second)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// send has a line echoed.
func (e *echo) send(text string) error {
	if _, err := e.Write([]byte(text + "\n")); err != nil {
		return err
	}
	got, err := e.in.ReadString('\n')
	if err == nil && got != text+"\n" {
		err = &net.ParseError{Type: "echo", Text: got}
	}
	return err
}

// bulk has size bytes echoed and compares their checksum.
func (e *echo) bulk(size int64) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(e.TCPConn, newNoise(7, size))
		sent <- err
	}()
	g := receive(io.LimitReader(e.in, size), nil)
	if err := <-sent; err != nil {
		return err
	}
	if g.err == nil && g.sum != sumOf(7, size) {
		g.err = &net.ParseError{Type: "checksum", Text: g.sum}
	}
	return g.err
}
