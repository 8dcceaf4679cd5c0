package netns

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mute tells whether the kernel looks for a neighbour on a link's interface, its
// gateway or a cloud that it takes for one, and nobody answers for that address. It is
// false where nobody looks, and on interfaces without neighbours, as those of PPP. It asks
// the thread's network namespace.
func Mute(l LinkRoute, neighbour netip.Addr) bool {
	state, _ := neighbourState(l, neighbour)
	return state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0
}

// Leads tells whether the host's own routes lead to a link's cloud by its interface and
// gateway, as the one that Install makes will. It asks the thread's network namespace.
func Leads(l LinkRoute) bool {
	if !l.Cloud.IsValid() || !l.Gateway.IsValid() {
		return false
	}
	routes, err := netlink.RouteGetWithOptions(l.Cloud.Addr().Unmap().AsSlice(), &netlink.RouteGetOptions{Oif: l.Interface})
	if err != nil || len(routes) != 1 {
		return false
	}
	by, ok := netip.AddrFromSlice(routes[0].Gw)
	return ok && by.Unmap() == l.Gateway.Unmap()
}

// AskGateway has the kernel look for a link's gateway and tells whether nobody answered
// for it before ctx ended. One that the host has a route to by another router is not
// looked for.
func AskGateway(ctx context.Context, l LinkRoute) (mute bool) {
	zone := l.Gateway
	if zone.Is6() && zone.IsLinkLocalUnicast() {
		zone = zone.WithZone(l.Interface)
	}
	bound := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), l.Interface) }); e != nil {
			return e
		}
		return err
	}}
	const discard = 9
	conn, err := bound.DialContext(ctx, "udp", netip.AddrPortFrom(zone, discard).String())
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0}); err != nil {
		return false
	}
	for {
		switch state, known := neighbourState(l, l.Gateway); {
		case known && state&unix.NUD_INCOMPLETE == 0:
			return state&unix.NUD_FAILED != 0
		case ctx.Err() != nil:
			return known
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// neighbourState is the kernel's state (NUD_...) of a neighbour on a link's interface; known
// is false where it has none.
func neighbourState(l LinkRoute, neighbour netip.Addr) (state int, known bool) {
	device, err := netlink.LinkByName(l.Interface)
	if err != nil || device.Attrs().RawFlags&unix.IFF_NOARP != 0 {
		return 0, false
	}
	neighbour = neighbour.Unmap()
	list, err := listNeighbours(device.Attrs().Index, netlinkFamily(familyOf(neighbour)))
	if err != nil {
		return 0, false
	}
	for _, n := range list {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == neighbour.WithZone("") {
			return n.State, true
		}
	}
	return 0, false
}
