package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// UplinkState is what the kernel says of one link's interface.
type UplinkState struct {
	Why    string       // why nothing can be sent over it, in words; "" when it can
	MTU    int          // its largest packet, bytes; 0 where nothing can be sent
	Addrs  []netip.Addr // its global addresses that may be used, of the versions by which it leaves
	Beside []netip.Addr // its IPv6 ones where it leaves by IPv4 because the cloud's address is one
	Four   bool         // it leaves by IPv4
	Six    bool         // it leaves by IPv6
}

// UplinkEvent tells that something about a link's interface may have changed.
type UplinkEvent struct {
	Link     int // index in Plan.Links
	State    UplinkState
	Rerouted bool // a route that leads to the cloud came or went
}

// uplinkState asks the kernel. An interface without an address is no fault by
// itself: it may borrow the one of another.
func uplinkState(l LinkRoute) UplinkState {
	device, err := namedLink(l.Interface)
	if err != nil {
		return UplinkState{Why: fmt.Sprintf("interface %s: %v", l.Interface, plainLinkError(err))}.leaving(l, nil)
	}
	switch flags := device.Attrs().RawFlags; {
	case flags&unix.IFF_UP == 0:
		return UplinkState{Why: fmt.Sprintf("interface %s is down", l.Interface)}.leaving(l, nil)
	case flags&unix.IFF_RUNNING == 0:
		return UplinkState{Why: fmt.Sprintf("interface %s has no carrier", l.Interface)}.leaving(l, nil)
	}
	s := UplinkState{MTU: device.Attrs().MTU}
	addrs, err := listAddrs(device, l.family())
	if err != nil {
		return s.leaving(l, nil) // it went between two questions: another event follows
	}
	var global []netip.Addr
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			global = append(global, ip.Unmap())
		}
	}
	return s.leaving(l, global)
}

// leaving is the state with what follows from the interface's addresses. A link leaves by
// the IP version of its gateway, by those of the addresses, or by any where there is none. To
// an IPv4 cloud it leaves by IPv6, which takes NAT64, only where it can by nothing else.
func (s UplinkState) leaving(l LinkRoute, addrs []netip.Addr) UplinkState {
	s.Addrs = addrs
	if by := l.family(); by != netlink.FAMILY_ALL {
		s.Four, s.Six = by == netlink.FAMILY_V4, by == netlink.FAMILY_V6
		return s
	}
	var four, six []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	s.Four, s.Six = len(four) > 0 || len(six) == 0, len(six) > 0 || len(four) == 0
	if !l.Cloud.IsValid() {
		return s
	}
	if s.Four = s.Four || routed(l); s.Four {
		s.Addrs, s.Beside, s.Six = four, six, false
	}
	return s
}

// routed tells whether a route leads to the link's cloud by its interface: without an address
// of its own that borrows one then. Where there is none the kernel takes whoever is asked for
// over an interface for a neighbour there, so the table is asked for what it holds.
func routed(l LinkRoute) bool {
	found, err := netlink.RouteGetWithOptions(l.Cloud.Addr().AsSlice(), &netlink.RouteGetOptions{Oif: l.Interface, FIBMatch: true})
	return err == nil && len(found) > 0
}

// Versions tells which IP versions a link may leave by (UplinkState). It asks the thread's
// network namespace.
func Versions(l LinkRoute) (four, six bool) {
	s := uplinkState(l)
	return s.Four, s.Six
}

// Bare tells whether a link's interface could send and has no address that the link may use,
// as one that DHCP has not answered. It asks the thread's network namespace.
func Bare(l LinkRoute) bool {
	s := uplinkState(l)
	return s.Why == "" && len(s.Addrs) == 0 && len(s.Beside) == 0
}

// leadsTo tells whether a route is one that packets to the link's cloud may take.
func leadsTo(r netlink.Route, l LinkRoute) bool {
	if ones := prefixLen(r.Dst); ones == 0 && (l.Named || r.Dst == nil) {
		return true
	}
	return slices.ContainsFunc(l.clouds(), func(a netip.Addr) bool { return r.Dst.Contains(a.AsSlice()) })
}

// translates tells whether a route is one that packets to the link's cloud may take by NAT64:
// a default route, or one by a router, as a network may have for its prefix.
func translates(r netlink.Route, l LinkRoute) bool {
	return l.Cloud.Addr().Is4() && r.Family == netlink.FAMILY_V6 && (r.Gw != nil || prefixLen(r.Dst) == 0)
}

// prefixLen is a destination's; a default route may have none.
func prefixLen(dst *net.IPNet) int {
	if dst == nil {
		return 0
	}
	ones, _ := dst.Mask.Size()
	return ones
}

// report tells the state of all links.
func (h *Host) report(tell func(UplinkEvent)) {
	for i := range h.links() {
		h.tell(UplinkEvent{Link: i}, tell)
	}
}

// links are those of the plan as it is now; who holds the host's mutex asks that.
func (h *Host) links() []LinkRoute {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.plan.Links
}

// link is the one at a place, which may have none by now. The caller holds mu.
func (h *Host) link(place int) (LinkRoute, bool) {
	if place >= len(h.plan.Links) || h.plan.Links[place].none() {
		return LinkRoute{}, false
	}
	return h.plan.Links[place], true
}

// leavesBy tells whether a route leads out by an interface, or does not say by which.
func leavesBy(r netlink.Route, index int) bool {
	if len(r.MultiPath) == 0 {
		return r.LinkIndex == index || r.LinkIndex == 0
	}
	return slices.ContainsFunc(r.MultiPath, func(hop *netlink.NexthopInfo) bool { return hop.LinkIndex == index })
}

// reportRoute tells the links whose way to the cloud may have changed. A route by another
// interface is not theirs: an uplink whose routes come and go would have the others begin
// their attempts to connect anew each time.
func (h *Host) reportRoute(r netlink.Route, tell func(UplinkEvent)) {
	if r.Protocol == routeTag {
		return
	}
	for i, l := range h.links() {
		if l.none() {
			continue
		}
		leads := leadsTo(r, l)
		if !leads && !translates(r, l) || !leavesBy(r, h.indexOf(l.Interface)) {
			continue
		}
		if leads || !h.stateOf(i).Four {
			h.tell(UplinkEvent{Link: i, Rerouted: true}, tell)
		}
	}
}

// stateOf is the state of a link's interface, none if the host is closed.
func (h *Host) stateOf(i int) (s UplinkState) {
	_ = h.atHome(func() error {
		if l, there := h.link(i); there {
			s = uplinkState(l)
		}
		return nil
	})
	return s
}

// indexOf is an interface's index, 0 if it is not there.
func (h *Host) indexOf(device string) (index int) {
	_ = h.atHome(func() error {
		if l, err := namedLink(device); err == nil {
			index = l.Attrs().Index
		}
		return nil
	})
	return index
}

func (h *Host) tell(e UplinkEvent, tell func(UplinkEvent)) {
	if tell == nil {
		return
	}
	var there bool
	err := h.atHome(func() error {
		var l LinkRoute
		if l, there = h.link(e.Link); there {
			e.State = uplinkState(l)
		}
		return nil
	})
	if err == nil && there {
		tell(e)
	}
}

var errHostClosed = errors.New("the virtual host is closed")

// atHome runs f in the host's namespace.
func (h *Host) atHome(f func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errHostClosed
	}
	return inside(h.home, f)
}
