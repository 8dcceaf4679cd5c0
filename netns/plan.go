package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Roles of a virtual host.
const (
	RoleEdge  = "edge"
	RoleCloud = "cloud"
)

// Packet mark bits. Only the bits of MarkMask are ever read or written, so the
// marks of other software in the remaining 30 bits stay as they are.
const (
	// MarkMask covers the two bits that belong to this package.
	MarkMask = 0x60000000
	// BypassMark is the SO_MARK that the agent sets on its own sockets (links,
	// kernel egress), so that they are never steered.
	BypassMark = 0x40000000
	// steerMark is on packets that are routed to hub0 or to the sockets.
	steerMark = 0x20000000
	// loopMark is on packets of the host's own that are routed to lo and taken
	// there, or, if they are ICMP errors, to hub0. With steerMark the rule for them would also catch the reverse path
	// check (src_valid_mark) of clients' packets, which looks as if from lo.
	loopMark = BypassMark | steerMark
)

// Defaults of a Plan.
const (
	DefaultNamespace = "hawser"
	DefaultRunDir    = "/run/hawser"
)

// maxInterfaceName is IFNAMSIZ without the final zero.
const maxInterfaceName = 15

// PortRange is an inclusive range of TCP ports, 1 to 65535.
type PortRange struct{ First, Last uint16 }

// LinkRoute says by which uplink one link leaves. The zero value is none: a place in
// Plan.Links that no link has.
type LinkRoute struct {
	Name      string         // the link's name, for messages
	Interface string         // the uplink
	Gateway   netip.Addr     // invalid: the main table already has a route by Interface
	Cloud     netip.AddrPort // the far end; never steered
	Named     bool           // Cloud is not known: it has a name, which may change its addresses
	Known     []netip.Addr   // of a Named one, those that are known; never steered
}

// none tells whether it stands for no link.
func (l LinkRoute) none() bool { return l.Name == "" && l.Interface == "" }

// family is that of the addresses by which the link can leave, netlink.FAMILY_ALL
// (0) when it may be any: also to an IPv4 cloud, by NAT64.
func (l LinkRoute) family() int {
	switch {
	case l.Gateway.IsValid():
		return netlinkFamily(familyOf(l.Gateway))
	case l.Cloud.IsValid() && !l.Cloud.Addr().Is4():
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_ALL
}

// clouds are the known addresses of the far end.
func (l LinkRoute) clouds() []netip.Addr {
	if l.Cloud.IsValid() {
		return []netip.Addr{l.Cloud.Addr()}
	}
	return l.Known
}

// Plan says what Install puts in place. Empty Namespace and RunDir take the
// defaults.
type Plan struct {
	Role      string
	Namespace string         // name of the network namespace
	Clients   []string       // edge: interfaces where clients are
	Local     bool           // edge: steer connections that this host opens
	Exclude   []netip.Prefix // edge: destinations left alone
	Ports     []PortRange    // edge: wanted destination ports; empty means all
	Links     []LinkRoute    // edge; the place says which routing table is the link's
	// Direct lets the stack connect to servers itself, by the host's own routes
	// and with the host's address. Edge with a hub only.
	Direct bool
	// Intercept says how the edge takes steered connections: InterceptHub (also
	// "") or InterceptTPROXY. Sockets are where the latter takes them: listening
	// sockets with IP_TRANSPARENT, one per family, marked with BypassMark.
	Intercept  string
	Sockets    []netip.AddrPort
	Masquerade bool   // cloud: the stack's connections leave with the host's address
	RunDir     string // the journal lives here as Namespace.undo
}

// prepared returns the plan with defaults and canonical addresses, or the first
// thing that is wrong with it.
func (p Plan) prepared() (Plan, error) {
	if p.Namespace == "" {
		p.Namespace = DefaultNamespace
	}
	if p.RunDir == "" {
		p.RunDir = DefaultRunDir
	}
	if err := validNamespace(p.Namespace); err != nil {
		return p, err
	}
	switch p.Role {
	case RoleEdge:
		return p.preparedEdge()
	case RoleCloud:
		if len(p.Clients)+len(p.Links)+len(p.Exclude)+len(p.Ports)+len(p.Sockets) > 0 || p.Local || p.Direct || p.Intercept != "" {
			return p, errors.New("steering and links belong to the edge: remove them from the cloud's plan")
		}
		return p, nil
	}
	return p, fmt.Errorf("role %q: use %q or %q", p.Role, RoleEdge, RoleCloud)
}

func (p Plan) preparedEdge() (Plan, error) {
	if p.Masquerade {
		return p, errors.New("masquerade belongs to the cloud: remove it from the edge's plan")
	}
	seen := map[string]bool{}
	for _, name := range p.Clients {
		if err := validInterface(name); err != nil {
			return p, fmt.Errorf("steer.interfaces: %w", err)
		}
		if seen[name] {
			return p, fmt.Errorf("steer.interfaces: %s is listed twice", name)
		}
		seen[name] = true
	}
	p.Exclude = append([]netip.Prefix(nil), p.Exclude...)
	for i, prefix := range p.Exclude {
		if !prefix.IsValid() {
			return p, fmt.Errorf("steer.exclude: entry %d is not an address prefix", i+1)
		}
		p.Exclude[i] = prefix.Masked()
	}
	for _, r := range p.Ports {
		if r.First == 0 || r.Last < r.First {
			return p, fmt.Errorf("steer.ports: %d-%d is not a range of ports from 1 to 65535", r.First, r.Last)
		}
	}
	links, err := preparedLinks(p.Links, seen)
	if err != nil {
		return p, err
	}
	p.Links = links
	return p.preparedSockets()
}

func preparedLinks(in []LinkRoute, clients map[string]bool) ([]LinkRoute, error) {
	links := append([]LinkRoute(nil), in...)
	for i, l := range links {
		if l.none() {
			continue
		}
		if err := validInterface(l.Interface); err != nil {
			return nil, fmt.Errorf("link %s: %w", l.Name, err)
		}
		if clients[l.Interface] {
			return nil, fmt.Errorf("link %s: interface %s is also in steer.interfaces: an uplink cannot be a client interface", l.Name, l.Interface)
		}
		if !l.Cloud.IsValid() && !l.Named {
			return nil, fmt.Errorf("link %s: the cloud's address is missing", l.Name)
		}
		l.Cloud, l.Known = netip.AddrPortFrom(l.Cloud.Addr().Unmap(), l.Cloud.Port()), slices.Clone(l.Known)
		for j, a := range l.Known {
			l.Known[j] = a.Unmap()
		}
		l.Gateway = l.Gateway.Unmap()
		if l.Gateway.Is4() && l.Cloud.Addr().Is6() { // the other way round it is NAT64
			return nil, fmt.Errorf("link %s: gateway %s and cloud %s are of different address families", l.Name, l.Gateway, l.Cloud.Addr())
		}
		links[i] = l
	}
	return links, nil
}

// validNamespace keeps the name usable as a file name and in a rule comment.
func validNamespace(name string) error {
	ok := len(name) <= 64 && !strings.HasPrefix(name, ".")
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c))
	}
	if !ok || name == "" {
		return fmt.Errorf("namespace %q: use up to 64 letters, digits, '-', '_' and '.', not starting with '.'", name)
	}
	return nil
}

func validInterface(name string) error {
	if name == "" {
		return errors.New("the interface name is missing")
	}
	if len(name) > maxInterfaceName || strings.ContainsAny(name, "/ \t\n+!") || name == "." || name == ".." {
		return fmt.Errorf("%q is not an interface name", name)
	}
	if name == hubHost || name == "lo" {
		return fmt.Errorf("interface %s cannot be used: name the interface towards the clients or the uplink", name)
	}
	return nil
}
