package tunnel

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/simlink"
	"hawser/scheduler"
)

// watched is a carrier that counts how often its transport is asked.
type watched struct {
	Carrier
	looks atomic.Int64
}

func (c *watched) Sense() scheduler.Sense {
	c.looks.Add(1)
	s := c.Carrier.Sense()
	s.Known = true
	return s
}

// TestIdleIsQuiet: while nothing but a probe a second is under way, a session has hardly
// anything to do, however long the answers take.
func TestIdleIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := simlink.NewPair(simlink.Spec{Rate: 20 * mbit, Delay: 150 * time.Millisecond})
		edge := &watched{Carrier: p.A}
		info := LinkInfo{ID: 0, Name: "sat", Transport: "sim"}
		w.wg.Go(func() { _ = w.edge.s.Serve(w.t.Context(), info, edge) })
		w.wg.Go(func() { _ = w.cloud.s.Serve(w.t.Context(), info, p.B) })
		time.Sleep(10 * time.Second)
		before := edge.looks.Load()
		time.Sleep(time.Minute)
		if n := edge.looks.Load() - before; n > 180 {
			t.Errorf("the transport was asked %d times in a minute of rest, more than thrice for each probe", n)
		}
		w.close()
	})
}
