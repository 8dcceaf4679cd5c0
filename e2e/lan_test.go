package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestLossyLAN downloads over a LAN of 3 ms that loses 1 % of packets, through
// the hub and, beside it, straight from a kernel that sends with Cubic. The hub
// mends such losses; it was below Cubic when it left them to netstack. `make
// bench-lan` shows 5 to 20 times Cubic; here it is to be as fast, and every
// byte has to be right.
func TestLossyLAN(t *testing.T) {
	const size, beside = 20_000_000, 3_000_000
	spec := lab.Spec{Name: "e2e", IPv6: true, Uplinks: fast(), Seed: 1, Clients: 1,
		LAN: &lab.Uplink{Name: "lan", Delay: 1500 * time.Microsecond, Loss: 0.01}}
	r := prepareLab(t, spec, pair.Options{Egress: "socket"})
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	r.startedBase()
	r.serve(80, sender(size))
	r.serve(pair.DirectPort, func(c *net.TCPConn) {
		defer c.Close()
		if cubic(c) == nil {
			_, _ = io.Copy(c, newNoise(1, beside))
		}
	})
	whole := sumOf(1, size)
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		r.atLeast(t, 1, "Cubic without a hub", func() float64 {
			hub, direct := r.fetch(r.origin(f, 80), time.Minute), r.fetch(r.origin(f, pair.DirectPort), time.Minute)
			if hub.err != nil || hub.sum != whole || direct.err != nil || direct.size != beside {
				t.Fatalf("%v: %v; %v: %v", hub, hub.err, direct, direct.err)
			}
			t.Logf("%v: hub %v, Cubic %v", f, hub, direct)
			return size / hub.took.Seconds() * direct.took.Seconds() / beside
		})
	}
	s, err := r.pair.Status("edge")
	if err != nil || s.Counters["hub_mended"] == 0 {
		t.Errorf("nothing was mended: %v, %v", s.Counters, err)
	}
	r.quiet()
}

// cubic chooses the congestion control of a socket.
func cubic(c *net.TCPConn) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
	})
	if err == nil {
		err = set
	}
	return err
}
