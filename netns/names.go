package netns

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
)

const (
	hubHost  = "hub0" // host end of the veth pair
	hubInner = "hub1" // end inside the namespace; has no address
	hubMTU   = 1500

	// namespaceDir is where ip-netns(8) keeps named namespaces.
	namespaceDir = "/run/netns"
	// spaceAlias on the namespace's lo tells that the namespace is ours, even
	// before it has a hub.
	spaceAlias = "hawser"

	chainPrefix = "HAWSER-" // of all chains of ours

	// routeTag is the routing protocol number (rtm_protocol) on all our rules
	// and routes. It tells them from those of others.
	routeTag = 104
	// tableSteer holds the way to hub0 or to the sockets, tableSteer+1+i the uplink of link i.
	tableSteer = 26743
	// Preferences of our rules: before every rule that a host usually has,
	// after the local table. Host.ahead lowers them.
	prefSteer  = 470
	prefUplink = 471
	prefSource = 472
)

// names are all names and addresses that follow from a role and a namespace's
// name. Deriving them makes leftovers recognisable without a journal.
type names struct {
	space string
	role  string
	tag   [3]byte
}

func namesOf(role, space string) names {
	sum := sha256.Sum256([]byte(space))
	return names{space: space, role: role, tag: [3]byte(sum[:3])}
}

// chain names an iptables chain of ours; at most 28 bytes.
func (n names) chain(part string) string {
	return chainPrefix + hex.EncodeToString(n.tag[:]) + "-" + part
}

// comment marks our rules in the host's own chains.
func (n names) comment() string { return "hawser:" + n.space }

// hostMAC and hubMAC are locally administered and the same on every start.
func (n names) hostMAC() net.HardwareAddr { return n.mac(0) }
func (n names) hubMAC() net.HardwareAddr  { return n.mac(1) }

func (n names) mac(end byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x68, n.tag[0], n.tag[1], n.tag[2], end}
}

// hubPrefixes are hub0's address and the stack's address with the length of
// the subnet that they share. The roles differ, so that captures of both ends
// on one screen are not confused.
type hubPrefixes struct{ host, hub netip.Prefix }

func (n names) v4() hubPrefixes {
	if n.role == RoleCloud {
		return hubPrefixes{netip.MustParsePrefix("198.19.255.5/30"), netip.MustParsePrefix("198.19.255.6/30")}
	}
	return hubPrefixes{netip.MustParsePrefix("198.19.255.1/30"), netip.MustParsePrefix("198.19.255.2/30")}
}

func (n names) v6() hubPrefixes {
	if n.role == RoleCloud {
		return hubPrefixes{netip.MustParsePrefix("fd68:6177:7365::5/126"), netip.MustParsePrefix("fd68:6177:7365::6/126")}
	}
	return hubPrefixes{netip.MustParsePrefix("fd68:6177:7365::1/126"), netip.MustParsePrefix("fd68:6177:7365::2/126")}
}

// hub is the stack's address of a family, 4 or 6.
func (n names) hub(family int) netip.Addr {
	if family == 6 {
		return n.v6().hub.Addr()
	}
	return n.v4().hub.Addr()
}
