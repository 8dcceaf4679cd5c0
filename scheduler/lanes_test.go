package scheduler

import (
	"testing"
	"time"
)

// TestCopiesPreferOtherUplinks: what an uplink loses when it dies is safe only
// on another one; without one, another lane helps against a lost packet.
func TestCopiesPreferOtherUplinks(t *testing.T) {
	of := func(uplink int, l Link) Link { l.Uplink = uplink; return l }
	down := func(l Link) Link { l.State = Down; return l }
	first, lane := of(0, up(20*ms, 50, 0, 1<<20)), of(0, up(21*ms, 50, 0, 1<<20))
	other := of(1, up(80*ms, 20, 0, 1<<20))
	for _, c := range []struct {
		name  string
		links []Link
		want  int // -1: no copy
	}{
		{"another uplink, though a lane is quicker", []Link{first, lane, other}, 2},
		{"it is down: a lane", []Link{first, lane, down(other)}, 1},
		{"nothing else", []Link{first, down(lane), down(other)}, -1},
	} {
		o := NewOverdue()
		if j, ok := o.Urgent(c.links, 0, 0, 1200, true); ok != (c.want >= 0) || ok && j != c.want {
			t.Errorf("%s: urgent copy on %d, %v", c.name, j, ok)
		}
		if j, ok := o.Copy(c.links, 0, 1200, 380*time.Millisecond); ok != (c.want >= 0) || ok && j != c.want {
			t.Errorf("%s: late copy on %d, %v", c.name, j, ok)
		}
	}
	// The other uplink would be later than the original is likely to be.
	o, slow := NewOverdue(), of(1, up(900*ms, 20, 0, 1<<20))
	if j, ok := o.Copy([]Link{first, lane, slow}, 0, 1200, 80*time.Millisecond); !ok || j != 1 {
		t.Errorf("the other uplink is too slow: late copy on %d, %v", j, ok)
	}
}
