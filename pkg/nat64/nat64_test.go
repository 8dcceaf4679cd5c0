package nat64

import (
	"net/netip"
	"slices"
	"testing"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// TestEmbed has the examples of RFC 6052, tables 1 (section 2.4) and 2.
func TestEmbed(t *testing.T) {
	for _, c := range []struct{ prefix, address, want string }{
		{"2001:db8::/32", "192.0.2.33", "2001:db8:c000:221::"},
		{"2001:db8:100::/40", "192.0.2.33", "2001:db8:1c0:2:21::"},
		{"2001:db8:122::/48", "192.0.2.33", "2001:db8:122:c000:2:2100::"},
		{"2001:db8:122:300::/56", "192.0.2.33", "2001:db8:122:3c0:0:221::"},
		{"2001:db8:122:344::/64", "192.0.2.33", "2001:db8:122:344:c0:2:2100::"},
		{"2001:db8:122:344::/96", "192.0.2.33", "2001:db8:122:344::192.0.2.33"},
		{"64:ff9b::/96", "192.0.2.33", "64:ff9b::192.0.2.33"},
		{"64:ff9b::/96", "::ffff:192.0.2.33", "64:ff9b::192.0.2.33"},
		{"2001:db8:122:344:ff:ffff:ffff:ffff/64", "192.0.2.33", "2001:db8:122:344:c0:2:2100::"}, // what is behind the prefix is not of it
	} {
		if got := Embed(netip.MustParsePrefix(c.prefix), netip.MustParseAddr(c.address)); got != netip.MustParseAddr(c.want) {
			t.Errorf("%s behind %s is %v, want %s", c.address, c.prefix, got, c.want)
		}
	}
	for _, c := range []struct{ prefix, address string }{
		{"2001:db8::/33", "192.0.2.33"}, {"2001:db8::/72", "192.0.2.33"}, {"2001:db8::/128", "192.0.2.33"}, {"2001:db8::/0", "192.0.2.33"},
		{"192.0.2.0/32", "192.0.2.33"}, {"64:ff9b::/96", "2001:db8::1"},
	} {
		if got := Embed(netip.MustParsePrefix(c.prefix), netip.MustParseAddr(c.address)); got.IsValid() {
			t.Errorf("%s behind %s is %v", c.address, c.prefix, got)
		}
	}
	if Embed(netip.Prefix{}, wellKnown[0]).IsValid() || Embed(netip.MustParsePrefix("64:ff9b::/96"), netip.Addr{}).IsValid() {
		t.Error("nothing stands for something")
	}
}

// TestPrefixes: a prefix of any length is found, and nothing is taken for one that is none.
func TestPrefixes(t *testing.T) {
	type list = []netip.Prefix
	all := list{}
	for _, p := range []string{"2001:db8::/32", "2001:db8:100::/40", "2001:db8:122::/48", "2001:db8:122:300::/56", "2001:db8:122:344::/64", "2001:db8:122:344::/96", "64:ff9b::/96"} {
		prefix := netip.MustParsePrefix(p)
		all = append(all, prefix)
		for _, of := range [][]netip.Addr{wellKnown[:], wellKnown[:1], wellKnown[1:]} {
			var answers []netip.Addr
			for _, w := range of {
				answers = append(answers, Embed(prefix, w))
			}
			if got := Prefixes(answers); !slices.Equal(got, list{prefix}) || !Tells(answers[0]) {
				t.Errorf("%v tells of %v, want %v", answers, got, prefix)
			}
		}
	}
	for name, c := range map[string]struct {
		answers []netip.Addr
		want    []netip.Prefix
	}{
		"nothing":           {nil, nil},
		"no translator":     {addrs("192.0.0.170", "192.0.0.171"), nil},
		"another's address": {addrs("2001:db8::1", "64:ff9b::192.0.2.33"), nil},
		"mapped":            {addrs("::ffff:192.0.0.170", "::ffff:192.0.0.171"), nil},
		"compatible":        {addrs("::192.0.0.170", "::192.0.0.171"), nil},
		"no unicast":        {addrs("ff02::192.0.0.170", "fe80::192.0.0.170"), nil},
		// Section 2.2 of RFC 6052: octet 8 is zero; an octet of the address is not there.
		"octet not zero":      {addrs("2001:db8:122:344:1c0:0:aa00::"), nil},
		"octet not left out":  {addrs("2001:db8:122:344:c000:aa::"), nil},
		"octet of a /96":      {addrs("2001:db8:122:344:100::192.0.0.170"), prefixes("2001:db8:122:344:100::/96")},
		"something behind it": {addrs("2001:db8:122:344:c0:0:aa00:1"), prefixes("2001:db8:122:344::/64")},
		"two prefixes": {
			addrs("64:ff9b::192.0.0.170", "2001:db8:122:344::192.0.0.170", "64:ff9b::192.0.0.171", "2001:db8:122:344::192.0.0.171"),
			prefixes("64:ff9b::/96", "2001:db8:122:344::/96"),
		},
		"the surer first": {
			addrs("2001:db8::192.0.0.170", "64:ff9b::192.0.0.171", "64:ff9b::192.0.0.170"), prefixes("64:ff9b::/96", "2001:db8::/96"),
		},
		// The prefix has the octets of an address: section 3 of RFC 7050.
		"ambiguous":         {addrs("2001:db8:c000:aa::192.0.0.170", "2001:db8:c000:aa::192.0.0.171"), prefixes("2001:db8:c000:aa::/96")},
		"and one of it":     {addrs("2001:db8:c000:aa::192.0.0.171"), nil},
		"twice":             {addrs("64:ff9b::192.0.0.170", "64:ff9b::192.0.0.170"), prefixes("64:ff9b::/96")},
		"beside an address": {addrs("192.0.0.170", "64:ff9b::192.0.0.170"), prefixes("64:ff9b::/96")},
	} {
		if got := Prefixes(c.answers); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	var mixed []netip.Addr
	for _, p := range all {
		mixed = append(mixed, Embed(p, wellKnown[0]), Embed(p, wellKnown[1]))
	}
	if got := Prefixes(mixed); !slices.Equal(got, all) {
		t.Errorf("all together: %v", got)
	}
}

// FuzzPrefixes: whatever name servers say, each prefix is of a length that addresses can be
// made with, and one of the answers is what it makes of a well-known address.
func FuzzPrefixes(f *testing.F) {
	for _, a := range addrs("64:ff9b::192.0.0.170", "2001:db8:c000:aa::192.0.0.171", "2001:db8:122:344:c0:0:aa00:1", "::ffff:192.0.0.170", "2001:db8:122:3c0:0:aa::") {
		b := a.As16()
		f.Add(b[:], uint32(0xc0000221))
		f.Add(append(b[:], b[:]...), uint32(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, v4 uint32) {
		var answers []netip.Addr
		for chunk := range slices.Chunk(data, 16) {
			if a, ok := netip.AddrFromSlice(chunk); ok {
				answers = append(answers, a)
			}
		}
		found := Prefixes(answers)
		four := netip.AddrFrom4([4]byte{byte(v4 >> 24), byte(v4 >> 16), byte(v4 >> 8), byte(v4)})
		for i, p := range found {
			if slices.Index(found, p) != i || p != p.Masked() {
				t.Errorf("%v of %v", p, found)
			}
			a := Embed(p, four)
			if !p.Contains(a) || !holds(a, p.Bits(), four) {
				t.Errorf("%v behind %v is %v", four, p, a)
			}
			if !slices.ContainsFunc(answers, func(a netip.Addr) bool {
				return Tells(a) && p.Contains(a) && (holds(a, p.Bits(), wellKnown[0]) || holds(a, p.Bits(), wellKnown[1]))
			}) {
				t.Errorf("%v is behind none of %v", p, answers)
			}
		}
	})
}
