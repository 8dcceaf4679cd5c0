package netns

import (
	"context"
	"net/netip"
	"testing"
)

// TestMute: a gateway that is there answers, one that is not is mute, and nothing is
// said of one that nobody has looked for.
func TestMute(t *testing.T) {
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
