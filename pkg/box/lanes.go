package box

import (
	"cmp"
	"slices"

	"hawser/pkg/admin"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// linksOf converts the links of a session, those that are lanes of one uplink
// into one link.
func linksOf(links []tunnel.LinkStatus, up bool) (out []admin.Link) {
	links = slices.Clone(links)
	slices.SortFunc(links, func(a, b tunnel.LinkStatus) int {
		return cmp.Or(wire.UplinkOf(a.ID)-wire.UplinkOf(b.ID), a.ID-b.ID)
	})
	for first := 0; first < len(links); {
		next := first + 1
		for next < len(links) && wire.UplinkOf(links[next].ID) == wire.UplinkOf(links[first].ID) {
			next++
		}
		out = append(out, uplinkOf(links[first:next], up))
		first = next
	}
	return out
}

// uplinkOf sums up the lanes of an uplink. Its state is that of its best lane,
// and so are its round trips.
func uplinkOf(lanes []tunnel.LinkStatus, up bool) admin.Link {
	best := 0
	for i := range lanes {
		if better(&lanes[i], &lanes[best]) {
			best = i
		}
	}
	out := linkOf(lanes[best], up)
	if len(lanes) == 1 && wire.LaneOf(lanes[0].ID) == 0 {
		return out
	}
	for i, l := range lanes {
		one := linkOf(l, up)
		out.Lanes = append(out.Lanes, admin.Lane{
			Number: wire.LaneOf(l.ID) + 1, State: one.State, Since: one.Since, RTT: one.RTT, BytesUp: one.BytesUp, BytesDown: one.BytesDown,
			InFlight: one.InFlight, Losses: one.Losses, Reconnects: one.Reconnects, LastError: one.LastError,
		})
		if i == best {
			continue
		}
		out.RateUp, out.RateDown = out.RateUp+one.RateUp, out.RateDown+one.RateDown
		out.BytesUp, out.BytesDown = out.BytesUp+one.BytesUp, out.BytesDown+one.BytesDown
		out.PacketsLost, out.Forged = out.PacketsLost+one.PacketsLost, out.Forged+one.Forged
		out.InFlight, out.Losses, out.Reconnects = out.InFlight+one.InFlight, out.Losses+one.Losses, out.Reconnects+one.Reconnects
	}
	return out
}

// better reports whether a link's state is better than another's.
func better(a, b *tunnel.LinkStatus) bool {
	rank := func(s scheduler.State) int {
		return slices.Index([]scheduler.State{scheduler.Down, scheduler.Probing, scheduler.Suspect, scheduler.Up}, s)
	}
	return rank(a.State) > rank(b.State)
}
