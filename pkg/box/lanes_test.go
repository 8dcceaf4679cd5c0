package box

import (
	"testing"
	"time"

	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestLanesAreOneLink: status shows an uplink once, with the sums of its lanes,
// in the order of the uplinks.
func TestLanesAreOneLink(t *testing.T) {
	link := func(uplink, lane int, name string, state scheduler.State, sent uint64, rtt time.Duration) tunnel.LinkStatus {
		return tunnel.LinkStatus{
			LinkInfo: tunnel.LinkInfo{ID: int(wire.LinkIndex(uplink, lane)), Name: name}, State: state,
			BytesSent: sent, BytesGot: 2 * sent, SRTT: rtt, InFlight: 5, Connections: 2, Moves: [scheduler.StateCount]uint64{scheduler.Suspect: 3},
		}
	}
	s := Session(tunnel.Status{Links: []tunnel.LinkStatus{
		link(1, 1, "lte", scheduler.Up, 30, 40*time.Millisecond), link(0, 0, "wifi", scheduler.Down, 7, 0),
		link(1, 0, "lte", scheduler.Suspect, 10, time.Second),
	}}, true)
	if s.State != "up" || len(s.Links) != 2 || s.Links[0].Name != "wifi" || s.Links[0].Lanes != nil {
		t.Fatalf("%+v", s)
	}
	l := s.Links[1]
	if l.State != "up" || l.BytesUp != 40 || l.BytesDown != 80 || l.RTT != 40 || l.InFlight != 10 || l.Losses != 6 || l.Reconnects != 2 {
		t.Errorf("the uplink is %+v", l)
	}
	if len(l.Lanes) != 2 || l.Lanes[0].Number != 1 || l.Lanes[0].State != "suspect" || l.Lanes[1].Number != 2 || l.Lanes[1].BytesUp != 30 {
		t.Errorf("its lanes are %+v", l.Lanes)
	}
}
