package wire

import "testing"

func TestLinkIndex(t *testing.T) {
	for _, c := range []struct{ uplink, lane int }{{0, 0}, {MaxUplinks - 1, 0}, {0, 1}, {3, MaxLanes - 1}, {MaxUplinks - 1, MaxLanes - 1}} {
		i := int(LinkIndex(c.uplink, c.lane))
		if UplinkOf(i) != c.uplink || LaneOf(i) != c.lane {
			t.Errorf("lane %d of uplink %d: index %d is lane %d of uplink %d", c.lane, c.uplink, i, LaneOf(i), UplinkOf(i))
		}
		if c.lane == 0 && i != c.uplink {
			t.Errorf("the index of a link with one lane is %d, want %d", i, c.uplink)
		}
	}
}
