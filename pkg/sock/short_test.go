package sock

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"hawser/pkg/party"
)

// readAll reads to the end, waiting where the connection says so. size is what
// each read asks for.
func (e *end) readAll(size int) (got []byte) {
	e.rig.t.Helper()
	p := make([]byte, size)
	for {
		n, err := e.Read(p)
		got = append(got, p[:n]...)
		switch {
		case errors.Is(err, party.ErrAgain):
			e.again(party.Readable)
			e.wait(party.Readable)
		case errors.Is(err, io.EOF):
			return got
		default:
			must(e.rig.t, err)
		}
	}
}

// sendUrgent sends the last byte of text as urgent data.
func sendUrgent(t testing.TB, c *net.TCPConn, text string) {
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(text), unix.MSG_OOB, nil) }))
	must(t, err)
}

// TestShortReads: a read that gets less than it asks for counts as one that took
// all; what stops a read before the end of what is there must not get lost. Urgent
// bytes have their place among the others.
func TestShortReads(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(*net.TCPConn)
		want string
	}{
		{"data and the end", func(c *net.TCPConn) { _, _ = c.Write([]byte("one")) }, "one"},
		{"urgent data between", func(c *net.TCPConn) {
			_, _ = c.Write([]byte("one"))
			sendUrgent(t, c, "!")
			_, _ = c.Write([]byte("two"))
		}, "one!two"},
		{"urgent data first", func(c *net.TCPConn) {
			sendUrgent(t, c, "!")
			_, _ = c.Write([]byte("two"))
		}, "!two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			sent := make(chan struct{})
			conn, err := Dial(r.p, kernelServer(t, "tcp", "127.0.0.1:0", func(s *net.TCPConn) {
				c.send(s)
				s.CloseWrite()
				close(sent)
				_, _ = io.Copy(io.Discard, s)
				s.Close()
			}), 0, "")
			must(t, err)
			e := r.watch(conn)
			must(t, e.connected())
			<-sent // all is there, in one event or in several
			if got := string(e.readAll(100)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestDryUntilMore: after a short read nothing is there until an event says so.
func TestDryUntilMore(t *testing.T) {
	r := newRig(t)
	more := make(chan struct{})
	conn, err := Dial(r.p, kernelServer(t, "tcp", "127.0.0.1:0", func(s *net.TCPConn) {
		_, _ = s.Write([]byte("one"))
		<-more
		_, _ = s.Write([]byte("two"))
		s.Close()
	}), 0, "")
	must(t, err)
	e := r.watch(conn)
	must(t, e.connected())
	e.wait(party.Readable)
	p := make([]byte, 100)
	if n, err := e.Read(p); n != 3 || err != nil {
		t.Fatalf("read %d, %v, want 3", n, err)
	}
	if !conn.dry {
		t.Error("a read of all that was there is followed by another")
	}
	if n, err := e.Read(p); n != 0 || !errors.Is(err, party.ErrAgain) {
		t.Fatalf("read %d, %v, want ErrAgain", n, err)
	}
	e.again(party.Readable)
	close(more)
	e.wait(party.Readable)
	if got := string(e.readAll(100)); got != "two" {
		t.Errorf("got %q, want two", got)
	}
}
