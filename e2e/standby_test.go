package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// standbySize lasts for the seconds of the test, bytes.
const standbySize = 50_000_000

// maxIdle is what a standby link may carry in some seconds in which it is not
// used, bytes: probes and their answers.
const maxIdle = 20_000

// TestStandbyTakesOver: a standby uplink carries nothing but probes while the
// primary one lives, takes over within a moment of its silent death, in both
// directions, and is left when it is back.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	r := start(t, twins(), pair.Options{Links: map[string]string{"lte": "tier: standby"}})
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, standbySize))
	})
	r.fairly(t, func() []string { return r.takeOver(t) })
	r.quiet()
}

func (r *rig) takeOver(t *testing.T) (b bounds) {
	before := r.link(t, "lte")
	done := make(chan gauge, 1)
	go func() { done <- r.fetch(r.origin(lab.IPv4, 80), time.Minute) }()
	time.Sleep(2 * time.Second)
	alone := r.link(t, "lte")
	if err := r.Blackhole("wifi", emu.Both, true); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	over := r.link(t, "lte")
	if err := r.Blackhole("wifi", emu.Both, false); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	from := r.link(t, "lte")
	g := await(t, done)
	left := r.link(t, "lte")
	t.Logf("%v; standby carried %d bytes, then %d without the primary uplink, then %d", g, alone.BytesDown, over.BytesDown-alone.BytesDown, left.BytesDown-from.BytesDown)
	check(t, g, 1, standbySize)
	if alone.Tier != "standby" {
		t.Errorf("status says tier %q", alone.Tier)
	}
	if alone.BytesDown+alone.BytesUp > before.BytesDown+before.BytesUp+maxIdle {
		b = append(b, "the standby uplink carried too much beside a live primary one")
	}
	if over.BytesDown-alone.BytesDown < 2_000_000 {
		b = append(b, "the standby uplink did not take over")
	}
	if left.BytesDown-from.BytesDown > maxIdle {
		b = append(b, "the standby uplink was used after the primary one was back")
	}
	b.within("the flow's stall", g.stall, maxStall)
	return b
}
