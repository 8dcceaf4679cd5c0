package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Goodput as a share of the sum of the uplinks' rates. About
// 0.94 is left of it after the headers of IP, UDP, QUIC, links and frames.
const (
	quicClean = 0.85
	// lossy is the floor of QUIC and TCP links with loss; make bench-paths shows
	// about 0.92. A controller that takes every loss for congestion is far below,
	// and so is a tunnel that holds what waits behind a lost packet for being in
	// flight (0.58 and 0.77, on a quiet machine).
	lossy = 0.70
)

// TestLossyGoodput downloads 40 MB over links of 50 and 20 Mbit/s, without loss
// and with 1 % random loss each way, where a controller that takes every loss
// for congestion falls to a fifth. The best of several tries counts: test machines
// are noisy, and the emulator shares the processors with both agents.
func TestLossyGoodput(t *testing.T) {
	const size = 40_000_000
	for _, c := range []struct {
		name, transport string
		loss            float64
		want            float64
	}{{"QUIC, no loss", "quic", 0, quicClean}, {"QUIC, 1 % loss", "quic", 0.01, lossy}, {"TCP, 1 % loss", "tcp", 0.01, lossy}} {
		t.Run(c.name, func(t *testing.T) {
			uplinks := []lab.Uplink{
				{Name: "wifi", Rate: 50e6, Delay: 10 * ms, Loss: c.loss},
				{Name: "lte", Rate: 20e6, Delay: 40 * ms, Loss: c.loss},
			}
			r := start(t, uplinks, pair.Options{Transport: c.transport})
			r.serve(80, func(c *net.TCPConn) {
				defer c.Close()
				_, _ = io.Copy(c, newNoise(4, size))
			})
			r.atLeast(t, c.want, "the sum of the rates", func() float64 {
				g := r.fetch(r.origin(lab.IPv4, 80), time.Minute)
				if g.err != nil || g.sum != sumOf(4, size) {
					t.Fatalf("%v: %v", g, g.err)
				}
				t.Log(g)
				return float64(g.size) * 8 / g.took.Seconds() / 70e6
			})
			r.quiet()
		})
	}
}
