package lab

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Family selects the IP version of an address.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Address returns the address at which others reach a node: a client's or the
// origin's own, the cloud's public one, the edge's on the LAN.
func (l *Lab) Address(node string, f Family) netip.Addr {
	for k := 1; k <= l.spec.Edges; k++ {
		switch canonical(node) {
		case edgeName(k):
			return lanAddr(f, k, 1)
		case guestName(k):
			return lanAddr(f, k, 11)
		}
	}
	switch canonical(node) {
	case cloudNode:
		return cloudAddr(f)
	case originNode:
		return originAddr(f, 2)
	}
	i, err := strconv.Atoi(strings.TrimPrefix(canonical(node), clientNode))
	if err != nil {
		return netip.Addr{}
	}
	return lanAddr(f, 1, 10+i)
}

// EdgeAddress returns the edge's own address on an uplink, the invalid Addr if there is none.
func (l *Lab) EdgeAddress(uplink string, f Family) netip.Addr { return l.onUplink(uplink, f, 1) }

// Gateway returns the cloud's address on an uplink: the edge's gateway there.
func (l *Lab) Gateway(uplink string, f Family) netip.Addr { return l.onUplink(uplink, f, 2) }

// EdgeOf returns the node of the edge that has an uplink, "" if there is none.
func (l *Lab) EdgeOf(uplink string) string {
	if i := l.index(uplink); i > 0 {
		return edgeName(l.spec.Uplinks[i-1].edge())
	}
	return ""
}

// Interface returns the name of the edge's interface of an uplink, "" if there is none.
func (l *Lab) Interface(uplink string) string {
	if i := l.index(uplink); i > 0 {
		return upName(i)
	}
	return ""
}

// LAN is the edge's interface towards the clients.
const LAN = "lan0"

func (l *Lab) onUplink(uplink string, f Family, host int) netip.Addr {
	if i := l.index(uplink); i > 0 {
		return uplinkAddr(f, i, host)
	}
	return netip.Addr{}
}

// index returns the number of an uplink, from 1; 0 if there is none of that name.
func (l *Lab) index(uplink string) int {
	for i, u := range l.spec.Uplinks {
		if u.Name == uplink {
			return i + 1
		}
	}
	return 0
}

// IPv6 addresses show the same decimal digits as their IPv4 siblings: client 11 is
// 10.10.0.11 and fd10::11.

func lanAddr(f Family, edge, host int) netip.Addr {
	return pick(f, fmt.Sprintf("10.%d.0.%d", 9+edge, host), fmt.Sprintf("fd%d::%d", 9+edge, host))
}

func uplinkAddr(f Family, i, host int) netip.Addr {
	return pick(f, fmt.Sprintf("10.20.%d.%d", i, host), fmt.Sprintf("fd20:%d::%d", i, host))
}

func originAddr(f Family, host int) netip.Addr {
	return pick(f, fmt.Sprintf("198.18.200.%d", host), fmt.Sprintf("fd40::%d", host))
}

func cloudAddr(f Family) netip.Addr { return pick(f, "198.18.100.1", "fd30::1") }

func pick(f Family, v4, v6 string) netip.Addr {
	if f == IPv6 {
		return netip.MustParseAddr(v6)
	}
	return netip.MustParseAddr(v4)
}

// subnet returns the network of an address: /24 or /64.
func subnet(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 24)
	}
	return netip.PrefixFrom(a, 64)
}

func upName(i int) string { return "up" + strconv.Itoa(i) }
func dnName(i int) string { return "dn" + strconv.Itoa(i) }
