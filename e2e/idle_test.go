package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/e2e/crowd"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestIdleFlowsAreSmall opens thousands of flows that exchange a few bytes and
// rest, and holds the agents' resident memory to a bound per flow: what the
// user-space TCP endpoint, the relay and the tunnel keep of a flow that moves
// nothing. With a hub that is 6 to 9 KB, where it should be 6. Within a minute after all
// have ended half as much again as at the start may be left: a tenth is wanted, and by kernel
// sockets reached; by hubs it is an eighth to a sixth, of which Go's notes of its pages are
// a third and code that had not run at the start a fifth.
func TestIdleFlowsAreSmall(t *testing.T) {
	t.Parallel()
	const flows = 5000
	for _, c := range []struct {
		intercept, egress string
		most              int64 // bytes per flow at each agent
	}{
		{"hub", "hub", 12 << 10},
		{"tproxy", "socket", 2560},
	} {
		t.Run(c.intercept+" to "+c.egress, func(t *testing.T) {
			r := start(t, fast(), pair.Options{Intercept: c.intercept, Egress: c.egress})
			before := r.resident()
			held := r.crowd(flows, &crowd.Server{})
			for role, now := range r.settled(func(role string, now int64) bool { return now-before[role] < flows*c.most }) {
				each := (now - before[role]) / flows
				t.Logf("%s: %d bytes per flow", role, each)
				if each > c.most {
					t.Errorf("%s: %d bytes per flow at rest, most %d", role, each, c.most)
				}
			}
			held.Close()
			r.quiet()
			for role, now := range r.settled(func(role string, now int64) bool { return now <= before[role]*3/2 }) {
				t.Logf("%s: %d MB before, %d MB after", role, before[role]>>20, now>>20)
				if now > before[role]*3/2 {
					t.Errorf("%s: %d bytes after all flows have ended, %d before", role, now, before[role])
				}
			}
		})
	}
}

// crowd opens n connections from the client to a crowd of the origin's.
func (r *rig) crowd(n int, s *crowd.Server) *crowd.Clients {
	r.t.Helper()
	at := netip.MustParseAddrPort(r.origin(lab.IPv4, 81))
	if err := r.Do("origin", func() error { return s.Listen(at) }); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	r.t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		s.Close()
	})
	c := &crowd.Clients{To: []netip.AddrPort{at}, Conns: n}
	r.t.Cleanup(c.Close)
	if err := r.Do("client", func() error { return c.Open(2 * time.Minute) }); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// resident is the agents' resident memory in bytes.
func (r *rig) resident() map[string]int64 {
	r.t.Helper()
	out := map[string]int64{}
	for role, p := range map[string]*lab.Proc{"edge": r.pair.Edge, "cloud": r.pair.Cloud} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
		if err != nil {
			r.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			r.t.Fatal(err)
		}
		out[role] = n << 10
	}
	return out
}

// settled reads memory until it is as wanted at both agents, at most for as
// long as they may take to give back what a rush has left behind.
func (r *rig) settled(wanted func(role string, now int64) bool) map[string]int64 {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		now := r.resident()
		if wanted("edge", now["edge"]) && wanted("cloud", now["cloud"]) || time.Now().After(deadline) {
			return now
		}
	}
}
