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

// TestOneUplinkSilent cuts one uplink without a word in mid-transfer, both
// ways and one way: the flow goes on over the other, a new connection works at
// once, and the uplink is used again when it is back.
func TestOneUplinkSilent(t *testing.T) {
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
		t.Run(c.name, func(t *testing.T) {
			done := make(chan gauge, 1)
			go func() { done <- r.fetch(r.origin(lab.IPv4, 80), time.Minute) }()
			time.Sleep(2 * time.Second)
			if err := r.Blackhole(c.uplink, c.dir, true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			begin := time.Now()
			small := r.fetch(r.origin(lab.IPv4, 81), 10*time.Second)
			fresh := time.Since(begin)
			time.Sleep(3 * time.Second)
			if err := r.Blackhole(c.uplink, c.dir, false); err != nil {
				t.Fatal(err)
			}
			back := r.untilUsed(c.uplink)
			g := await(t, done)
			t.Logf("%v; a new connection's 10 KB took %v; the uplink was used again after %v", g, fresh.Round(ms), back.Round(ms))
			check(t, g, 1, bulk)
			if g.stall > maxStall {
				t.Errorf("the flow stalled for %v", g.stall)
			}
			if small.err != nil || small.size != 10_000 || fresh > maxStall {
				t.Errorf("a new connection took %v: %v", fresh, small.err)
			}
			if back > 3*time.Second {
				t.Errorf("the uplink was used again only after %v", back)
			}
		})
	}
	r.quiet()
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
