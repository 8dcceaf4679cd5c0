package box

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"hawser/netns"
	"hawser/pkg/card"
	"hawser/pkg/link"
	"hawser/pkg/relay"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newEdge builds two workers with transparent sockets; there is no session.
func newEdge(t *testing.T) *Workers {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: opens transparent sockets")
	}
	w, err := NewWorkers(Options{
		Role: card.Edge, Count: 2, Sockets: netns.Loopbacks(), Log: slog.New(slog.DiscardHandler),
		Session: func() stream.Tunnel { return nil },
	})
	must(t, err)
	return w
}

// connect connects a program of the host to a transparent socket itself.
func connect(to netip.AddrPort) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", to.String(), time.Minute)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(time.Minute))
}

// readReset reads until the connection is reset.
func readReset(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v: %v, want a reset", c.RemoteAddr(), err)
	}
}

// TestDirectConnections: who connects to a listener itself wants no server. All
// workers' listeners share one address per family, and status counts.
func TestDirectConnections(t *testing.T) {
	w := newEdge(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	sockets := w.Sockets()
	if len(sockets) != len(netns.Loopbacks()) {
		t.Fatalf("sockets %v", sockets)
	}
	const each = 20
	for _, s := range sockets {
		for range each {
			c, err := connect(s)
			if err == nil {
				readReset(t, c)
			} else if !errors.Is(err, syscall.ECONNRESET) { // it may come before Dial returns
				t.Error(err)
			}
		}
	}
	s := w.Describe(time.Now(), tunnel.NewBudget(1<<20), &link.Counters{})
	if want := uint64(each * len(sockets)); s.Intercept != netns.InterceptTPROXY || s.Counters["sockets_refused"] != want || s.Counters["sockets_accepted"] != 0 {
		t.Errorf("intercept %q, counters %v; want %d refused", s.Intercept, s.Counters, want)
	}
	if w.doors[0].refused.Load() == 0 || w.doors[1].refused.Load() == 0 {
		t.Error("one worker took all connections")
	}
	// Accepting ends with the flows, before the rest.
	w.StopFlows()
	if c, err := net.DialTimeout("tcp", sockets[0].String(), time.Second); err == nil {
		c.Close()
		t.Error("a socket still listens after StopFlows")
	}
	cancel()
	must(t, <-ended)
}

// TestDiscard: workers that never run give back what they hold, and reset who
// is waiting.
func TestDiscard(t *testing.T) {
	must(t, newEdge(t).Discard()) // what the runtime opens once
	before := files(t)
	w := newEdge(t)
	c, err := connect(w.Sockets()[0])
	must(t, err)
	must(t, w.Discard())
	readReset(t, c)
	for range 3000 {
		if files(t) <= before {
			return
		}
		time.Sleep(10 * time.Millisecond) // the client's own descriptor
	}
	t.Errorf("%d descriptors, %d before", files(t), before)
}

func files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestFlowsWithin(t *testing.T) {
	for _, c := range []struct {
		files   uint64
		workers int
		want    int
	}{
		{1024, 2, 256}, // half is spared
		{20000, 2, (20000 - spareFiles) / 2},
		{1 << 20, 2, relay.DefaultFlows},
		{1 << 20, 256, (1<<20 - spareFiles) / 256},
		{8, 256, 1},
	} {
		if got := flowsWithin(c.files, c.workers); got != c.want {
			t.Errorf("%d files, %d workers: %d flows each, want %d", c.files, c.workers, got, c.want)
		}
	}
}

// TestIntercept: only an edge has one.
func TestIntercept(t *testing.T) {
	cloud, err := NewWorkers(Options{Role: card.Cloud, Count: 1, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer cloud.Discard()
	s := cloud.Describe(time.Now(), tunnel.NewBudget(1<<20), &link.Counters{})
	if s.Intercept != "" || cloud.Sockets() != nil {
		t.Errorf("cloud: intercept %q, sockets %v", s.Intercept, cloud.Sockets())
	}
}
