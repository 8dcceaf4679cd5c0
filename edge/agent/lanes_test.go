package agent

import (
	"log/slog"
	"net/netip"
	"testing"

	"hawser/netns"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestLanesFollowTheFirst: what the kernel says of an uplink and what changes its
// terms reaches all its lanes, and what a session says of one lane that one only.
func TestLanesFollowTheFirst(t *testing.T) {
	ts := &tunnels{term: newTerm(), log: slog.New(slog.DiscardHandler)}
	ts.uplinks = []*uplink{newUplink(0, "wifi", ts), newUplink(1, "lte", ts)}
	for n := 1; n < 3; n++ {
		ts.uplinks[1].lanes = append(ts.uplinks[1].lanes, newUplink(int(wire.LinkIndex(1, n)), "lte", ts))
	}
	var ids []int
	for u := range ts.all {
		ids = append(ids, u.id)
		if ts.lane(u.id) != u {
			t.Errorf("link %d is not found by its ID", u.id)
		}
	}
	if len(ids) != 4 || ids[2] != 1+1<<8 || ids[3] != 1+2<<8 {
		t.Errorf("the lanes have IDs %v", ids)
	}
	ts.uplinks[1].alter(func(t *tunnel.LinkTerms) { t.Tier = scheduler.Standby })
	ts.event(netns.UplinkEvent{Link: 1, State: netns.UplinkState{Why: "interface wwan0 is down", Addrs: []netip.Addr{}}})
	ts.silent(ids[3], true)
	ts.mute(ids[2], true)
	for u := range ts.all {
		lte := wire.UplinkOf(u.id) == 1
		if (u.termsNow().Tier == scheduler.Standby) != lte || u.usable() == lte || u.silent.Load() != (u.id == ids[3]) || u.mute.Load() != (u.id == ids[2]) {
			t.Errorf("link %d: %+v, usable %v, silent %v", u.id, u.termsNow(), u.usable(), u.silent.Load())
		}
	}
}
