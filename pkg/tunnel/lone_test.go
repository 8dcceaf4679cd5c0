package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestLoneSlowLink: on a line so slow that each record makes a silence, what was sent is
// not sent again behind itself, as there is no other link; and it is when one comes.
func TestLoneSlowLink(t *testing.T) {
	const flows, size = 6, 5000
	run(t, func(t *testing.T) {
		spec := simlink.Spec{Rate: 0.008 * mbit, Delay: 50 * time.Millisecond, Queue: 4000}
		w := newWorld(t, spec)
		defer w.close()
		w.serve(size)
		began := time.Now()
		var users []*user
		for i := range flows {
			users = append(users, w.openAs(i%3, terms(1, wire.ClassNormal), 300))
			time.Sleep(200 * time.Millisecond)
		}
		for _, u := range users {
			u.await(5 * time.Minute)
		}
		took, least := time.Since(began), time.Duration(flows*size/spec.Rate*float64(time.Second))
		st, _ := w.edge.s.Status()
		if l := st.Links[0]; took > least*6/5 || l.Moves[scheduler.Suspect] < 5 || l.BytesSent > 10_000 {
			t.Errorf("took %v of %v that the payload takes; %d silences, %d bytes away from the edge", took, least, l.Moves[scheduler.Suspect], l.BytesSent)
		}
	})
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 5 * mbit, Delay: 20 * time.Millisecond})
		defer w.close()
		w.serve(size)
		w.open(300).await(time.Second)
		w.pairs[0].Cut(true)
		u := w.open(300)
		time.Sleep(5 * time.Second)
		w.pairs = append(w.pairs, nil)
		w.connect(1, simlink.Spec{Rate: 5 * mbit, Delay: 20 * time.Millisecond})
		u.await(time.Second)
	})
}
