package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

const ms = time.Millisecond

// twins are the uplinks of most tests.
func twins() []lab.Uplink {
	return []lab.Uplink{
		{Name: "wifi", Rate: 50e6, Delay: 10 * ms},
		{Name: "lte", Rate: 50e6, Delay: 10 * ms},
	}
}

// wide are uplinks for long transfers in which the rate does not matter: what
// the emulator carries with ease.
func wide() []lab.Uplink {
	return []lab.Uplink{
		{Name: "wifi", Rate: 100e6, Delay: 10 * ms},
		{Name: "lte", Rate: 100e6, Delay: 10 * ms},
	}
}

// fast are uplinks for tests in which rates do not matter.
func fast() []lab.Uplink {
	return []lab.Uplink{{Name: "wifi", Unshaped: true}, {Name: "lte", Unshaped: true}}
}

// rig is a lab with both agents at work.
type rig struct {
	*lab.Lab
	t       testing.TB
	uplinks []lab.Uplink
	pair    *pair.Pair
	base    map[string]int // file descriptors of each agent at the start
}

// start builds the lab and starts both agents; everything is stopped, and
// leftovers are looked for, when the test ends.
func start(t testing.TB, uplinks []lab.Uplink, o pair.Options) *rig {
	t.Helper()
	r := prepare(t, uplinks, o)
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	r.startedBase()
	return r
}

// startedBase notes what the agents hold now.
func (r *rig) startedBase() {
	r.base = map[string]int{"edge": r.fds(r.pair.Edge), "cloud": r.fds(r.pair.Cloud)}
}

// prepare is start without starting the agents.
func prepare(t testing.TB, uplinks []lab.Uplink, o pair.Options) *rig {
	t.Helper()
	return prepareLab(t, lab.Spec{Name: "e2e", IPv6: true, Uplinks: uplinks, Seed: 1, Clients: 1}, o)
}

// prepareLab is prepare for any lab.
func prepareLab(t testing.TB, spec lab.Spec, o pair.Options) *rig {
	t.Helper()
	lab.NeedRoot(t)
	lab.NeedTools(t, "iptables", "ip6tables")
	r := &rig{Lab: lab.Build(t, spec), t: t, uplinks: spec.Uplinks}
	var err error
	if r.pair, err = pair.New(r.Lab, spec, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.finish)
	return r
}

// finish stops the agents and fails the test for what they leave behind. When it has
// failed already, what the agents have counted is printed: why a connection was reset,
// say.
func (r *rig) finish() {
	if r.t.Failed() {
		r.tell()
	}
	if err := r.pair.Stop(); err != nil {
		r.t.Errorf("stop: %v", err)
	}
	r.noLeaks()
}

// tell prints the status of agents that still answer.
func (r *rig) tell() {
	for _, role := range []string{"edge", "cloud"} {
		status, err := r.pair.Status(role)
		if err != nil {
			r.t.Logf("%s has no status: %v", role, err)
			continue
		}
		text, err := json.Marshal(status)
		r.t.Logf("%s: %s %v", role, text, err)
	}
}

// noLeaks fails the test for what is left behind. That stays; what other programs
// do to the root namespace meanwhile is gone within a moment.
func (r *rig) noLeaks() {
	r.t.Helper()
	leaks, err := r.Leaks()
	for range 20 {
		if err == nil && len(leaks) == 0 {
			return
		}
		time.Sleep(100 * ms)
		leaks, err = r.Leaks()
	}
	if err != nil {
		r.t.Error(err)
	}
	for _, l := range leaks {
		r.t.Errorf("left behind: %s", l)
	}
}

// fds counts a process's file descriptors.
func (r *rig) fds(p *lab.Proc) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}

// quiet waits until all flows are gone and checks that the agents hold no more
// descriptors and hardly more goroutines than at the start.
func (r *rig) quiet() {
	r.t.Helper()
	if err := r.pair.WaitIdle(20 * time.Second); err != nil {
		r.t.Error(err)
		return
	}
	for role, p := range map[string]*lab.Proc{"edge": r.pair.Edge, "cloud": r.pair.Cloud} {
		var fds int
		for range 100 {
			if fds = r.fds(p); fds <= r.base[role]+4 {
				break
			}
			time.Sleep(50 * ms)
		}
		if fds > r.base[role]+4 {
			r.t.Errorf("%s holds %d descriptors, %d at the start", role, fds, r.base[role])
		}
		r.fewGoroutines(role)
	}
}

// maxGoroutines is far above what two workers and two links need and far below
// one per flow of any test that opens many.
const maxGoroutines = 120

func (r *rig) fewGoroutines(role string) {
	r.t.Helper()
	var n uint64
	for range 100 {
		s, err := r.pair.Status(role)
		if err != nil {
			r.t.Error(err)
			return
		}
		if n = s.Counters["goroutines"]; n <= maxGoroutines {
			return
		}
		time.Sleep(50 * ms)
	}
	r.t.Errorf("%s runs %d goroutines", role, n)
}

// origin returns the origin's address with a port.
func (r *rig) origin(f lab.Family, port int) string {
	return netip.AddrPortFrom(r.Address("origin", f), uint16(port)).String()
}

// listen opens a listener on a node.
func (r *rig) listen(node string, port int) net.Listener {
	r.t.Helper()
	var ln net.Listener
	err := r.Do(node, func() (err error) {
		ln, err = net.Listen("tcp", ":"+strconv.Itoa(port))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ln.Close() })
	return ln
}

// serve runs handle for every connection to a port of the origin.
func (r *rig) serve(port int, handle func(*net.TCPConn)) {
	ln := r.listen("origin", port)
	go accepted(ln, handle)
}

// accepted runs handle for every connection until the listener is closed.
func accepted(ln net.Listener, handle func(*net.TCPConn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go handle(c.(*net.TCPConn))
	}
}

// dial connects from the client, with a deadline for all that follows.
func (r *rig) dial(to string, limit time.Duration) (*net.TCPConn, error) {
	return r.dialAt("client", to, limit)
}

// dialAt is dial for a client of any edge.
func (r *rig) dialAt(node, to string, limit time.Duration) (*net.TCPConn, error) {
	var c net.Conn
	err := r.Do(node, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		c, err = new(net.Dialer).DialContext(ctx, "tcp", to)
		return err
	})
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), nil
}

func (r *rig) mustDial(to string, limit time.Duration) *net.TCPConn {
	r.t.Helper()
	c, err := r.dial(to, limit)
	if err != nil {
		r.t.Fatalf("dial %s: %v", to, err)
	}
	return c
}

// fetch receives all that a server sends and closes.
func (r *rig) fetch(from string, limit time.Duration) gauge {
	r.t.Helper()
	c := r.mustDial(from, limit)
	defer c.Close()
	return receive(c, nil)
}

// blackhole cuts an uplink silently, both ways, or restores it.
func (r *rig) blackhole(uplink string, on bool) {
	r.t.Helper()
	if err := r.Blackhole(uplink, emu.Both, on); err != nil {
		r.t.Fatal(err)
	}
}

// noise is a stream of bytes that do not compress, the same for each seed.
type noise struct {
	src  *rand.ChaCha8
	left int64
}

func newNoise(seed byte, size int64) *noise {
	return &noise{src: rand.NewChaCha8([32]byte{seed}), left: size}
}

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.left)]
	k, err := n.src.Read(p)
	n.left -= int64(k)
	return k, err
}

// sumOf is the checksum of a noise.
func sumOf(seed byte, size int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, newNoise(seed, size))
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// gauge reads a stream to its end: checksum, size, longest gap between two
// reads, and when the first byte came.
type gauge struct {
	sum   string
	size  int64
	stall time.Duration
	took  time.Duration
	err   error
}

// receive reads c to its end. progress, if any, is told the bytes so far.
func receive(c io.Reader, progress func(int64)) (g gauge) {
	h := sha256.New()
	buf := make([]byte, 64<<10)
	begin := time.Now()
	last := begin
	for {
		n, err := c.Read(buf)
		now := time.Now()
		if n > 0 {
			g.stall = max(g.stall, now.Sub(last))
			last = now
			h.Write(buf[:n])
			g.size += int64(n)
			if progress != nil {
				progress(g.size)
			}
		}
		if err != nil {
			g.took = last.Sub(begin)
			g.sum = fmt.Sprintf("%x", h.Sum(nil)[:8])
			if !errors.Is(err, io.EOF) {
				g.err = err
			}
			return g
		}
	}
}

func (g gauge) String() string {
	return fmt.Sprintf("%d bytes in %.2f s (%.1f Mbit/s), longest stall %d ms", g.size, g.took.Seconds(), float64(g.size)*8/1e6/g.took.Seconds(), g.stall.Milliseconds())
}

// families runs a test for IPv4 and IPv6.
func families(t *testing.T, run func(*testing.T, lab.Family)) {
	for name, f := range map[string]lab.Family{"IPv4": lab.IPv4, "IPv6": lab.IPv6} {
		t.Run(name, func(t *testing.T) { run(t, f) })
	}
}

// lastLine returns the last line of a text.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// sender serves a noise of size bytes.
func sender(size int64) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, size))
	}
}

// joined makes one text of words.
func joined(words []string) string { return strings.Join(words, " ") }
