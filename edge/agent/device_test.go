package agent

import (
	"log/slog"
	"net/netip"
	"testing"

	"hawser/netns"
	"hawser/pkg/link"
)

// TestInterfaceTold: what the kernel says of an interface ends attempts to connect or begins
// them anew when it changes what they are bound to, and only then.
func TestInterfaceTold(t *testing.T) {
	const lost = "the interface has lost its address"
	u := newUplink(0, "lte", &tunnels{log: slog.New(slog.DiscardHandler)})
	for i, c := range []struct {
		why      string
		addrs    []netip.Addr
		rerouted bool

		wantWhy string // newly
		dial    bool
		usable  bool
	}{
		{"", nil, false, "", false, true}, // it may borrow another's
		{"", addrs("10.0.0.2"), false, "", true, true},
		{"", addrs("10.0.0.2"), false, "", false, true},
		{"", addrs("10.0.0.2"), true, "", true, true},
		{"", addrs("10.0.0.3"), false, "", true, true},
		{"", nil, false, lost, true, false},
		{"", nil, false, "", false, false},
		{"it is down", nil, false, "", true, false},
		{"", addrs("10.0.0.3"), false, "", true, true},
		{"it is down", addrs("10.0.0.3"), false, "it is down", true, false},
	} {
		_, why, dial := u.judge(netns.UplinkEvent{State: netns.UplinkState{Why: c.why, Addrs: c.addrs}, Rerouted: c.rerouted})
		if why != c.wantWhy || dial != c.dial || u.usable() != c.usable {
			t.Errorf("%d: %+v: %q, dial %v, usable %v", i, c, why, dial, u.usable())
		}
	}
	u = newUplink(0, "lte", u.tunnels)
	if _, why, dial := u.judge(netns.UplinkEvent{State: netns.UplinkState{Addrs: addrs("10.0.0.2")}}); why != "" || dial {
		t.Errorf("told first of an interface that can be used: %q, dial %v", why, dial)
	}
}

// TestUplinkVersions: attempts leave by the IP versions that the kernel has told of.
func TestUplinkVersions(t *testing.T) {
	route := netns.LinkRoute{Interface: "no-such", Gateway: netip.MustParseAddr("2001:db8::1")}
	u := newUplink(0, "lte", &tunnels{log: slog.New(slog.DiscardHandler)})
	if four, six := u.versions(route); four || !six {
		t.Errorf("before it was told: %v, %v", four, six)
	}
	u.judge(netns.UplinkEvent{State: netns.UplinkState{Four: true}})
	if four, six := u.versions(route); !four || six {
		t.Errorf("told of IPv4: %v, %v", four, six)
	}
}

// TestIPv4Comes: a connection by NAT64 goes on when the uplink gets an IPv4 address as well,
// and ends with its own.
func TestIPv4Comes(t *testing.T) {
	four, six := addrs("10.0.0.2"), addrs("2001:db8::2")
	u := newUplink(0, "lte", &tunnels{log: slog.New(slog.DiscardHandler)})
	u.judge(netns.UplinkEvent{State: netns.UplinkState{Addrs: six, Six: true}})
	u.device.conn, u.device.from = new(link.Conn), six
	if end, why, dial := u.judge(netns.UplinkEvent{State: netns.UplinkState{Addrs: four, Beside: six, Four: true}}); end != nil || why != "" || !dial {
		t.Errorf("with an IPv4 address too: %v, %q, dial %v", end, why, dial)
	}
	if end, why, _ := u.judge(netns.UplinkEvent{State: netns.UplinkState{Addrs: four, Four: true}}); end == nil || why != "address 2001:db8::2 was removed" {
		t.Errorf("without the one it uses: %v, %q", end, why)
	}
	u.where = new(whereabouts)
	u.event(netns.UplinkEvent{State: netns.UplinkState{Addrs: four, Beside: six, Four: true}})
	if u.where.nat64.stale {
		t.Error("the prefix is asked for again where nothing that connections leave by has changed")
	}
	u.event(netns.UplinkEvent{State: netns.UplinkState{Addrs: six, Six: true}})
	if !u.where.nat64.stale {
		t.Error("the prefix of the former network stays")
	}
	if _, why, _ := u.judge(netns.UplinkEvent{State: netns.UplinkState{Addrs: six, Six: true}}); why != "" || !u.usable() {
		t.Errorf("without the IPv4 one: %q, usable %v", why, u.usable())
	}
}
