package crowd

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPingPong: each message comes back, client after client, and an echo that is stopped ends.
func TestPingPong(t *testing.T) {
	e, err := NewEchoer(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(e.listener)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	ended := make(chan error, 1)
	go func() { ended <- e.Serve() }()
	for _, size := range []int{1, 64, 1 << 20} { // the last one is longer than what is echoed at a time
		took, err := Ping(at, 5, size)
		if err != nil || len(took) != 5 {
			t.Errorf("%d bytes: %d round trips: %v", size, len(took), err)
		}
	}
	e.Stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	e.Close()
	if _, err := Ping(at, 1, 1); err == nil {
		t.Error("nobody listens any more, and a message came back")
	}
}
