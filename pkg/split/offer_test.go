package split

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTinySegments: a server that says that it takes tiny segments is sent larger ones. It
// is a client's, who would make the cloud send a packet for every few bytes.
func TestTinySegments(t *testing.T) {
	const size, announced = 64 << 10, 88 // the least that the kernel lets one announce
	l := newLab(t, false)
	l.offloads(l.host, "wan0", false) // the capture is to see single segments
	arrived := make(chan int, 1)
	in(t, l.server, func() {
		small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, announced) })
			if err == nil {
				err = cerr
			}
			return err
		}}
		ln, err := small.Listen(t.Context(), "tcp", "198.18.2.2:7")
		must(t, err)
		t.Cleanup(func() { ln.Close() })
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			n, p := 0, make([]byte, size)
			for n < size && err == nil {
				var m int
				m, err = c.Read(p)
				n += m
			}
			arrived <- n
		}()
	})
	sniff := l.sniffAt(l.server, "srv0")
	s, _ := l.start(l.options(0, 1), nil)
	c, err := s.Dial(netip.MustParseAddrPort("198.18.2.2:7"), "")
	must(t, err)
	w := watch(t, c)
	must(t, w.connected())
	must(t, w.write(random(size)))
	if n := <-arrived; n != size {
		t.Errorf("%d of %d bytes arrived", n, size)
	}
	defer c.Abort()
	said, longest := 0, 0
	for _, f := range sniff.of(7) {
		if f.out && f.payload == 0 {
			eachOption(f.tcp, func(kind byte, from, to int) {
				if kind == 2 {
					said = int(binary.BigEndian.Uint16(f.tcp[from+2:]))
				}
			})
		}
		if !f.out {
			longest = max(longest, f.payload)
		}
	}
	if said != announced || longest < 2*announced || longest > 216 {
		t.Errorf("segments of up to %d bytes came to a server that takes %d, want %d to 216 to one that takes %d", longest, said, 2*announced, announced)
	}
}
