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

// TestSchedulers: every order, data order and path choice that the configuration names
// carries what it should through the programs, down and up, and uses the uplinks as its
// name says.
func TestSchedulers(t *testing.T) {
	t.Parallel()
	const size = 8_000_000
	for _, c := range []struct {
		scheduler   string
		links       map[string]string
		least, most float64 // of the size that both uplinks carry down together
	}{
		{scheduler: "{order: round-robin, data: overdue, path: earliest}", least: 1, most: 1.3},
		{scheduler: "{order: strict, data: fifo, path: minrtt}", least: 1, most: 1.3},
		{scheduler: "{path: weighted}", links: map[string]string{"lte": "weight: 2"}, least: 1, most: 1.3},
		{scheduler: "{path: redundant}", least: 1.3, most: 2.3},
		{scheduler: "{path: blest}", least: 1, most: 1.3},
		{scheduler: "{path: ecf}", least: 1, most: 1.3},
		{scheduler: "{path: roundrobin}", least: 1, most: 1.3},
	} {
		t.Run(c.scheduler, func(t *testing.T) {
			r := start(t, twins(), pair.Options{Scheduler: c.scheduler, Links: c.links})
			r.serve(80, sender(size))
			r.fairly(t, func() (b []string) {
				before := r.carriedDown(t)
				check(t, r.fetch(r.origin(lab.IPv4, 80), time.Minute), 1, size)
				after := r.carriedDown(t)
				parts := []float64{(after[0] - before[0]) / size, (after[1] - before[1]) / size}
				t.Logf("the uplinks carried %.2f and %.2f of it", parts[0], parts[1])
				if sum := parts[0] + parts[1]; sum < c.least || sum > c.most || min(parts[0], parts[1]) < 0.2 {
					b = append(b, fmt.Sprintf("want %.1f to %.1f in all, and a fifth by each", c.least, c.most))
				}
				return b
			})
			r.upload(t, 81, size)
			r.quiet()
		})
	}
}

// carriedDown are the bytes that the uplinks have carried towards the edge.
func (r *rig) carriedDown(t *testing.T) []float64 {
	return []float64{float64(r.link(t, "wifi").BytesDown), float64(r.link(t, "lte").BytesDown)}
}

// upload sends size bytes to a server and checks what came.
func (r *rig) upload(t *testing.T, port int, size int64) {
	t.Helper()
	got := make(chan gauge, 1)
	r.serve(port, func(c *net.TCPConn) {
		defer c.Close()
		got <- receive(c, nil)
	})
	c := r.mustDial(r.origin(lab.IPv4, port), time.Minute)
	defer c.Close()
	if _, err := io.Copy(c, newNoise(1, size)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	check(t, await(t, got), 1, size)
}
