package repair

import (
	"testing"
	"time"
)

// TestMends: what the sender sends again it need not where all of it is being repaired, or
// the peer has it.
func TestMends(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 20)
	r.now += 10 * ms
	r.ack(4, 5, 10)
	r.ack(4, 12, 18, 5, 10)
	r.want(Range{4, 5}, Range{10, 12})
	for _, c := range []struct {
		from, to int
		want     bool
	}{{4, 5, true}, {5, 9, true}, {4, 18, true}, {10, 11, true}, {17, 19, false}, {18, 19, false}, {3, 5, false}} {
		if got := r.f.Mends(r.rangeOf(c.from, c.to)); got != c.want {
			t.Errorf("%d to %d is mended: %v", c.from, c.to, got)
		}
	}
	if r.f.Yield(); r.f.Mends(r.rangeOf(4, 5)) {
		t.Error("all is left to the sender, and its repairs are held back")
	}
	// The peer may lack what was sent before the flow began: nobody else repairs that.
	r = &rig{t: t, start: 1 << 31, credit: 1 << 20}
	r.send(10, 20)
	r.ack(4, 5, 12)
	for r.again == nil {
		r.tick()
	}
	if r.f.Mends(r.rangeOf(4, 5)) || r.f.Mends(r.rangeOf(10, 11)) {
		t.Error("what is not known of is held back")
	}
}

// TestRoaming: a longer line counts as long as it is once its round trip was measured with
// little under way, and not as a queue for ever; a queue of our own does not count.
func TestRoaming(t *testing.T) {
	r := newRig(t, 2)
	at := 2
	under := func(segments int, turn time.Duration) {
		for begun := r.now; r.now-begun < 2*leastTime; at += segments {
			r.send(at, at+segments)
			r.now += turn
			r.ack(at + segments)
		}
	}
	if under(5*fewSegments, 100*ms); !r.f.congested() {
		t.Error("what was under way for long counts as the line's length")
	}
	if under(1, 100*ms); r.f.congested() {
		t.Errorf("the least round trip is %v still", r.f.least)
	}
	if under(1, 10*ms); r.f.least != 10*ms {
		t.Errorf("the least round trip is %v", r.f.least)
	}
}
