package tunnel

import (
	"fmt"
	"testing"
	"time"

	"hawser/scheduler"
)

// tally counts what a session asks of its connection order and path choice.
type tally struct {
	scheduler.Order[*flow]
	scheduler.Path
	chunks, calls int
}

// Activate implements scheduler.Order.
func (c *tally) Activate(n *scheduler.Node[*flow], now time.Time) {
	c.calls++
	c.Order.Activate(n, now)
}

// Deactivate implements scheduler.Order.
func (c *tally) Deactivate(n *scheduler.Node[*flow]) {
	c.calls++
	c.Order.Deactivate(n)
}

// Begin implements scheduler.Order.
func (c *tally) Begin(now time.Time) {
	c.calls++
	c.Order.Begin(now)
}

// Next implements scheduler.Order.
func (c *tally) Next() *scheduler.Node[*flow] {
	c.calls++
	return c.Order.Next()
}

// Charge implements scheduler.Order.
func (c *tally) Charge(n *scheduler.Node[*flow], bytes int) {
	c.calls++
	c.chunks++
	c.Order.Charge(n, bytes)
}

// Pass implements scheduler.Order.
func (c *tally) Pass(n *scheduler.Node[*flow]) {
	c.calls++
	c.Order.Pass(n)
}

// Share implements scheduler.Order.
func (c *tally) Share(n *scheduler.Node[*flow]) float64 {
	c.calls++
	return c.Order.Share(n)
}

// Pick implements scheduler.Path.
func (c *tally) Pick(links []scheduler.Link, k scheduler.Chunk) (int, bool) {
	c.calls++
	return c.Path.Pick(links, k)
}

// bulkBeside simulates downloads at 1 Gbit/s over two links beside flows that
// are open and at rest, and returns what was asked at the cloud, and the real
// time that its loop took.
func bulkBeside(idle int, d time.Duration) (*tally, time.Duration) {
	m := newSim(1, []simLink{{500, 20 * time.Millisecond}, {500, 30 * time.Millisecond}})
	for i := range idle {
		m.After(time.Duration(i)*20*time.Microsecond, func() { m.request(i%1000, 0) })
	}
	begin := m.Now().Add(time.Duration(idle)*20*time.Microsecond + time.Second)
	var bulk []*simFlow
	m.At(begin, func() {
		for i := range 16 {
			bulk = append(bulk, m.request(2000+i, endless))
		}
	})
	m.Run(begin.Add(500*time.Millisecond), nil)
	s := m.cloud.s
	c := &tally{Order: s.order, Path: s.path}
	s.order, s.path, m.cloud.spent = c, c, 0
	m.Run(m.Now().Add(d), nil)
	spent := m.cloud.spent
	m.end()
	return c, spent
}

// TestWorkPerChunk: how often order and path are asked per chunk does not depend
// on the number of flows at rest.
func TestWorkPerChunk(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	per := func(idle int) float64 {
		c, _ := bulkBeside(idle, 300*time.Millisecond)
		if c.chunks < 500 {
			t.Fatalf("only %d chunks beside %d flows at rest", c.chunks, idle)
		}
		return float64(c.calls) / float64(c.chunks)
	}
	none, many := per(0), per(10_000)
	t.Logf("%.3f questions per chunk alone, %.3f beside 10,000 flows at rest", none, many)
	if many > 1.05*none {
		t.Errorf("%.3f questions per chunk became %.3f", none, many)
	}
}

// BenchmarkChunk is what the cloud's loop takes per chunk that it sends, with all
// that belongs to it: acknowledgements, credit, records and copies of chunks. Not
// in it: sealing, links, and workers.
func BenchmarkChunk(b *testing.B) {
	for _, idle := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint("idle=", idle), func(b *testing.B) {
			for b.Loop() {
				c, spent := bulkBeside(idle, 2*time.Second)
				b.ReportMetric(float64(spent)/float64(c.chunks), "ns/chunk")
				b.ReportMetric(float64(c.calls)/float64(c.chunks), "questions/chunk")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
