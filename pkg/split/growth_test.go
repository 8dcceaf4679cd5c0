package split

import (
	"sync"
	"testing"
	"time"
)

// TestGrowthIsBounded: receive buffers grow where a client sends all it can, but
// together by no more than MaxGrowth and one buffer, and what an ended connection
// had is free again.
func TestGrowthIsBounded(t *testing.T) {
	const clients, size, most = 8, 4 << 20, 512 << 10
	l := newLab(t, true)
	p := newPump(t)
	o := l.options(0, 1)
	o.MaxBuffer, o.MaxGrowth = most, 1
	s, _ := l.start(o, func(c *Conn) { p.echo(c, nil) })
	var all sync.WaitGroup
	for range clients {
		c := l.dial(anywhere(false, 4711))
		all.Go(func() {
			if err := roundTrip(c, random(size)); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	peak := int64(0)
	for open := true; open; {
		select {
		case <-done:
			open = false
		case <-time.After(time.Millisecond):
			peak = max(peak, s.growth.taken.Load())
		}
	}
	if peak == 0 || peak > most {
		t.Errorf("buffers have grown by %d bytes, want 1 to %d", peak, most)
	}
	waitFor(t, "what ended connections had", func() bool { return s.growth.taken.Load() == 0 })
}
