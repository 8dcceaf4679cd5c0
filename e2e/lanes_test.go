package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestLanes: an uplink with three lanes loses 1 % of its packets, and one lane
// falls silent for good: a flow loses no byte and hardly pauses, the lane is
// replaced, and status shows what each does.
func TestLanes(t *testing.T) {
	const size = 30_000_000
	line := lab.Uplink{Name: "wifi", Rate: 50e6, Delay: 10 * ms, Loss: 0.01}
	r := start(t, []lab.Uplink{line}, pair.Options{Transport: "tcp", Lanes: 3})
	r.untilLanes(t, 3)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, size))
	})
	r.fairly(t, func() []string { return r.loseLane(t, size) })
	r.quiet()
}

// loseLane lets one lane fall silent in mid-transfer.
func (r *rig) loseLane(t *testing.T, size int64) (b bounds) {
	before := map[int]uint64{}
	for _, l := range r.link(t, "wifi").Lanes {
		before[l.Number] = l.BytesDown
	}
	done := make(chan gauge, 1)
	go func() { done <- r.fetch(r.origin(lab.IPv4, 80), time.Minute) }()
	time.Sleep(1500 * ms)
	for _, l := range r.link(t, "wifi").Lanes {
		if l.BytesDown < before[l.Number]+300_000 {
			b = append(b, fmt.Sprintf("lane %d carried %d bytes in the first moments", l.Number, int64(l.BytesDown-before[l.Number])))
		}
	}
	port := r.lanePort(t)
	drop := func(verb string) {
		for _, rule := range [][]string{{"OUTPUT", "--sport"}, {"INPUT", "--dport"}} {
			if out, err := r.Exec("edge", "iptables", "-w", verb, rule[0], "-p", "tcp", rule[1], port, "-j", "DROP"); err != nil {
				t.Errorf("iptables: %v: %s", err, out)
			}
		}
	}
	drop("-I")
	g := await(t, done)
	drop("-D")
	t.Log(g)
	check(t, g, 1, size)
	b.within("the flow's stall", g.stall, maxStall)
	r.untilLanes(t, 3)
	return b
}

// untilLanes waits until both ends show n lanes that are up.
func (r *rig) untilLanes(t *testing.T, n int) {
	t.Helper()
	count := func(role string) (up int) {
		st, err := r.pair.Status(role)
		if err != nil || len(st.Sessions) == 0 || len(st.Sessions[0].Links) != 1 {
			return 0
		}
		for _, l := range st.Sessions[0].Links[0].Lanes {
			if l.State == "up" {
				up++
			}
		}
		return up
	}
	for deadline := time.Now().Add(15 * time.Second); count("edge") < n || count("cloud") < n; time.Sleep(50 * ms) {
		if time.Now().After(deadline) {
			t.Fatalf("%d lanes up at the edge, %d at the cloud, want %d", count("edge"), count("cloud"), n)
		}
	}
}

// lanePort is the edge's port of one of its link connections.
func (r *rig) lanePort(t *testing.T) string {
	t.Helper()
	out, err := r.Exec("edge", "cat", "/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range strings.Split(string(out), "\n") {
		f := strings.Fields(row)
		if len(f) > 3 && f[3] == "01" && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", pair.Port)) {
			_, hex, _ := strings.Cut(f[1], ":")
			var port int
			if _, err := fmt.Sscanf(hex, "%X", &port); err == nil {
				return fmt.Sprint(port)
			}
		}
	}
	t.Fatalf("no link connection in\n%s", out)
	return ""
}
