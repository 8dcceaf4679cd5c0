package e2e

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestClientAbort: a client that resets its connection in mid-transfer has it
// reset at the server too, and nothing of it stays.
func TestClientAbort(t *testing.T) {
	t.Parallel()
	clientAbort(t, pair.Options{})
}

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
func TestServerAbort(t *testing.T) {
	t.Parallel()
	serverAbort(t, pair.Options{})
}

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

// TestLastWords: what one end sent just before it reset its connection reaches the other
// end first, as it does without us. So a client that uploads hears why the server takes no
// more: that answers, closes with bytes unread, and resets the connection by that. Urgent
// bytes have their place among the others.
func TestLastWords(t *testing.T) {
	t.Parallel()
	lastWords(t, pair.Options{})
}

func lastWords(t *testing.T, o pair.Options) {
	const answer = "HTTP/1.1 413 Content Too Large\r\n\r\n"
	r := start(t, twins(), o)
	r.serve(80, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1000))
		_, _ = io.WriteString(c, answer)
		c.Close()
	})
	said := make(chan string, 1)
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		if raw, err := c.SyscallConn(); err == nil {
			_ = setSockopt(raw, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
		}
		_, _ = io.WriteString(c, answer)
		p, err := io.ReadAll(c)
		if errors.Is(err, syscall.ECONNRESET) {
			p = append(p, ", reset"...)
		}
		said <- string(p)
	})
	families(t, func(t *testing.T, f lab.Family) {
		for _, size := range []int64{2000, 5e6} {
			c := r.mustDial(r.origin(f, 80), 20*time.Second)
			_, _ = io.Copy(c, newNoise(1, size)) // the reset ends it
			if p, _ := io.ReadAll(c); string(p) != answer {
				t.Errorf("after an upload of up to %d bytes the client has heard %q", size, p)
			}
			c.Close()
		}
		c := r.mustDial(r.origin(f, 81), 20*time.Second)
		_, _ = io.ReadFull(c, make([]byte, len(answer)))
		r.urgent(t, c, "interrupt!")
		_, _ = io.WriteString(c, "bye")
		_ = c.SetLinger(0)
		c.Close()
		select {
		case got := <-said:
			if got != "interrupt!bye, reset" {
				t.Errorf("the server has heard %q", got)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server was not told")
		}
	})
	r.quiet()
}

// urgent sends a text whose last byte is urgent, as telnet does for Ctrl-C.
func (r *rig) urgent(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(text), unix.MSG_OOB, nil) }); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
}
