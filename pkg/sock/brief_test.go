package sock

import (
	"io"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func governorOf(t *testing.T, fd int) string {
	t.Helper()
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	must(t, err)
	return name
}

func TestPaces(t *testing.T) {
	for name, want := range map[string]bool{"bbr": true, "bbr3": true, "cubic": false, "reno": false, "": false} {
		if paces(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestBriefUnpaced: what a client is sent first is not paced; then the host's
// choice governs.
func TestBriefUnpaced(t *testing.T) {
	c, client := accepted(t, netip.AddrPort{}, func(p *Poller, accept func(*Conn)) (*Listener, error) {
		l, err := listen(p, netip.MustParseAddrPort("127.0.0.1:0"), nil, accept)
		if err == nil && unix.SetsockoptString(l.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr") != nil {
			t.Skip("the kernel has no bbr, or does not let us use it")
		}
		l.unpace()
		return l, err
	})
	if got := governorOf(t, c.fd); got != beginning {
		t.Errorf("it begins with %s, want %s", got, beginning)
	}
	go func() { _, _ = io.Copy(io.Discard, client) }()
	send := func(bytes int) {
		for bytes > 0 {
			n, err := c.Writev([][]byte{make([]byte, min(bytes, 1000)), make([]byte, 0)})
			if bytes -= n; err != nil {
				must(t, c.poller.Wait(-1))
			}
		}
	}
	send(brief - 1)
	if got := governorOf(t, c.fd); got != beginning {
		t.Errorf("after %d bytes it goes by %s, want %s", brief-1, got, beginning)
	}
	send(1)
	if got := governorOf(t, c.fd); got != "bbr" {
		t.Errorf("after %d bytes it goes by %s, want bbr", brief, got)
	}
}

// TestGreetedKeepsGovernor: lanes of the relay are paced as the host says.
func TestGreetedKeepsGovernor(t *testing.T) {
	r := newRig(t)
	fd, err := socket(netip.IPv4Unspecified())
	must(t, err)
	defer unix.Close(fd)
	l, err := ListenGreeted(r.p, netip.MustParseAddrPort("127.0.0.1:0"), nil)
	must(t, err)
	defer l.Close()
	if got, want := governorOf(t, l.fd), governorOf(t, fd); got != want || l.brief != 0 {
		t.Errorf("it goes by %s, want %s; %d bytes unpaced", got, want, l.brief)
	}
}
