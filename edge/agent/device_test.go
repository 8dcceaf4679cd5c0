package agent

import (
	"log/slog"
	"net/netip"
	"testing"

	"hawser/netns"
)

// TestInterfaceTold: what the kernel says of an interface ends attempts to connect or begins
// them anew when it changes what they are bound to, and only then.
func TestInterfaceTold(t *testing.T) {
	addrs := func(list ...string) (a []netip.Addr) {
		for _, s := range list {
			a = append(a, netip.MustParseAddr(s))
		}
		return a
	}
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

// TestUplinkVersions: the cloud's name is looked up for the IP versions that an uplink has.
func TestUplinkVersions(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")
	for _, c := range []struct {
		gateway  netip.Addr
		addrs    []netip.Addr
		is4, is6 bool
	}{
		{netip.Addr{}, nil, true, true},
		{netip.Addr{}, []netip.Addr{four}, true, false},
		{netip.Addr{}, []netip.Addr{six}, false, true},
		{netip.Addr{}, []netip.Addr{six, four}, true, true},
		{four, []netip.Addr{six}, true, false},
		{six, []netip.Addr{four}, false, true},
	} {
		u := newUplink(0, "lte", &tunnels{log: slog.New(slog.DiscardHandler)})
		u.device.addrs = c.addrs
		if is4, is6 := u.versions(c.gateway); is4 != c.is4 || is6 != c.is6 {
			t.Errorf("gateway %v, addresses %v: %v, %v", c.gateway, c.addrs, is4, is6)
		}
	}
}
