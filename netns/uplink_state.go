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
	Why   string       // why nothing can be sent over it, in words; "" when it can
	MTU   int          // its largest packet, bytes; 0 where nothing can be sent
	Addrs []netip.Addr // its global addresses that may be used, of the cloud's family where that is known
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
		return UplinkState{Why: fmt.Sprintf("interface %s: %v", l.Interface, plainLinkError(err))}
	}
	switch flags := device.Attrs().RawFlags; {
	case flags&unix.IFF_UP == 0:
		return UplinkState{Why: fmt.Sprintf("interface %s is down", l.Interface)}
	case flags&unix.IFF_RUNNING == 0:
		return UplinkState{Why: fmt.Sprintf("interface %s has no carrier", l.Interface)}
	}
	s := UplinkState{MTU: device.Attrs().MTU}
	addrs, err := listAddrs(device, l.family())
	if err != nil {
		return s // it went between two questions: another event follows
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ok && a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			s.Addrs = append(s.Addrs, ip.Unmap())
		}
	}
	return s
}

// Versions tells which IP versions a link may leave by: its gateway's, those of its
// interface's addresses, or any where it has none. It asks the thread's network
// namespace.
func Versions(l LinkRoute) (four, six bool) {
	if l.Gateway.IsValid() {
		return l.Gateway.Unmap().Is4(), !l.Gateway.Unmap().Is4()
	}
	for _, a := range uplinkState(l).Addrs {
		four, six = four || a.Is4(), six || a.Is6()
	}
	return four || !six, six || !four
}

// leadsTo tells whether a route is one that packets to the link's cloud may take.
func leadsTo(r netlink.Route, l LinkRoute) bool {
	if ones := prefixLen(r.Dst); ones == 0 && (l.Named || r.Dst == nil) {
		return true
	}
	return slices.ContainsFunc(l.clouds(), func(a netip.Addr) bool { return r.Dst.Contains(a.AsSlice()) })
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
	for i := range h.plan.Links {
		h.tell(UplinkEvent{Link: i}, tell)
	}
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
	for i, l := range h.plan.Links {
		if leadsTo(r, l) && leavesBy(r, h.indexOf(l.Interface)) {
			h.tell(UplinkEvent{Link: i, Rerouted: true}, tell)
		}
	}
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
	err := h.atHome(func() error {
		e.State = uplinkState(h.plan.Links[e.Link])
		return nil
	})
	if err == nil {
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
