package netns

import (
	"context"
	"net/netip"
	"testing"
)

// TestMute: a gateway that is there answers, one that is not is mute, and nothing is
// said of one that nobody has looked for.
func TestMute(t *testing.T) {
	t.Parallel()
	newWorld(t)
	ask := func(l LinkRoute) bool {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		return AskGateway(ctx, l)
	}
	for _, c := range []struct {
		there, absent string
	}{{"198.18.3.1", "198.18.3.77"}, {"fd00:3::1", "fd00:3::77"}} {
		l := LinkRoute{Interface: "wan1", Gateway: netip.MustParseAddr(c.absent)}
		if Mute(l, l.Gateway) {
			t.Errorf("%s is mute before anybody has looked for it", l.Gateway)
		}
		if !ask(l) || !Mute(l, l.Gateway) {
			t.Errorf("%s, where nobody is, answers", l.Gateway)
		}
		l.Gateway = netip.MustParseAddr(c.there)
		if ask(l) || Mute(l, l.Gateway) {
			t.Errorf("%s does not answer", l.Gateway)
		}
	}
	if l := (LinkRoute{Interface: "none", Gateway: netip.MustParseAddr("198.18.3.1")}); ask(l) || Mute(l, l.Gateway) {
		t.Error("an interface that is not there is taken for a mute gateway")
	}
}

// TestLeads: the host's default route is by wan0.
func TestLeads(t *testing.T) {
	newWorld(t)
	for _, c := range []struct {
		device, gateway, cloud string
		want                   bool
	}{
		{"wan0", "198.18.2.1", "198.18.100.9:7443", true},
		{"wan0", "fd00:2::1", "[fd00:64::9]:7443", true},
		{"wan0", "198.18.2.77", "198.18.100.9:7443", false},
		{"wan1", "198.18.3.1", "198.18.100.9:7443", false},
		{"wan1", "fd00:3::1", "[fd00:64::9]:7443", false},
		{"none", "198.18.2.1", "198.18.100.9:7443", false},
	} {
		l := LinkRoute{Interface: c.device, Gateway: netip.MustParseAddr(c.gateway), Cloud: netip.MustParseAddrPort(c.cloud)}
		if got := Leads(l); got != c.want {
			t.Errorf("by %s to %s: %v", c.device, c.gateway, got)
		}
	}
	l := LinkRoute{Interface: "wan0", Gateway: netip.MustParseAddr("198.18.2.1"), Named: true}
	if Leads(l) {
		t.Error("a cloud whose address is not known is led to")
	}
}
