package bbr

import (
	"testing"
	"time"
)

// TestQueueEndsStart: asked for more on a full path, under a window that lets data
// be short at all times, the controller is out of Startup again after a few round trips
// where the path is steady; elsewhere a queue says nothing to it.
func TestQueueEndsStart(t *testing.T) {
	for _, steady := range []bool{true, false} {
		n := newNetwork(1, 50, 60*ms, 50)
		ctl := n.follow()
		ctl.steady = func() bool { return steady }
		n.runUntil(4 * time.Second)
		ctl.steady = func() bool { ctl.c.Starved(); return steady } // the tunnel's window makes data short
		ctl.c.Restart()
		n.runUntil(4*time.Second + 400*ms)
		if started := ctl.c.State() == Startup; started == steady {
			t.Errorf("steady %v: %v after five round trips", steady, ctl.c.State())
		}
		if bw := ctl.c.Bandwidth() * 8 / 1e6; bw < 48 || steady && bw > 51 {
			t.Errorf("steady %v: %.1f Mbit/s are believed of 50", steady, bw)
		}
	}
}

// TestStanding: rounds whose least round trip is far above the least one tell their
// mean rate, those of a path that is not steady never do.
func TestStanding(t *testing.T) {
	s := standing{on: true}
	at := time.Duration(0)
	round := func(rtt time.Duration, delivered int64) {
		at += rtt
		s.add(at, &sample{rtt: rtt + 10*ms}, false, delivered, 20*ms)
		s.add(at, &sample{rtt: rtt}, true, delivered, 20*ms)
	}
	round(20*ms, 0)
	round(40*ms, 100_000)
	if s.queued {
		t.Error("the first long round trip counts for the round that began with a short one")
	}
	round(40*ms, 200_000)
	if !s.queued || s.last != 2.5e6 {
		t.Errorf("queued %v, %v bytes per second, want 2.5e6", s.queued, s.last)
	}
	s.on = false
	if round(40*ms, 300_000); s.queued {
		t.Error("a queue on a path that is not steady")
	}
}
