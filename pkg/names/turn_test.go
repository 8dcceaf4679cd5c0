package names

import (
	"net/netip"
	"slices"
	"testing"
)

func TestInTurn(t *testing.T) {
	a := func(s ...string) (out []netip.Addr) {
		for _, s := range s {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, c := range []struct {
		of   []netip.Addr
		six  bool
		want []netip.Addr
	}{
		{nil, true, nil},
		{a("192.0.2.1", "192.0.2.2", "2001:db8::1"), true, a("2001:db8::1", "192.0.2.1", "192.0.2.2")},
		{a("2001:db8::1", "2001:db8::2", "192.0.2.1"), false, a("192.0.2.1", "2001:db8::1", "2001:db8::2")},
		{a("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"), true, a("192.0.2.1")},
	} {
		if got := InTurn(c.of, c.six); !slices.Equal(got, c.want) {
			t.Errorf("%v, IPv6 first %v: %v, want %v", c.of, c.six, got, c.want)
		}
	}
}
