package e2e

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestQuotaSpent: an uplink whose quota is spent is used last by both ends, and
// still is after the edge was killed and started anew.
func TestQuotaSpent(t *testing.T) {
	t.Parallel()
	const size = 10_000_000
	r := start(t, twins(), pair.Options{Links: map[string]string{"lte": "quota: 2MB"}})
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, size))
	})
	fetch := func() {
		t.Helper()
		if g := r.fetch(r.origin(lab.IPv4, 80), time.Minute); g.err != nil || g.size != size {
			t.Fatalf("%d bytes, %v", g.size, g.err)
		}
	}
	fetch()
	r.untilSpent(t)
	r.pair.Edge.Kill()
	if err := r.pair.StartEdge(); err != nil {
		t.Fatal(err)
	}
	if err := r.pair.WaitUp(2, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	r.startedBase()
	r.untilSpent(t)
	r.fairly(t, func() (late []string) {
		before := r.link(t, "lte")
		fetch()
		after := r.link(t, "lte")
		t.Logf("%d of %d bytes used; then the link carried %d of %d", after.Quota.Used, after.Quota.Bytes, after.BytesDown-before.BytesDown, size)
		if n := after.BytesDown - before.BytesDown; n > maxIdle {
			late = append(late, fmt.Sprintf("with its quota spent the uplink carried %d bytes", n))
		}
		if after.Quota.Used < 2_000_000 || after.Device == nil || after.Device.BytesDown < 1_000_000 {
			t.Errorf("status shows %+v and %+v", after.Quota, after.Device)
		}
		return late
	})
	r.quiet()
}

// untilSpent waits until both ends know that lte's quota is spent.
func (r *rig) untilSpent(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * ms) {
		l := r.link(t, "lte")
		if st, err := r.pair.Status("cloud"); err == nil && l.Quota != nil && l.Quota.State == "spent" && l.Tier == "last-resort" {
			for _, s := range st.Sessions {
				for _, there := range s.Links {
					if there.Name == "lte" && there.Tier == "last-resort" {
						return
					}
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the quota is not spent: %+v, tier %s", l.Quota, l.Tier)
		}
	}
}
