package config

import (
	"net/netip"
	"testing"
)

func TestEgressAllows(t *testing.T) {
	parse := func(egress string) Egress {
		t.Helper()
		c, err := ParseCloud("cloud.yaml", []byte(minimalCloud+"egress: "+egress+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Egress
	}
	usual := parse("{}")
	inside := parse("{allow: [10.1.0.0/16, 192.0.2.7]}")
	open := parse("{deny: []}")
	strict := parse("{deny: [0.0.0.0/0, \"::/0\", multicast], allow: [198.51.100.0/24, private]}")
	for _, c := range []struct {
		name   string
		egress Egress
		addr   string
		want   bool
	}{
		{"public v4", usual, "192.0.2.1", true},
		{"public v6", usual, "2001:db8::1", true},
		{"loopback", usual, "127.0.0.1", false},
		{"all of 127/8", usual, "127.255.255.254", false},
		{"loopback v6", usual, "::1", false},
		{"link-local", usual, "169.254.169.254", false},
		{"link-local v6", usual, "fe80::1", false},
		{"link-local v6 with zone", usual, "fe80::1%eth0", false},
		{"10/8", usual, "10.255.255.255", false},
		{"172.16/12 first", usual, "172.16.0.0", false},
		{"172.16/12 last", usual, "172.31.255.255", false},
		{"after 172.16/12", usual, "172.32.0.0", true},
		{"192.168/16", usual, "192.168.1.1", false},
		{"CGNAT", usual, "100.64.0.1", false},
		{"CGNAT last", usual, "100.127.255.255", false},
		{"after CGNAT", usual, "100.128.0.0", true},
		{"ULA", usual, "fd00::1", false},
		{"ULA fc", usual, "fc00::1", false},
		{"mapped private", usual, "::ffff:10.0.0.1", false},
		{"mapped loopback", usual, "::ffff:127.0.0.1", false},
		{"mapped public", usual, "::ffff:192.0.2.1", true},
		{"NAT64 of private", usual, "64:ff9b::10.0.0.1", false},
		{"NAT64 of public", usual, "64:ff9b::192.0.2.1", true},
		{"multicast is a word of its own", usual, "224.0.0.1", true},

		{"allowed inside a denied network", inside, "10.1.2.3", true},
		{"allowed, mapped", inside, "::ffff:10.1.2.3", true},
		{"beside the allowed one", inside, "10.2.0.1", false},

		{"nothing denied", open, "10.0.0.1", true},
		{"loopback not denied", open, "127.0.0.1", true},
		{"unspecified v4", open, "0.0.0.0", false},
		{"this network", open, "0.1.2.3", false},
		{"unspecified v6", open, "::", false},
		{"mapped unspecified", open, "::ffff:0.0.0.0", false},
		{"broadcast", open, "255.255.255.255", false},

		{"all denied", strict, "192.0.2.1", false},
		{"all denied v6", strict, "2001:db8::1", false},
		{"allow list", strict, "198.51.100.9", true},
		{"allow word", strict, "192.168.0.1", true},
		{"multicast", strict, "239.1.1.1", false},
		{"multicast v6", strict, "ff02::1", false},
	} {
		if got := c.egress.Allows(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: Allows(%s) = %v, want %v", c.name, c.addr, got, c.want)
		}
	}
	if open.Allows(netip.Addr{}) || (Egress{}).Allows(netip.Addr{}) {
		t.Error("the invalid address is allowed")
	}
}
