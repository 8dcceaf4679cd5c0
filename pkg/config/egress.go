package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Egress says which servers the cloud dials, and how. The zero value dials
// through the hub and denies only what never names a server.
type Egress struct {
	Mode   EgressMode
	Deny   []netip.Prefix
	Allow  []netip.Prefix // wins over Deny
	Limits EgressLimits
}

// EgressLimits bound connects to servers, and connections.
type EgressLimits struct {
	EdgeRate       int // connects per second of one edge
	ServerRate     int // connects per second to one server's address
	EdgeOpen       int // attempts under way of one edge
	ServerOpen     int // attempts under way to one server's address
	EdgeFlows      int // connections of one edge; 0: no bound but that of its fair part
	RefusalSeconds int // how long a first refusal is remembered
	AnswerSeconds  int // how long a server may take to answer
}

// Defaults of EgressLimits.
const (
	DefaultEdgeRate       = 10000
	DefaultServerRate     = 5000
	DefaultEdgeOpen       = 8192
	DefaultServerOpen     = 2048
	DefaultRefusalSeconds = 1
	// DefaultAnswerSeconds has an answer to the fifth SYN, that of 15 s, come in time. Windows gives up after 21 s.
	DefaultAnswerSeconds = 20
)

const (
	maxConnects = 1 << 20
	maxFlows    = 1 << 24
)

func (l *EgressLimits) schema() setter {
	return object(fields{
		"edge_rate":       parsed(&l.EdgeRate, ranged(1, maxConnects, "")),
		"server_rate":     parsed(&l.ServerRate, ranged(1, maxConnects, "")),
		"edge_open":       parsed(&l.EdgeOpen, ranged(1, maxConnects, "")),
		"server_open":     parsed(&l.ServerOpen, ranged(1, maxConnects, "")),
		"edge_flows":      parsed(&l.EdgeFlows, ranged(1, maxFlows, "")),
		"refusal_seconds": parsed(&l.RefusalSeconds, ranged(0, 60, "")),
		"answer_seconds":  parsed(&l.AnswerSeconds, ranged(1, 127, "")),
	})
}

func (l *EgressLimits) fill(d *document) {
	for _, v := range []struct {
		v *int
		d int
	}{{&l.EdgeRate, DefaultEdgeRate}, {&l.ServerRate, DefaultServerRate}, {&l.EdgeOpen, DefaultEdgeOpen}, {&l.ServerOpen, DefaultServerOpen}, {&l.AnswerSeconds, DefaultAnswerSeconds}} {
		if *v.v == 0 {
			*v.v = v.d
		}
	}
	if !d.has("egress.limits.refusal_seconds") {
		l.RefusalSeconds = DefaultRefusalSeconds
	}
}

// networks are the words that stand for sets of networks in egress.deny and
// egress.allow. CGNAT space (RFC 6598) counts as private: it is somebody's
// inside.
var networks = map[string][]netip.Prefix{
	"loopback":   prefixes("127.0.0.0/8", "::1/128"),
	"link-local": prefixes("169.254.0.0/16", "fe80::/10"),
	"private":    prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
	"multicast":  prefixes("224.0.0.0/4", "ff00::/8"),
}

// defaultDeny is what a file without egress.deny denies.
var defaultDeny = [...]string{"loopback", "link-local", "private"}

// nowhere is always denied: the unspecified addresses reach the dialling host
// itself, and no server has the limited broadcast address.
var nowhere = prefixes("0.0.0.0/8", "::/128", "255.255.255.255/32")

// nat64 is the well-known prefix in front of an embedded IPv4 address
// (RFC 6052 section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Allows reports whether the cloud may dial addr. An IPv4 address inside an
// IPv6 one (mapped, or behind the NAT64 prefix) is judged as the IPv4 address,
// because that is where the connection ends.
func (e Egress) Allows(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	addr = embedded(addr.WithZone("").Unmap())
	if within(nowhere, addr) {
		return false
	}
	return within(e.Allow, addr) || !within(e.Deny, addr)
}

func embedded(addr netip.Addr) netip.Addr {
	if !nat64.Contains(addr) {
		return addr
	}
	raw := addr.As16()
	return netip.AddrFrom4([4]byte(raw[12:]))
}

func within(set []netip.Prefix, addr netip.Addr) bool {
	for _, p := range set {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// parseNetworks reads a word of the networks table, or one prefix.
func parseNetworks(s string) ([]netip.Prefix, error) {
	if set, ok := networks[s]; ok {
		return set, nil
	}
	if s != "" && strings.Trim(s, letters+"-") == "" {
		return nil, fmt.Errorf("%s is not one of loopback, link-local, private, multicast, nor a network", shown(s))
	}
	p, err := parsePrefix(s)
	if err != nil {
		return nil, err
	}
	return []netip.Prefix{p}, nil
}

// networkSets reads a list of words and prefixes into one list of prefixes.
func networkSets(dst *[]netip.Prefix) setter {
	return func(v value) error {
		var sets [][]netip.Prefix
		read := sequence(&sets, func(set *[]netip.Prefix) setter { return parsed(set, parseNetworks) })
		if err := read(v); err != nil {
			return err
		}
		for _, set := range sets {
			*dst = append(*dst, set...)
		}
		return nil
	}
}

func prefixes(list ...string) []netip.Prefix {
	set := make([]netip.Prefix, len(list))
	for i, s := range list {
		set[i] = netip.MustParsePrefix(s)
	}
	return set
}
