package split

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// TestTrim: connections take no more than what netstack and the stack use of them, at
// rest less, and work on.
func TestTrim(t *testing.T) {
	if newTrimmer() == nil {
		t.Fatal("this netstack has not what is to be trimmed")
	}
	const n, atRest, ever = 300, 100, 5200
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
