package places

import (
	"net/netip"
	"testing"
)

func TestPlaces(t *testing.T) {
	p := New(5, 2)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	six, same, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2%eth0"), netip.MustParseAddr("2001:db8:0:1::1")
	for i, c := range []struct {
		addr netip.Addr
		ok   bool
	}{{a, true}, {b, true}, {a, false}, {six, true}, {same, true}, {six, false}, {other, true}, {netip.MustParseAddr("192.0.2.2"), false}} {
		if p.Enter(c.addr) != c.ok {
			t.Errorf("step %d: %v", i, c.addr)
		}
	}
	if !p.Crowded() {
		t.Error("full, and not crowded")
	}
	for _, addr := range []netip.Addr{a, a, six, same, other} {
		p.Leave(addr)
	}
	if p.taken != 0 || len(p.source) != 0 || p.Crowded() {
		t.Errorf("not empty: %+v", p)
	}
}
