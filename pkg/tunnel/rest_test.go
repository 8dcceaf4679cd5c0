package tunnel

import (
	"testing"
	"time"
	"unsafe"

	"hawser/pkg/simlink"
)

// TestSessionAtRest: once the last flow of a crowd has ended, neither end keeps
// what its queues and free lists have grown by, and flows that come later find it all
// in order.
func TestSessionAtRest(t *testing.T) {
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Rate: 50 * mbit, Delay: 10 * time.Millisecond},
			simlink.Spec{Rate: 50 * mbit, Delay: 20 * time.Millisecond})
		defer w.close()
		w.serve(2000)
		crowd := func() {
			var all []*user
			for range 2000 {
				all = append(all, w.open(500))
			}
			time.Sleep(10 * time.Millisecond)
			if n := w.edge.room(); n < 2000 {
				t.Errorf("the edge has room for %d only: this is no crowd", n)
			}
			for _, u := range all {
				u.await(time.Minute)
			}
			w.gone()
			time.Sleep(time.Second)
			for name, sd := range map[string]*side{"edge": w.edge, "cloud": w.cloud} {
				if n := sd.room(); n > 500 {
					t.Errorf("the %s keeps room for %d records, frames, pieces and messages", name, n)
				}
			}
		}
		crowd()
		crowd()
	})
}

// room is how many things of all kinds a session has room for.
func (sd *side) room() (n int) {
	s := sd.s
	s.call(func() {
		n = s.pieces.n + cap(s.spent.commands) + cap(s.spent.news) + cap(s.events[0]) + cap(s.ctrl.sizes)
		for _, l := range s.links {
			for _, st := range l.conn.strands {
				n += len(st.log.ring)
				for range len(st.rx) {
					select {
					case b := <-st.rx:
						n += cap(b.frames) + cap(b.recs)
						st.rx <- b
					default: // its reader has just taken it
					}
				}
			}
		}
	})
	return n
}

// TestFlowIsSmall: a flow at rest costs an agent what its struct takes, rounded up to one of
// Go's sizes; 32 bytes more are 3 MB with 100,000 of them.
func TestFlowIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(flow{}); n > 384 {
		t.Errorf("a flow has %d bytes, want 384 at most", n)
	}
}
