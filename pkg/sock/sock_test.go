package sock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/party"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a poller whose worker is the test's goroutine.
type rig struct {
	t testing.TB
	p *Poller
}

func newRig(t testing.TB) *rig {
	p, err := NewPoller()
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return &rig{t, p}
}

// end is a watched Conn.
type end struct {
	*Conn
	rig  *rig
	bits party.Ready
}

func (r *rig) watch(c *Conn) *end {
	e := &end{Conn: c, rig: r}
	c.Watch(func(b party.Ready) {
		if b&^(party.Readable|party.Writable|party.Hangup) != 0 || b == 0 {
			r.t.Errorf("reported bits %b", b)
		}
		if e.bits&b != 0 {
			r.t.Errorf("bits %b reported again without ErrAgain", e.bits&b)
		}
		e.bits |= b
	})
	r.t.Cleanup(c.Abort)
	return e
}

// wait lets the poller work until one of the bits is there.
func (e *end) wait(bits party.Ready) {
	e.rig.t.Helper()
	for limit := time.Now().Add(time.Minute); e.bits&bits == 0; {
		must(e.rig.t, e.rig.p.Wait(time.Second))
		if time.Now().After(limit) {
			e.rig.t.Fatalf("readiness %b not reported within a minute", bits)
		}
	}
}

// again forgets the bit that ErrAgain takes back.
func (e *end) again(bit party.Ready) { e.bits &^= bit }

func (e *end) connected() error {
	e.rig.t.Helper()
	for {
		err := e.Connected()
		if !errors.Is(err, party.ErrAgain) {
			return err
		}
		e.again(party.Writable)
		e.wait(party.Writable | party.Hangup)
	}
}

// kernelServer listens on loopback with handle.
func kernelServer(t testing.TB, network, addr string, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen(network, addr)
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	c.Close()
}

func TestEcho(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		r := newRig(t)
		c, err := Dial(r.p, kernelServer(t, "tcp", addr, echo), 0, "")
		must(t, err)
		e := r.watch(c)
		must(t, e.connected())
		if n := c.Offered(); n < 10_000 {
			t.Errorf("%s: the server offers %d bytes", addr, n)
		}
		data := make([]byte, 20<<20)
		_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
		left, got, buf := data, make([]byte, 0, len(data)), make([]byte, 64<<10)
		for len(got) < len(data) {
			n, werr := c.Write(left[:min(len(left), 256<<10)])
			left = left[n:]
			if len(left) == 0 && werr == nil && n > 0 {
				must(t, c.CloseWrite())
			}
			m, rerr := c.Read(buf)
			got = append(got, buf[:m]...)
			if errors.Is(werr, party.ErrAgain) {
				e.again(party.Writable)
			}
			if errors.Is(rerr, party.ErrAgain) {
				e.again(party.Readable)
			} else {
				must(t, rerr)
			}
			if n == 0 && m == 0 {
				e.wait(party.Readable | party.Writable)
				if len(left) == 0 {
					e.wait(party.Readable)
				}
			}
		}
		if !bytes.Equal(got, data) {
			t.Fatal("the echo differs")
		}
		e.wait(party.Readable)
		for {
			_, err := c.Read(buf)
			if err == io.EOF {
				break
			}
			if !errors.Is(err, party.ErrAgain) {
				t.Fatalf("read: %v, want EOF", err)
			}
			e.again(party.Readable)
			e.wait(party.Readable)
		}
		if e.bits&party.Hangup != 0 {
			t.Error("hangup reported for a connection that both sides closed well")
		}
		c.Close()
		c.Abort()
		c.Close()
	}
}

// The server's first words may come with the event that ends the dial.
func TestServerSpeaksFirst(t *testing.T) {
	r := newRig(t)
	dst := kernelServer(t, "tcp", "127.0.0.1:0", func(c *net.TCPConn) {
		_, _ = c.Write([]byte("hello"))
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	for range 20 {
		c, err := Dial(r.p, dst, 0, "")
		must(t, err)
		time.Sleep(5 * time.Millisecond) // both have happened before the first Wait
		e := r.watch(c)
		must(t, e.connected())
		e.wait(party.Readable)
		buf := make([]byte, 10)
		if n, err := c.Read(buf); string(buf[:n]) != "hello" {
			t.Fatalf("read %q, %v", buf[:n], err)
		}
		c.Abort()
	}
}

func TestDialRefused(t *testing.T) {
	r := newRig(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	dst := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	c, err := Dial(r.p, dst, 0, "")
	if err != nil { // loopback may answer at once
		if !errors.Is(err, party.ErrRefused) {
			t.Fatalf("dial: %v, want ErrRefused", err)
		}
		return
	}
	e := r.watch(c)
	for range 2 {
		if err := e.connected(); !errors.Is(err, party.ErrRefused) {
			t.Errorf("connected: %v, want ErrRefused", err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, party.ErrRefused) {
		t.Errorf("read: %v, want ErrRefused", err)
	}
}

func TestDialTimesOut(t *testing.T) {
	r := newRig(t)
	r.p.Patience = 50 * time.Millisecond
	// A backlog that is full answers no SYN: a silent server on loopback.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	must(t, err)
	defer syscall.Close(fd)
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, syscall.Listen(fd, 0))
	sa, err := syscall.Getsockname(fd)
	must(t, err)
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*syscall.SockaddrInet4).Port))
	filler, err := Dial(r.p, dst, 0, "")
	must(t, err)
	must(t, r.watch(filler).connected())
	c, err := Dial(r.p, dst, 0, "")
	must(t, err)
	e := r.watch(c)
	if err := e.connected(); !errors.Is(err, party.ErrUnreachable) {
		t.Errorf("connected: %v, want ErrUnreachable", err)
	}
	if !r.p.dials.empty() {
		t.Error("the dial still waits for its deadline")
	}
}

func TestReset(t *testing.T) {
	r := newRig(t)
	got := make(chan *net.TCPConn, 1)
	dst := kernelServer(t, "tcp", "127.0.0.1:0", func(c *net.TCPConn) { got <- c })

	c, err := Dial(r.p, dst, 0, "")
	must(t, err)
	e := r.watch(c)
	must(t, e.connected())
	server := <-got
	_, err = server.Write([]byte("last words"))
	must(t, err)
	must(t, server.SetLinger(0))
	server.Close()
	e.wait(party.Hangup)
	buf := make([]byte, 100)
	if n, err := c.Read(buf); string(buf[:n]) != "last words" {
		// The kernel may deliver the reset first; then it is the reason.
		if !errors.Is(err, party.ErrReset) {
			t.Errorf("read %q, %v", buf[:n], err)
		}
	}
	for range 2 {
		if _, err := c.Read(buf); !errors.Is(err, party.ErrReset) {
			t.Errorf("read: %v, want ErrReset", err)
		}
		if _, err := c.Write(buf); !errors.Is(err, party.ErrReset) {
			t.Errorf("write: %v, want ErrReset", err)
		}
	}

	c, err = Dial(r.p, dst, 0, "")
	must(t, err)
	must(t, r.watch(c).connected())
	server = <-got
	c.Abort()
	if _, err := server.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server reads: %v, want connection reset", err)
	}
	if _, err := c.Read(buf); !errors.Is(err, party.ErrReset) {
		t.Errorf("read after abort: %v, want ErrReset", err)
	}
}

func TestResetAfterFinIsNoEOF(t *testing.T) {
	r := newRig(t)
	finish := make(chan struct{})
	dst := kernelServer(t, "tcp", "127.0.0.1:0", func(c *net.TCPConn) {
		_ = c.CloseWrite()
		<-finish
		_ = c.SetLinger(0)
		c.Close()
	})
	c, err := Dial(r.p, dst, 0, "")
	must(t, err)
	e := r.watch(c)
	must(t, e.connected())
	e.wait(party.Readable)
	buf := make([]byte, 1)
	if _, err := c.Read(buf); err != io.EOF {
		t.Fatalf("read: %v, want EOF", err)
	}
	close(finish)
	e.wait(party.Hangup)
	if _, err := c.Read(buf); !errors.Is(err, party.ErrReset) {
		t.Errorf("read after the reset: %v, want ErrReset", err)
	}
	if _, err := c.Write(buf); !errors.Is(err, party.ErrReset) {
		t.Errorf("write after the reset: %v, want ErrReset", err)
	}
}

func TestHalfClose(t *testing.T) {
	r := newRig(t)
	dst := kernelServer(t, "tcp", "127.0.0.1:0", func(c *net.TCPConn) {
		p, _ := io.ReadAll(c)
		_, _ = c.Write(append(p, " answered"...))
		c.Close()
	})
	c, err := Dial(r.p, dst, 0, "")
	must(t, err)
	e := r.watch(c)
	must(t, e.connected())
	_, err = c.Write([]byte("question"))
	must(t, err)
	must(t, c.CloseWrite())
	var got []byte
	buf := make([]byte, 100)
	for {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if errors.Is(err, party.ErrAgain) {
			e.again(party.Readable)
			e.wait(party.Readable)
		} else {
			must(t, err)
		}
	}
	if string(got) != "question answered" {
		t.Errorf("got %q", got)
	}
	c.Close()
}

func TestWritev(t *testing.T) {
	r := newRig(t)
	sums := make(chan []byte, 1)
	dst := kernelServer(t, "tcp", "127.0.0.1:0", func(c *net.TCPConn) {
		p, _ := io.ReadAll(c)
		sums <- p
	})
	c, err := Dial(r.p, dst, 0, "")
	must(t, err)
	e := r.watch(c)
	must(t, e.connected())
	var bufs [][]byte
	for i := range 3000 {
		bufs = append(bufs, make([]byte, rand.IntN(8000)))
		for j := range bufs[i] {
			bufs[i][j] = byte(i + j)
		}
	}
	all := bytes.Join(bufs, nil)
	for len(bufs) > 0 {
		n, err := c.Writev(bufs)
		for len(bufs) > 0 && n >= len(bufs[0]) {
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		if len(bufs) > 0 {
			bufs[0] = bufs[0][n:]
		}
		if errors.Is(err, party.ErrAgain) {
			e.again(party.Writable)
			e.wait(party.Writable)
		} else {
			must(t, err)
		}
	}
	must(t, c.CloseWrite())
	if got := <-sums; !bytes.Equal(got, all) {
		t.Errorf("%d bytes arrive of %d", len(got), len(all))
	}
}
