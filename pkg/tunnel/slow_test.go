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
