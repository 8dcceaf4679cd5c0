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

// TestClientAbort: a client that resets its connection in mid-transfer has it
// reset at the server too, and nothing of it stays.
func TestClientAbort(t *testing.T) { clientAbort(t, pair.Options{}) }

func clientAbort(t *testing.T, o pair.Options) {
	r := start(t, twins(), o)
	ended := make(chan error, 1)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, err := io.Copy(c, newNoise(1, 1<<40))
		ended <- err
	})
	c := r.mustDial(r.origin(lab.IPv4, 80), time.Minute)
	if _, err := io.CopyN(io.Discard, c, 5e6); err != nil {
		t.Fatal(err)
	}
	_ = c.SetLinger(0)
	c.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the server saw %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the server was not told")
	}
	r.quiet()
}

// TestServerAbort is the mirror.
func TestServerAbort(t *testing.T) { serverAbort(t, pair.Options{}) }

func serverAbort(t *testing.T, o pair.Options) {
	r := start(t, twins(), o)
	r.serve(80, func(c *net.TCPConn) {
		_, _ = io.Copy(c, newNoise(1, 5e6))
		_ = c.SetLinger(0)
		c.Close()
	})
	g := r.fetch(r.origin(lab.IPv4, 80), 30*time.Second)
	if !errors.Is(g.err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v after %d bytes", g.err, g.size)
	}
	r.quiet()
}
