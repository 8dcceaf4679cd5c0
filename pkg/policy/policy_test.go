package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"hawser/pkg/config"
	"hawser/pkg/unit"
	"hawser/pkg/wire"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func list() []config.Policy {
	return []config.Policy{
		{Name: "calls", Client: prefix("10.1.0.0/16"), Ports: []config.PortRange{{First: 5060, Last: 5061}}, Class: config.ClassLatency, Weight: 1},
		{Name: "local", Destination: prefix("192.0.2.0/24"), Action: config.ActionDirect, Weight: 1},
		{Name: "crew", Client: prefix("10.1.2.0/24"), Class: config.ClassPrivileged, Weight: 4, Guarantee: 8 * unit.Mbit, Limit: 80 * unit.Mbit},
		{Name: "updates", Destination: prefix("2001:db8::/32"), Ports: []config.PortRange{{First: 80, Last: 80}, {First: 60000, Last: 65535}}, Class: config.ClassBackground, Weight: 1, User: config.UserAll},
		{Name: "top", Client: prefix("255.255.255.0/24"), Weight: 1, Handshake: config.HandshakeStrict},
		{Name: "six", Client: prefix("::/0"), Weight: 2},
	}
}

func TestMatch(t *testing.T) {
	table := New(list(), Users{})
	for _, c := range []struct{ client, server, want string }{
		{"10.1.9.9", "198.51.100.1:5060", "calls"},
		{"10.1.9.9", "198.51.100.1:5061", "calls"},
		{"10.1.9.9", "192.0.2.7:5061", "calls"}, // the first that matches
		{"10.1.9.9", "198.51.100.1:5062", ""},
		{"10.1.9.9", "192.0.2.7:443", "local"},
		{"10.1.2.3", "192.0.2.255:443", "local"},
		{"10.1.2.3", "192.0.3.0:443", "crew"},
		{"10.1.2.255", "198.51.100.1:443", "crew"},
		{"10.1.3.0", "198.51.100.1:443", ""},
		{"::ffff:10.1.2.3", "198.51.100.1:443", "crew"},
		{"2001:db8:1::1", "[2001:db8::1]:80", "updates"},
		{"2001:db8:1::1", "[2001:db8::1]:65535", "updates"},
		{"2001:db8:1::1", "[2001:db8::1]:81", "six"},
		{"255.255.255.255", "[2001:db9::1]:81", "top"},
		{"::", "[2001:db9::1]:81", "six"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "203.0.113.1:1", "six"},
		{"0.0.0.0", "203.0.113.1:1", ""},
	} {
		if got := table.Match(netip.MustParseAddr(c.client), netip.MustParseAddrPort(c.server)); got.Name != c.want {
			t.Errorf("%s to %s: %q, want %q", c.client, c.server, got.Name, c.want)
		}
	}
	if p := table.Match(netip.Addr{}, netip.AddrPort{}); p.Name != "" {
		t.Errorf("no address falls under %q", p.Name)
	}
}

func TestTerms(t *testing.T) {
	table := New(list(), Users{Bits4: 24})
	at := func(client, server string) (*Policy, wire.Terms) {
		a := netip.MustParseAddr(client)
		p := table.Match(a, netip.MustParseAddrPort(server))
		return p, p.For(a)
	}
	if _, terms := at("10.1.2.3", "198.51.100.1:443"); terms != (wire.Terms{Policy: 3, Bits: 24, Class: wire.ClassPrivileged, Weight: 4, Guarantee: 1e6, Limit: 10e6}) {
		t.Errorf("crew: %+v", terms)
	}
	if _, terms := at("2001:db8:1::1", "[2001:db8::1]:80"); terms != (wire.Terms{Policy: 4, Class: wire.ClassBackground, Weight: 1}) {
		t.Errorf("updates: %+v", terms)
	}
	if _, terms := at("2001:db8:1::1", "203.0.113.1:80"); terms != (wire.Terms{Policy: 6, Bits: 128, Class: wire.ClassNormal, Weight: 2}) {
		t.Errorf("six: %+v", terms)
	}
	if _, terms := at("10.9.9.9", "203.0.113.1:80"); terms != (wire.Terms{Bits: 24, Class: wire.ClassNormal, Weight: 1}) {
		t.Errorf("the rest: %+v", terms)
	}
	if p, _ := at("10.9.9.9", "192.0.2.1:80"); !p.Direct || p.Handshake != config.HandshakeAuto {
		t.Errorf("local: %+v", p)
	}
	if p, _ := at("255.255.255.1", "203.0.113.1:80"); p.Direct || p.Handshake != config.HandshakeStrict {
		t.Errorf("top: %+v", p)
	}
	if table.Len() != 6 || New(nil, Users{}).Len() != 0 {
		t.Error("wrong lengths")
	}
}

// TestUsers: how much of an address makes a user is as configured, for both families, and
// all of it by default.
func TestUsers(t *testing.T) {
	for _, c := range []struct {
		users     Users
		four, six uint8
	}{{Users{}, 32, 128}, {Users{Bits4: 24}, 24, 128}, {Users{Bits6: 64}, 32, 64}, {Users{Bits4: 8, Bits6: 48}, 8, 48}} {
		for _, table := range []*Table{New(nil, c.users), New(list(), c.users)} {
			for client, want := range map[string]uint8{"10.9.9.9": c.four, "::ffff:10.9.9.9": c.four, "2001:db8::1": c.six} {
				a := netip.MustParseAddr(client)
				if got := table.Match(a, netip.MustParseAddrPort("203.0.113.1:80")).For(a).Bits; got != want {
					t.Errorf("%+v: %s is a user by %d bits, want %d", c.users, client, got, want)
				}
			}
		}
	}
}

// TestEachOfMany: every policy of a long list is found, and nothing behind the last one.
func TestEachOfMany(t *testing.T) {
	for _, n := range []int{63, 64, 65, config.MaxPolicies} {
		var list []config.Policy
		for i := range n {
			list = append(list, config.Policy{Name: fmt.Sprint("p", i), Client: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), Weight: 1})
		}
		table := New(list, Users{})
		server := netip.MustParseAddrPort("203.0.113.1:80")
		for i := range list {
			if got := table.Match(list[i].Client.Addr(), server); got.Name != list[i].Name || got.Terms.Policy != uint16(i+1) {
				t.Errorf("%d policies: client %d falls under %q, number %d", n, i, got.Name, got.Terms.Policy)
			}
		}
		if got := table.Match(netip.MustParseAddr("10.1.0.0"), server); got.Name != "" || got.Terms.Policy != 0 {
			t.Errorf("%d policies: a client of none falls under %q", n, got.Name)
		}
	}
}

// TestNextKeepsNumbers: connections of one number share what a user may have, so that a
// policy keeps its own over a reload, and none gets another's.
func TestNextKeepsNumbers(t *testing.T) {
	client, server := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddrPort("203.0.113.1:80")
	table, ok := New(nil, Users{}), true
	list := func(names ...string) (list []config.Policy) {
		for _, name := range names {
			list = append(list, config.Policy{Name: name, Weight: 1})
		}
		return list
	}
	for _, c := range []struct {
		names []string
		want  uint16 // of the first
	}{
		{[]string{"crew", "guests"}, 1}, {[]string{"guests"}, 2}, {[]string{"calls", "guests"}, 3}, {[]string{"crew"}, 1}, {nil, 0}, {[]string{"more"}, 4},
	} {
		if table, ok = table.Next(list(c.names...), Users{Bits4: 24}); !ok {
			t.Fatal("there is no next table")
		}
		if got := table.Match(client, server); got.Terms.Policy != c.want || len(c.names) > 0 && got.For(client).Bits != 24 {
			t.Errorf("%q: %+v, want number %d", c.names, got, c.want)
		}
	}
	for i := 5; i <= MaxNumber; i++ { // as if they had been there
		table.numbers[fmt.Sprint(i)] = uint16(i)
	}
	if _, ok := table.Next(list("too many"), Users{}); ok {
		t.Error("a number is given twice")
	}
	if _, ok := table.Next(list("crew", "8"), Users{}); !ok {
		t.Error("policies that were there are too many")
	}
}

// matches is the definition: one policy at a time.
func matches(p config.Policy, client netip.Addr, server netip.AddrPort) bool {
	port := len(p.Ports) == 0
	for _, r := range p.Ports {
		port = port || r.First <= server.Port() && server.Port() <= r.Last
	}
	return port && (!p.Client.IsValid() || p.Client.Contains(client)) && (!p.Destination.IsValid() || p.Destination.Contains(server.Addr()))
}

// randomList makes policies whose bounds meet often.
func randomList(rnd *rand.Rand, n int) (out []config.Policy) {
	for i := range n {
		p := config.Policy{Name: fmt.Sprint("p", i), Weight: 1}
		if rnd.IntN(3) > 0 {
			p.Client, _ = randomAddr(rnd).Prefix(rnd.IntN(33))
		}
		if rnd.IntN(3) > 0 {
			p.Destination, _ = randomAddr(rnd).Prefix(rnd.IntN(33))
		}
		for range rnd.IntN(3) {
			first := uint16(rnd.IntN(20) * 3449)
			p.Ports = append(p.Ports, config.PortRange{First: first, Last: first + uint16(rnd.IntN(5))})
		}
		out = append(out, p)
	}
	return out
}

func randomAddr(rnd *rand.Rand) netip.Addr {
	ends := []byte{0, 1, 127, 128, 254, 255}
	pick := func() byte { return ends[rnd.IntN(len(ends))] }
	if rnd.IntN(3) == 0 {
		return netip.AddrFrom16([16]byte{pick(), pick(), 2: pick(), 15: pick()})
	}
	return netip.AddrFrom4([4]byte{pick(), pick(), pick(), pick()})
}

// TestMatchEqualsSearch compares the table with the definition.
func TestMatchEqualsSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 7, 63, 64, 65, 300} {
		list := randomList(rnd, n)
		table := New(list, Users{})
		for range 5000 {
			client, server := randomAddr(rnd), netip.AddrPortFrom(randomAddr(rnd), uint16(rnd.IntN(20)*3449+rnd.IntN(6)))
			want := ""
			for _, p := range list {
				if matches(p, client, server) {
					want = p.Name
					break
				}
			}
			if got := table.Match(client, server).Name; got != want {
				t.Fatalf("%d policies: %v to %v: %q, want %q", n, client, server, got, want)
			}
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 32, config.MaxPolicies} {
		rnd := rand.New(rand.NewPCG(1, 2))
		table := New(randomList(rnd, n), Users{})
		client, server := randomAddr(rnd), netip.AddrPortFrom(randomAddr(rnd), 443)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Match(client, server)
			}
		})
	}
}
