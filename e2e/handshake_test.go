package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestHandshakeModes: in one run over one line, a 10 KB object takes a round
// trip less with auto than with zero-window, the modes come from policies, and
// in strict mode a refusal looks like one. Of connections that nobody uses the
// oldest end.
func TestHandshakeModes(t *testing.T) {
	const delay = 40 * time.Millisecond // one way
	line := []lab.Uplink{{Name: "line", Rate: 50_000_000, Delay: delay}}
	r := start(t, line, pair.Options{Limits: "{unused: 8}", Policies: `[{name: zero, ports: [81], handshake: zero-window}, {name: strict, ports: [82, 83], handshake: strict}]`})
	for _, port := range []int{80, 81, 82} {
		r.serve(port, func(c *net.TCPConn) {
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, 100)); err == nil {
				_, _ = io.Copy(c, newNoise(1, 10_000))
			}
		})
	}
	r.fairly(t, func() []string { return r.roundTrips(t, delay) })
	if _, err := r.dial(r.origin(lab.IPv4, 83), 10*time.Second); err == nil {
		t.Error("strict mode has accepted a client for a closed port")
	}
	s, err := r.pair.Status("edge")
	if err != nil || s.Handshakes == nil || s.Handshakes.Mode != "auto" || s.Handshakes.Now != "fast" || s.Handshakes.Pending != 0 {
		t.Errorf("status: %+v, %v", s.Handshakes, err)
	}
	r.spare(t, 8)
	r.quiet()
}

// roundTrips compares auto at port 80 with the modes of 81 and 82.
func (r *rig) roundTrips(t *testing.T, delay time.Duration) (b bounds) {
	took := map[int][]time.Duration{}
	for range 15 {
		for _, port := range []int{80, 81, 82} {
			d, err := object(r, r.origin(lab.IPv4, port))
			if err != nil {
				t.Fatalf("port %d: %v", port, err)
			}
			took[port] = append(took[port], d)
		}
	}
	median := func(port int) time.Duration {
		slices.Sort(took[port])
		return took[port][len(took[port])/2]
	}
	t.Logf("10 KB in %v with auto, %v with zero-window, %v with strict", median(80), median(81), median(82))
	for _, port := range []int{81, 82} {
		if more := median(port) - median(80); more < delay*3/2 || more > delay*3 {
			b = append(b, fmt.Sprintf("port %d takes %v longer than auto, a round trip is %v", port, more, 2*delay))
		}
	}
	return b
}

// spare opens three connections more than may be unused: three end, at the server,
// too, and the others work.
func (r *rig) spare(t *testing.T, most int) {
	t.Helper()
	const more = 3
	ended := make(chan struct{}, most+more)
	r.serve(84, func(c *net.TCPConn) {
		defer c.Close()
		_, err := io.ReadFull(c, make([]byte, 1))
		if err != nil {
			ended <- struct{}{}
			return
		}
		_, _ = c.Write([]byte("y"))
	})
	var conns []*net.TCPConn
	for range most + more {
		conns = append(conns, r.mustDial(r.origin(lab.IPv4, 84), time.Minute))
	}
	r.eventually(t, "connections that are too many to end", func() bool {
		s := r.status()
		return s.Counters["guard_unused_ended"] == more && s.Handshakes.Unused == uint64(most)
	})
	for range more {
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Fatal("the server's connections have not ended")
		}
	}
	works := 0
	for _, c := range conns {
		_, _ = c.Write([]byte("x")) // an error shows below, too
		if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
			works++
		}
		c.Close()
	}
	if works != most {
		t.Errorf("%d connections work, want %d", works, most)
	}
}

// object asks for 10 KB and returns how long that took from the first SYN.
func object(r *rig, addr string) (time.Duration, error) {
	began := time.Now()
	c, err := r.dial(addr, 20*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 100)); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, make([]byte, 10_000))
	return time.Since(began), err
}
