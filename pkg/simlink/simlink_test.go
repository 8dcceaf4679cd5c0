package simlink

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// TestTrySend: a batch of more than the queue holds is taken at once, as the caller may
// hold a lock that others wait for, and virtual time stands still while somebody waits
// for a lock; the next is refused, and Send waits.
func TestTrySend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 16 << 10
		p := NewPair(Spec{Rate: 50e6 / 8, Delay: 10 * time.Millisecond, Queue: 2 * size})
		defer p.A.Close(nil)
		batch := func() (out []wire.Record) {
			for range 4 {
				out = append(out, wire.Record{Body: buffer.Get(size).Seg(0, size)})
			}
			return out
		}
		began := time.Now()
		if done, err := p.A.TrySend(batch()); !done || err != nil {
			t.Fatalf("%v %v", done, err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("TrySend waited for %v", took)
		}
		again := batch()
		if done, _ := p.A.TrySend(again); done {
			t.Error("a batch was taken though the queue is full")
		}
		if err := p.A.Send(again); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) == 0 {
			t.Error("Send did not wait for the queue")
		}
	})
}

// TestStepped: the clock is another, what has passed is not.
func TestStepped(t *testing.T) {
	before := time.Now()
	for _, seconds := range []int{3600, -3600} {
		after := Stepped(before.Add(time.Second), seconds)
		if passed, shown := after.Sub(before), after.Round(0).Sub(before.Round(0)); passed != time.Second || shown != time.Second*time.Duration(1+seconds) {
			t.Errorf("set by %d s: %v have passed, and the clock shows %v more", seconds, passed, shown)
		}
	}
}
