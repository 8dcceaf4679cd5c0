package e2e

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestEgressLimits: the cloud connects to a server, and for an edge, no more often
// than it may, has no more attempts under way, and leaves one that has refused
// alone for a while. What is not asked is counted, and its client reset.
func TestEgressLimits(t *testing.T) {
	t.Parallel()
	const serverRate, edgeRate, serverOpen, burst = 10, 15, 4, 2
	r := start(t, fast(), pair.Options{Connects: "{edge_rate: 15, server_rate: 10, edge_open: 100, server_open: 4, refusal_seconds: 20}"})
	r.serve(80, func(c *net.TCPConn) {
		_, _ = c.Write([]byte{1})
		c.Close()
	})
	origin := r.capture("origin")
	// asked is how many connects have reached a port of the origin.
	asked := func(port int) int {
		from := map[int]bool{}
		for _, f := range origin.of(port) {
			if f.flags == header.TCPFlagSyn {
				from[f.sport] = true
			}
		}
		return len(from)
	}
	limits := func() map[string]uint64 {
		s, err := r.pair.Status("cloud")
		if err != nil {
			t.Fatal(err)
		}
		return s.Counters
	}

	t.Run("a server that refuses", func(t *testing.T) {
		for range 6 {
			r.resetWithin(t, r.origin(lab.IPv4, 9), 2*time.Second)
		}
		if n, c := asked(9), limits(); n != 1 || c["egress_recalled"] != 5 {
			t.Errorf("the server was asked %d times, %d refusals were recalled; want 1, 5", n, c["egress_recalled"])
		}
	})
	t.Run("half-open", func(t *testing.T) {
		r.served(t, r.origin(lab.IPv6, 80)) // or clients would not be accepted by IPv6 before their server is there
		release := r.hold(t, lab.IPv6, 90)
		defer release()
		const clients = 12
		for range clients {
			_, _ = r.dial(r.origin(lab.IPv6, 90), 20*time.Second) // the reset may be faster
		}
		r.eventually(t, "the attempts that are too many", func() bool { return limits()["egress_half_open"] == clients-serverOpen })
		if n := asked(90); n != serverOpen {
			t.Errorf("%d attempts are under way at the server, want %d", n, serverOpen)
		}
		release() // nobody listens there: they end
		if err := r.pair.WaitIdle(20 * time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("rates", func(t *testing.T) {
		time.Sleep(burst * time.Second) // nothing is owed
		before, began := limits(), time.Now()
		served := map[lab.Family]int{}
		for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
			for range 45 {
				if r.served(t, r.origin(f, 80)) {
					served[f]++
				}
			}
		}
		most := func(rate int) int { return burst*rate + int(time.Since(began).Seconds()*float64(rate)) + 1 }
		after := limits()
		server, edge := after["egress_server_rate"]-before["egress_server_rate"], after["egress_edge_rate"]-before["egress_edge_rate"]
		t.Logf("served %v of 45 each in %v, not asked: %d because of the server's rate, %d of the edge's", served, time.Since(began), server, edge)
		for f, n := range served {
			if n < 1 || n > most(serverRate) {
				t.Errorf("%v: %d connects, want at most %d", f, n, most(serverRate))
			}
		}
		if all := served[lab.IPv4] + served[lab.IPv6]; all > most(edgeRate) || all != 90-int(server+edge) {
			t.Errorf("%d connects in all, want at most %d; %d counted as refused", all, most(edgeRate), server+edge)
		}
	})
	r.quiet()
}

// served says that a server's byte has come; the connection was reset otherwise.
func (r *rig) served(t *testing.T, addr string) bool {
	t.Helper()
	c, err := r.dial(addr, 20*time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	n, err := io.ReadFull(c, make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s: nothing came", addr)
	}
	return n == 1
}
