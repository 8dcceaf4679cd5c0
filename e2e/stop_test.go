package e2e

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// streams opens n endless downloads and returns their connections and what the
// server's ends saw.
func (r *rig) streams(n int) ([]*net.TCPConn, <-chan error) {
	r.t.Helper()
	ended := make(chan error, n)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, err := io.Copy(c, newNoise(1, 1<<40))
		ended <- err
	})
	var conns []*net.TCPConn
	for range n {
		c := r.mustDial(r.origin(lab.IPv4, 80), time.Minute)
		if _, err := io.CopyN(io.Discard, c, 100_000); err != nil {
			r.t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return conns, ended
}

// wantResets checks that all connections are reset soon.
func wantResets(t *testing.T, who string, conns []*net.TCPConn, ended <-chan error, limit time.Duration) {
	t.Helper()
	deadline := time.After(limit)
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(limit))
		if err := untilEnd(c); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%s: the client saw %v", who, err)
		}
		select {
		case err := <-ended:
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: the server saw %v", who, err)
			}
		case <-deadline:
			t.Fatalf("%s: the server was not told", who)
		}
	}
}

// untilEnd returns how a connection ends. A receiver from an agent that was
// killed learns of it when it speaks, so it does, now and then.
func untilEnd(c *net.TCPConn) error {
	read := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		read <- err
	}()
	for {
		select {
		case err := <-read:
			return err
		case <-time.After(500 * time.Millisecond):
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
	}
}

// TestStopWithOpenFlows: an agent that stops resets its flows on both sides at
// once and leaves a clean host; the other one lives on, and the pair works
// again after a restart.
func TestStopWithOpenFlows(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"edge", "cloud"} {
		t.Run(role, func(t *testing.T) { stopWithOpenFlows(t, role, pair.Options{}) })
	}
}

func stopWithOpenFlows(t *testing.T, role string, o pair.Options) {
	r := start(t, fast(), o)
	conns, ended := r.streams(5)
	if err := r.stop(role); err != nil {
		t.Error(err)
	}
	wantResets(t, role+" stopped", conns, ended, 15*time.Second)
	if err := r.restart(role); err != nil {
		t.Fatal(err)
	}
	r.mustWork()
}

// TestKill: after kill -9 of an agent a new start cleans up, flows of before
// are reset on both sides, and new flows work.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"edge", "cloud"} {
		t.Run(role, func(t *testing.T) { kill(t, role, pair.Options{}) })
	}
}

func kill(t *testing.T, role string, o pair.Options) {
	r := start(t, fast(), o)
	conns, ended := r.streams(3)
	r.proc(role).Kill()
	if err := r.restart(role); err != nil {
		t.Fatal(err)
	}
	wantResets(t, role+" killed", conns, ended, 15*time.Second)
	r.mustWork()
}

// TestKillThenCleanup: the verb cleanup removes what a killed agent left.
func TestKillThenCleanup(t *testing.T) { killThenCleanup(t, pair.Options{}) }

func killThenCleanup(t *testing.T, o pair.Options) {
	r := start(t, fast(), o)
	for role, conf := range map[string]string{"edge": r.pair.EdgeConf(), "cloud": r.pair.CloudConf()} {
		r.proc(role).Kill()
		if out, err := r.run(role, "cleanup", "-c", conf); err != nil {
			t.Errorf("%s cleanup: %v\n%s", role, err, out)
		}
	}
	r.noLeaks()
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	r.mustWork()
}

func (r *rig) proc(role string) *lab.Proc {
	if role == "edge" {
		return r.pair.Edge
	}
	return r.pair.Cloud
}

// stop ends an agent in the orderly way.
func (r *rig) stop(role string) error { return r.proc(role).Stop() }

// restart starts an agent anew and waits until the links are up.
func (r *rig) restart(role string) error {
	begin := r.pair.StartCloud
	if role == "edge" {
		begin = r.pair.StartEdge
	}
	if err := begin(); err != nil {
		return err
	}
	return r.pair.WaitUp(2, 30*time.Second)
}

// mustWork fetches something small.
func (r *rig) mustWork() {
	r.t.Helper()
	r.serve(90, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(3, 300_000))
	})
	if g := r.fetch(r.origin(lab.IPv4, 90), 20*time.Second); g.err != nil || g.sum != sumOf(3, 300_000) {
		r.t.Errorf("a new flow got %v, %v", g, g.err)
	}
}

// run runs a verb of an agent's binary on its node.
func (r *rig) run(role string, args ...string) (string, error) {
	bin, err := lab.Binary("hawser/" + role)
	if err != nil {
		return "", err
	}
	return r.Exec(role, append([]string{bin}, args...)...)
}
