package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestBothUplinksDown: with both uplinks silently dead for 20 s open flows
// lose no byte, in either direction, and go on soon after.
func TestBothUplinksDown(t *testing.T) {
	t.Parallel()
	r := start(t, twins(), pair.Options{})
	const size = 60_000_000
	up := make(chan gauge, 1)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, size))
	})
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		up <- receive(c, nil)
	})
	r.fairly(t, func() []string { return r.blackout(t, size, up) })
	r.quiet()
}

// blackout cuts both uplinks for 20 s while a flow runs each way; up brings what
// the server received.
func (r *rig) blackout(t *testing.T, size int64, up <-chan gauge) (b bounds) {
	const limit = 90 * time.Second
	down := make(chan gauge, 1)
	go func() { down <- r.fetch(r.origin(lab.IPv4, 80), limit) }()
	c := r.mustDial(r.origin(lab.IPv6, 81), limit)
	defer c.Close()
	go func() {
		_, _ = io.Copy(c, newNoise(2, size))
		_ = c.CloseWrite()
	}()
	time.Sleep(2 * time.Second)
	begin := time.Now()
	for _, u := range twins() {
		r.blackhole(u.Name, true)
	}
	time.Sleep(20 * time.Second)
	dark := time.Since(begin)
	for _, u := range twins() {
		r.blackhole(u.Name, false)
	}
	for name, got := range map[string]struct {
		ch   <-chan gauge
		seed byte
	}{"download": {down, 1}, "upload": {up, 2}} {
		g := await(t, got.ch)
		t.Logf("%s: %v", name, g)
		if g.err != nil || g.sum != sumOf(got.seed, size) {
			t.Errorf("%s: %v", name, g.err)
		}
		if g.stall < 19*time.Second {
			t.Errorf("%s: the longest stall was %v, want 20 s and a little", name, g.stall)
		}
		b.within(name+": the longest stall, beyond the time without any uplink", g.stall-dark, 3*time.Second)
	}
	return b
}
