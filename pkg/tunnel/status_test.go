package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/simlink"
)

// TestTripsOfAConnection: what a link's round trips were since another connection was made
// shows at once, though it is at rest; the smoothed one still tells of the one before.
func TestTripsOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 50 * mbit, Delay: 50 * time.Millisecond})
		defer w.close()
		look := func() LinkStatus {
			st, _ := w.edge.s.Status()
			return st.Links[0]
		}
		time.Sleep(10 * time.Second)
		w.connect(0, simlink.Spec{Rate: 50 * mbit, Delay: 10 * time.Millisecond})
		time.Sleep(time.Second)
		before := look()
		time.Sleep(4 * time.Second)
		after := look()
		n := after.Trips - before.Trips
		if n < 3 || n > 5 {
			t.Fatalf("%d round trips in 4 s", n)
		}
		if mean := (after.TripTime - before.TripTime) / time.Duration(n); mean > 25*time.Millisecond || mean < 20*time.Millisecond || after.SRTT < 2*mean {
			t.Errorf("a mean round trip of %v, %v smoothed", mean, after.SRTT)
		}
	})
}
