package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestSamePortAgain: a client that comes again from the same port at once, while the
// edge may still have the connection before in TIME-WAIT, is served (RFC 6191).
func TestSamePortAgain(t *testing.T) {
	t.Parallel()
	samePortAgain(t, pair.Options{})
}

// TestTproxySamePortAgain is the same without hubs.
func TestTproxySamePortAgain(t *testing.T) {
	t.Parallel()
	samePortAgain(t, pair.Options{Intercept: "tproxy", Egress: "socket"})
}

func samePortAgain(t *testing.T, o pair.Options) {
	r := start(t, fast(), o)
	r.serve(80, func(c *net.TCPConn) { // ends first
		fmt.Fprint(c, "good bye")
		c.Close()
	})
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	families(t, func(t *testing.T, f lab.Family) {
		for range 8 {
			c := r.dialFrom(t, 40000, r.origin(f, 80))
			if p, err := io.ReadAll(c); err != nil || string(p) != "good bye" {
				t.Errorf("after the server's end: %q, %v", p, err)
			}
			c.Close()
		}
		for range 8 {
			c := r.dialFrom(t, 40001, r.origin(f, 81))
			fmt.Fprint(c, "hello")
			p := make([]byte, 5)
			if _, err := io.ReadFull(c, p); err != nil || string(p) != "hello" {
				t.Errorf("after a reset: %q, %v", p, err)
			}
			_ = c.SetLinger(0)
			c.Close()
		}
	})
	r.quiet()
}

// dialFrom connects from a port of the client. The client's own kernel may have the
// connection before for as long as the last packets take.
func (r *rig) dialFrom(t *testing.T, port int, to string) *net.TCPConn {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(failed, err)
	}}
	d.SetMultipathTCP(false)
	var c net.Conn
	var err error
	for range 50 {
		err = r.Do("client", func() (err error) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			c, err = d.DialContext(ctx, "tcp", to)
			return err
		})
		if !errors.Is(err, unix.EADDRNOTAVAIL) {
			break
		}
		time.Sleep(5 * ms)
	}
	if err != nil {
		t.Fatalf("from port %d to %s: %v", port, to, err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}
