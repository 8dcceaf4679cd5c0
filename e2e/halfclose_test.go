package e2e

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestHalfClose: each side may end its direction first and go on receiving.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	halfClose(t, pair.Options{})
}

func halfClose(t *testing.T, o pair.Options) {
	r := start(t, fast(), o)
	heard := make(chan string, 2)
	r.serve(80, func(c *net.TCPConn) { // answers only after the client's end
		defer c.Close()
		p, err := io.ReadAll(c)
		fmt.Fprintf(c, "%d bytes, %v", len(p), err)
	})
	r.serve(81, func(c *net.TCPConn) { // ends first, then listens
		defer c.Close()
		fmt.Fprint(c, "your turn")
		_ = c.CloseWrite()
		p, _ := io.ReadAll(c)
		heard <- string(p)
	})
	families(t, func(t *testing.T, f lab.Family) {
		c := r.mustDial(r.origin(f, 80), 10*time.Second)
		defer c.Close()
		fmt.Fprint(c, "question")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if p, err := io.ReadAll(c); err != nil || string(p) != "8 bytes, <nil>" {
			t.Errorf("client ended first: %q, %v", p, err)
		}
		d := r.mustDial(r.origin(f, 81), 10*time.Second)
		defer d.Close()
		if p, err := io.ReadAll(d); err != nil || string(p) != "your turn" {
			t.Errorf("server ended first: %q, %v", p, err)
		}
		fmt.Fprint(d, "late words")
		_ = d.CloseWrite()
		select {
		case got := <-heard:
			if got != "late words" {
				t.Errorf("server heard %q", got)
			}
		case <-time.After(time.Minute):
			t.Error("server heard nothing after its own end")
		}
	})
	r.quiet()
}
