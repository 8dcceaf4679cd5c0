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

const floorSize = 120_000_000

// TestGoodputFloor: one flow of 120 MB, from its first packet to its last byte
// and over a session that has just begun, uses at least the given share of the
// capacities' sum, in both directions. It is a floor for a test machine that has
// other work, and each direction has some attempts; make bench holds the steady
// rate to the real gates, 0.90 and 0.88.
func TestGoodputFloor(t *testing.T) {
	for _, c := range []struct {
		name    string
		uplinks []lab.Uplink
		least   float64
	}{
		{"50+50 Mbit per s", twins(), 0.80},
		{"50+20 Mbit per s", []lab.Uplink{
			{Name: "wifi", Rate: 50e6, Delay: 10 * ms},
			{Name: "lte", Rate: 20e6, Delay: 40 * ms},
		}, 0.78},
	} {
		for _, up := range []bool{false, true} {
			t.Run(c.name+map[bool]string{false: ", down", true: ", up"}[up], func(t *testing.T) {
				var best float64
				var late lateness
				tries := fairTries
				for attempt := 1; attempt <= tries && best < c.least; attempt++ {
					t.Run(fmt.Sprintf("attempt %d", attempt), func(t *testing.T) {
						r := start(t, c.uplinks, pair.Options{})
						watch := r.watch(t)
						best = max(best, r.share(c.uplinks, up))
						late = watch.end(t)
					})
					if late.busy() {
						tries = max(tries, min(attempt+1, lateTries))
					}
				}
				switch {
				case best >= c.least:
				case late.hopeless() && tries == lateTries:
					t.Skipf("not judged: %.3f; %v", best, late)
				default:
					t.Errorf("%.3f of the sum of the uplinks' capacities, at least %.2f is wanted; %v", best, c.least, late)
				}
			})
		}
	}
}

// share moves one flow and returns its goodput as a share of the capacities'
// sum.
func (r *rig) share(uplinks []lab.Uplink, up bool) float64 {
	r.t.Helper()
	sum := 0.0
	for _, u := range uplinks {
		sum += float64(u.Rate)
	}
	begin := time.Now()
	var g gauge
	if up {
		g = r.put()
	} else {
		r.serve(80, func(c *net.TCPConn) {
			defer c.Close()
			_, _ = io.Copy(c, newNoise(1, floorSize))
		})
		begin = time.Now()
		g = r.fetch(r.origin(lab.IPv4, 80), time.Minute)
	}
	took := time.Since(begin)
	if g.err != nil || g.size != floorSize || g.sum != sumOf(1, floorSize) {
		r.t.Fatalf("%v, %v", g, g.err)
	}
	share := floorSize * 8 / took.Seconds() / sum
	r.t.Logf("%v: %.3f of the sum", g, share)
	return share
}

// put uploads one flow and returns what the server received.
func (r *rig) put() gauge {
	r.t.Helper()
	got := make(chan gauge, 1)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		got <- receive(c, nil)
	})
	c := r.mustDial(r.origin(lab.IPv4, 80), time.Minute)
	defer c.Close()
	if _, err := io.Copy(c, newNoise(1, floorSize)); err != nil {
		r.t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		r.t.Fatal(err)
	}
	return await(r.t, got)
}

// TestObjectFloor: an object of 10 KB over a new connection takes, in the
// median, no longer through the tunnel than directly over one uplink.
func TestObjectFloor(t *testing.T) {
	const size, samples = 10_000, 60
	r := start(t, twins(), pair.Options{})
	answer := func(c *net.TCPConn) {
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
			_, _ = io.Copy(c, newNoise(1, size))
		}
	}
	ports := []int{80, pair.DirectPort}
	for _, port := range ports {
		r.serve(port, answer)
	}
	r.fairly(t, func() []string { return r.objects(t, ports, size, samples) })
}

// objects compares the tunnel with the direct path.
func (r *rig) objects(t *testing.T, ports []int, size, samples int) (b bounds) {
	took := map[int][]time.Duration{}
	for range samples {
		for _, port := range ports {
			took[port] = append(took[port], r.object(port, size))
		}
	}
	p50 := func(port int) time.Duration {
		slices.Sort(took[port])
		return took[port][samples/2]
	}
	tunnel, direct := p50(80), p50(pair.DirectPort)
	t.Logf("p50 %v through the tunnel, %v directly", tunnel, direct)
	b.within(fmt.Sprintf("an object of %d bytes through the tunnel, directly at most", size), tunnel, direct)
	return b
}

// object asks for an object over a new connection and returns the time from
// the call of connect to the last byte.
func (r *rig) object(port, size int) time.Duration {
	r.t.Helper()
	begin := time.Now()
	c := r.mustDial(r.origin(lab.IPv4, port), 10*time.Second)
	defer c.Close()
	if _, err := c.Write([]byte{1}); err != nil {
		r.t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, c)
	if err != nil || n != int64(size) {
		r.t.Fatalf("received %d of %d bytes: %v", n, size, err)
	}
	return time.Since(begin)
}
