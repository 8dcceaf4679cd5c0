package link

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// narrow is a path to a cloud that carries, while it is narrow, nothing of connections whose
// segments may be full ones: it accepts them and is silent.
type narrow struct {
	t     *testing.T
	ln    net.Listener
	cloud netip.AddrPort
	is    atomic.Bool
	seen  chan int // the segments of each connection, in turn
}

func newNarrow(t *testing.T, cloud netip.AddrPort) *narrow {
	t.Helper()
	ln, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	n := &narrow{t: t, ln: ln, cloud: cloud, seen: make(chan int, 16)}
	n.is.Store(true)
	done := make(chan struct{})
	go n.run(done)
	t.Cleanup(func() { ln.Close(); <-done })
	return n
}

func (n *narrow) addr() netip.AddrPort { return addrPort(n.ln.Addr()) }

func (n *narrow) run(done chan<- struct{}) {
	defer close(done)
	for {
		c, err := n.ln.Accept()
		if err != nil {
			return
		}
		n.t.Cleanup(func() { c.Close() })
		size := segmentOf(c)
		n.seen <- size
		if n.is.Load() && size > smallSegment {
			continue
		}
		up, err := net.Dial("tcp", n.cloud.String())
		if err != nil {
			n.t.Error(err)
			return
		}
		n.t.Cleanup(func() { up.Close() })
		go pass(up, c)
		go pass(c, up)
	}
}

// pass carries one direction to its end.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
}

// segmentOf is the largest segment that may be sent on a connection.
func segmentOf(c net.Conn) (size int) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { size, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	}
	return size
}

// TestNarrowPath: where a path swallows full segments the attempt after one that has stood
// still connects all the same. Each race begins with full segments, so that a path that has
// become wide again has them.
func TestNarrowPath(t *testing.T) {
	c := startCloud(t, loopback, nil)
	n := newNarrow(t, c.listener.Addr())
	d := c.dialer(TCP, func(o *DialerOptions) { o.Remote = n.addr() })
	still := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if _, _, err := d.Dial(ctx, sampleHello()); !errors.Is(err, ErrSilent) {
			t.Fatalf("a handshake with full segments: %v", err)
		}
		if size := <-n.seen; size <= smallSegment {
			t.Fatalf("it was made with segments of %d bytes", size)
		}
	}
	stands := func(small bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), ample)
		defer cancel()
		conn, _, err := d.Dial(ctx, sampleHello())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(nil)
		defer (<-c.conns).Close(nil)
		if size := <-n.seen; size <= smallSegment != small {
			t.Fatalf("connected with segments of %d bytes", size)
		}
	}
	still()
	stands(true)
	still()
	stands(true)
	n.is.Store(false)
	stands(false)
	stands(false)
}

// TestSegments: attempts take turns while full segments are in doubt, connections that join
// a link's are as that is, and an attempt that was only called off says nothing.
func TestSegments(t *testing.T) {
	var s segments
	late, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	want := func(joins bool, small ...bool) {
		t.Helper()
		for i, w := range small {
			if got := s.choose(joins); got != w {
				t.Errorf("attempt %d: small %v, want %v", i+1, got, w)
			}
		}
	}
	want(false, false, false)
	s.failed(gone, false)
	want(false, false, false)
	s.failed(late, false)
	s.failed(late, false)
	want(true, false)
	want(false, true, false, true)
	s.failed(late, false)
	s.failed(late, true)
	want(false, false, true)
	s.stood(true)
	want(true, true)
	want(false, false, true, false)
	s.stood(false)
	want(true, false)
	want(false, false, false)
}
