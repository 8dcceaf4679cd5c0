package split

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"hawser/pkg/party"
)

// TestProbe: a connection of which the server knows nothing more is reset soon after Probe,
// one that stands goes on, and is probed as rarely as before.
func TestProbe(t *testing.T) {
	l := newLab(t, false)
	accepted := make(chan *net.TCPConn, 2)
	l.serve("198.18.2.2:7", func(c *net.TCPConn) { accepted <- c })
	s, _ := l.start(l.options(0, 1), nil)
	dial := func() (*watcher, *net.TCPConn) {
		c, err := s.Dial(netip.MustParseAddrPort("198.18.2.2:7"), "")
		must(t, err)
		w := watch(t, c)
		must(t, w.connected())
		return w, <-accepted
	}
	stands, server := dial()
	lost, forgets := dial()
	raw, err := forgets.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { // it is closed, and says nothing
		must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1))
	}))
	must(t, forgets.Close())

	s.Probe()
	if _, err := lost.read(1); !errors.Is(err, party.ErrReset) {
		t.Errorf("the lost connection reads %v, want a reset", err)
	}
	_, err = server.Write([]byte{1})
	must(t, err)
	_, err = stands.read(1)
	must(t, err)
	var idle tcpip.KeepaliveIdleOption
	if err := stands.conn.ep.GetSockOpt(&idle); err != nil || time.Duration(idle) != s.opts.KeepAlive/2 {
		t.Errorf("it is probed after %v from now on, want %v (%v)", time.Duration(idle), s.opts.KeepAlive/2, err)
	}
}
