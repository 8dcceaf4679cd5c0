package box

import (
	"net/netip"
	"testing"

	"hawser/pkg/config"
	"hawser/pkg/unit"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// The words of the file and the names of the scheduler are the same.
func TestKinds(t *testing.T) {
	for i := range uint8(20) {
		k := Kinds(config.Scheduler{Order: config.OrderKind(i), Data: config.DataKind(i), Path: config.PathKind(i)})
		if k.Order.String() != config.OrderKind(i).String() || k.Data.String() != config.DataKind(i).String() || k.Path.String() != config.PathKind(i).String() {
			t.Errorf("%d: %v %v %v", i, k.Order, k.Data, k.Path)
		}
	}
	if k := Kinds(config.Scheduler{Path: config.PathRoundRobin}); k.Path != scheduler.PathRoundRobin {
		t.Errorf("%v", k.Path)
	}
}

func TestOverride(t *testing.T) {
	if Override(nil) != nil {
		t.Error("without policies there is something to ask")
	}
	f := Override([]config.Policy{{Name: "web", Ports: []config.PortRange{{First: 80, Last: 80}}, Class: config.ClassBackground, Weight: 2, Limit: 8 * unit.Mbit}})
	asked := wire.Terms{Policy: 3, Bits: 24, Class: wire.ClassLatency, Weight: 9}
	client := netip.MustParseAddr("10.1.2.3")
	if got := f(asked, client, netip.MustParseAddrPort("203.0.113.1:443")); got != asked {
		t.Errorf("what no policy names became %+v", got)
	}
	want := wire.Terms{Policy: ownPolicy | 1, Bits: 24, Class: wire.ClassBackground, Weight: 2, Limit: 1e6}
	if got := f(asked, client, netip.MustParseAddrPort("203.0.113.1:80")); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
