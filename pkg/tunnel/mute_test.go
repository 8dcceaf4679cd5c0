package tunnel

import (
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/scheduler"
)

// kernel is the end of a link whose peer's kernel acknowledges everything.
type kernel struct {
	*simlink.End
	acked *atomic.Uint64
}

func (k kernel) Sense() scheduler.Sense {
	s := k.End.Sense()
	s.Known, s.Progress = true, k.acked.Add(1)
	return s
}

// TestMute: a peer that is stopped while its kernel goes on acknowledging is
// found out by what it owes, and heard of again when it answers; the link
// itself stays healthy.
func TestMute(t *testing.T) {
	run(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		p := simlink.NewPair(simlink.Spec{Delay: 10 * time.Millisecond, Rate: 50 * mbit})
		info := LinkInfo{ID: 0, Name: "a", Transport: "sim"}
		w.wg.Go(func() { _ = w.edge.s.Serve(t.Context(), info, kernel{p.A, new(atomic.Uint64)}) })
		w.wg.Go(func() { _ = w.cloud.s.Serve(t.Context(), info, p.B) })
		time.Sleep(10 * time.Second)
		if said := w.edge.told(); len(said) != 0 {
			t.Fatalf("an idle link: %v", said)
		}
		stopped := time.Now()
		p.CutFrom(false, true)
		time.Sleep(3 * time.Second)
		// A second until the next probe, and what it is given.
		said := w.edge.told()
		if len(said) != 1 || !said[0].mute {
			t.Fatalf("told %v", said)
		}
		if took := said[0].at.Sub(stopped); took < 500*time.Millisecond || took > 1700*time.Millisecond {
			t.Errorf("told after %v", took)
		}
		if st, _ := w.edge.s.Status(); st.Links[0].State != scheduler.Up {
			t.Errorf("the link is %v", st.Links[0].State)
		}
		p.CutFrom(false, false)
		time.Sleep(time.Second)
		if said = w.edge.told(); len(said) != 2 || said[1].mute {
			t.Errorf("after it went on: told %v", said)
		}
	})
}

// TestMuteUntilTheEnd: a session that ends while a peer does not answer takes back that it
// said so. The edge would take the link for one whose cloud does not answer for as long as
// the next session, whose does, never says so.
func TestMuteUntilTheEnd(t *testing.T) {
	run(t, func(t *testing.T) {
		w := newWorld(t, simlink.Spec{Delay: 10 * time.Millisecond, Rate: 50 * mbit})
		time.Sleep(time.Second)
		w.pairs[0].Cut(true)
		time.Sleep(4 * time.Second)
		if said := w.edge.told(); len(said) != 1 || !said[0].mute {
			t.Fatalf("told %v", said)
		}
		w.edge.stop()
		<-w.edge.s.Ended()
		if said := w.edge.told(); len(said) != 2 || said[1].mute {
			t.Errorf("at the end: told %v", said)
		}
		w.close()
	})
}
