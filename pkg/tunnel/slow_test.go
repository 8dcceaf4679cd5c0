package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/scheduler"
)

// TestTwoSlowLinks: where each of two lines takes a second for a packet, neither is taken
// for dead again and again and the other sent what it had: that went on for ever.
func TestTwoSlowLinks(t *testing.T) {
	if raceDetector {
		t.Skip("a minute of looks every 5 ms takes long with the race detector: make unit runs it without")
	}
	const flows, size = 20, 5000
	run(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		for _, sd := range []*side{w.edge, w.cloud} {
			sd.s.order = scheduler.NewOrder[*flow](scheduler.OrderStrict, 0)
		}
		spec := simlink.Spec{Rate: 0.010 * mbit, Delay: 50 * time.Millisecond, Queue: 4000}
		for i := range 2 {
			w.pairs = append(w.pairs, nil)
			w.connect(i, spec)
		}
		w.serve(size)
		began := time.Now()
		var users []*user
		for range flows {
			users = append(users, w.open(300))
			time.Sleep(200 * time.Millisecond)
		}
		least := time.Duration(flows * size / (2 * spec.Rate) * float64(time.Second))
		for _, u := range users {
			u.await(3 * least)
		}
		if took := time.Since(began); took > 2*least {
			st, _ := w.cloud.s.Status()
			t.Errorf("took %v of %v that the payload takes; moves %v, %v", took, least, st.Links[0].Moves, st.Links[1].Moves)
		}
	})
}

// TestProbesOnLongPaths: where a round trip takes longer than the time between two probes
// of a busy link, an idle link's probes do not call for each other. On a standby link, whose
// bytes are dear, they went five times a second, not once in ten.
func TestProbesOnLongPaths(t *testing.T) {
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 5 * mbit, Delay: 25 * time.Millisecond}, simlink.Spec{Rate: 5 * mbit, Delay: 150 * time.Millisecond}, simlink.Spec{Rate: 5 * mbit, Delay: 300 * time.Millisecond})
		defer w.close()
		time.Sleep(5 * time.Second)
		before, _ := w.edge.s.Status()
		time.Sleep(time.Minute)
		after, _ := w.edge.s.Status()
		short := after.Links[0].BytesSent - before.Links[0].BytesSent
		for i, l := range after.Links {
			if n := l.BytesSent - before.Links[i].BytesSent; n > short*5/4 || l.Moves[scheduler.Suspect] > 0 {
				t.Errorf("link %d: %d bytes in a minute at rest, %d by the short path; moves %v", i, n, short, l.Moves)
			}
		}
	})
}
