package split

import (
	"bytes"
	"io"
	"math/bits"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// TestTrim: connections take no more than what netstack and the stack use of them, at
// rest less, and work on.
func TestTrim(t *testing.T) {
	if newTrimmer() == nil {
		t.Fatal("this netstack has not what is to be trimmed")
	}
	const n, atRest, ever = 300, 100 * bits.UintSize / 64, 5000
	l := newLab(t, true)
	conns := make(chan *Conn, n)
	s, _ := l.start(l.guarded(guard.Fast, guard.Limits{}), func(c *Conn) {
		c.Watch(nopReady)
		conns <- c
	})
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var all []*Conn
	var ends []int
	open := func() {
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			must(t, err)
			t.Cleanup(func() { _ = unix.Close(fd) })
			must(t, unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{198, 18, 200, 1}}))
			c := <-conns
			c.Open(-1)
			echoOnce(t, fd, c)
			all, ends = append(all, c), append(ends, fd)
		}
		time.Sleep(50 * time.Millisecond) // the last acknowledgements come
	}
	in(t, l.client, open) // pools and tables fill
	s.Trim()
	empty := heap()
	in(t, l.client, open)
	before := heap()
	s.Trim()
	after := heap()
	each, less := (after-empty)/n, (before-after)/n
	t.Logf("%d bytes for each of %d, %d less than before", each, n, less)
	if less < atRest {
		t.Errorf("%d bytes were taken from each at rest, want %d", less, atRest)
	}
	if each > ever {
		t.Errorf("each has %d bytes, want at most %d", each, ever)
	}
	s.Trim() // finds nothing more
	for i, c := range all {
		echoOnce(t, ends[i], c)
	}
}

// TestTrimDialed: netstack would keep of each dial what led its handshake, as long as the
// connection lives; without it the connection carries bytes, and ends, as any.
func TestTrimDialed(t *testing.T) {
	l := newLab(t, false)
	l.serve("198.18.2.2:7", echoServer)
	s, _ := l.start(l.options(0, 1), nil)
	c, err := s.Dial(netip.MustParseAddrPort("198.18.2.2:7"), "")
	must(t, err)
	w := watch(t, c)
	must(t, w.connected())
	if follow(unsafe.Pointer(c.ep.(*tcp.Endpoint)), s.trimmer.hand) != nil {
		t.Error("the handshake is kept")
	}
	want := random(64 << 10)
	n, err := c.Write(want)
	must(t, err)
	if got, err := w.read(n); err != nil || !bytes.Equal(got, want[:n]) {
		t.Errorf("%d bytes back of %d, %v", len(got), n, err)
	}
	must(t, c.CloseWrite())
	if _, err := w.read(1); err != io.EOF {
		t.Errorf("read: %v, want EOF", err)
	}
	c.Close()
}

// echoOnce sends some bytes from a client to its connection and back.
func echoOnce(t *testing.T, fd int, c *Conn) {
	p := make([]byte, 64)
	_, err := unix.Write(fd, p)
	must(t, err)
	for _, do := range []func([]byte) (int, error){c.Read, c.Write} {
		n, err := do(p)
		for err == party.ErrAgain {
			time.Sleep(50 * time.Microsecond)
			n, err = do(p)
		}
		if n != len(p) || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	n, err := unix.Read(fd, p)
	if n != len(p) || err != nil {
		t.Fatalf("the client has %d bytes back, %v", n, err)
	}
}

// TestConnIsSmall: what a client's connection costs an agent beside netstack's part, each
// rounded up to one of Go's sizes.
func TestConnIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 208 {
		t.Errorf("a Conn has %d bytes, want 208 at most", n)
	}
	if n := unsafe.Sizeof(ward{}); n > 192 {
		t.Errorf("the guard's part has %d bytes, want 192 at most", n)
	}
}
