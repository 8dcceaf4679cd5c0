package split

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// TestTrim: connections at rest take less after they were trimmed, and work on.
func TestTrim(t *testing.T) {
	if newTrimmer() == nil {
		t.Fatal("this netstack has not what is to be trimmed")
	}
	const n, least = 400, 400
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
	in(t, l.client, func() {
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
	})
	time.Sleep(50 * time.Millisecond) // the last acknowledgements come
	before := heap()
	s.Trim()
	each := (before - heap()) / n
	t.Logf("%d bytes less for each of %d", each, n)
	if each < least {
		t.Errorf("%d bytes were taken from each, want %d", each, least)
	}
	s.Trim() // finds nothing more
	for i, c := range all {
		echoOnce(t, ends[i], c)
	}
}

// echoOnce sends some bytes from a client to its connection and back.
func echoOnce(t *testing.T, fd int, c *Conn) {
	t.Helper()
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
