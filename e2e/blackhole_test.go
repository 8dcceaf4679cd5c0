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

// maxStall bounds what a bulk flow notices of a silently dead uplink. It is
// generous for a busy test machine; make bench measures the real figure.
const maxStall = time.Second

// maxBack bounds the time from the end of a silence to 100 KB over the uplink.
const maxBack = 1200 * time.Millisecond

// TestOneUplinkSilent cuts one uplink without a word in mid-transfer, both
// ways and one way: the flow goes on over the other, a new connection works at
// once, and the uplink is used again when it is back.
func TestOneUplinkSilent(t *testing.T) {
	t.Parallel()
	r := start(t, twins(), pair.Options{})
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, bulk))
	})
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(3, 10_000))
	})
	for _, c := range []struct {
		name   string
		uplink string
		dir    emu.Direction
	}{{"wifi both ways", "wifi", emu.Both}, {"lte towards the edge only", "lte", emu.Down}, {"lte towards the cloud only", "lte", emu.Up}} {
		t.Run(c.name, func(t *testing.T) { r.fairly(t, func() []string { return r.silence(t, c.uplink, c.dir) }) })
	}
	r.quiet()
}

// silence cuts an uplink for some seconds while a flow runs over both.
func (r *rig) silence(t *testing.T, uplink string, dir emu.Direction) (b bounds) {
	done := make(chan gauge, 1)
	go func() { done <- r.fetch(r.origin(lab.IPv4, 80), time.Minute) }()
	time.Sleep(2 * time.Second)
	if err := r.Blackhole(uplink, dir, true); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	small := r.fetch(r.origin(lab.IPv4, 81), 10*time.Second)
	fresh := time.Since(begin)
	time.Sleep(3 * time.Second)
	if err := r.Blackhole(uplink, dir, false); err != nil {
		t.Fatal(err)
	}
	back := r.untilUsed(uplink)
	g := await(t, done)
	t.Logf("%v; a new connection's 10 KB took %v; the uplink was used again after %v", g, fresh.Round(ms), back.Round(ms))
	check(t, g, 1, bulk)
	if small.err != nil || small.size != 10_000 {
		t.Errorf("a new connection: %d bytes, %v", small.size, small.err)
	}
	b.within("the flow's stall", g.stall, maxStall)
	b.within("a new connection", fresh, maxStall)
	b.within("the uplink used again after", back, maxBack)
	return b
}

// untilUsed waits until the cloud sends bulk over an uplink.
func (r *rig) untilUsed(uplink string) time.Duration {
	begin := time.Now()
	first := uint64(0)
	for time.Since(begin) < 10*time.Second {
		links, err := r.pair.Links()
		if err != nil {
			r.t.Fatal(err)
		}
		if first == 0 {
			first = links[uplink].BytesDown
		} else if links[uplink].BytesDown > first+100_000 {
			break
		}
		time.Sleep(20 * ms)
	}
	return time.Since(begin)
}
