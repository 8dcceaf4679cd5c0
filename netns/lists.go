package netns

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listTries is how often a list is asked for that others change meanwhile: each try takes
// a fraction of a millisecond, a program that starts containers or VPNs a few seconds.
const listTries = 100

// whole asks the kernel for a list until nothing of its kind has come or gone meanwhile.
// Where that never ends it is what was seen last, and no error: what has just changed is
// looked at again when the event of its change comes.
func whole[T any](list func() ([]T, error)) (found []T, err error) {
	for range listTries {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return found, err
		}
	}
	return found, nil
}

func listLinks() ([]netlink.Link, error) { return whole(netlink.LinkList) }

// listAddrs takes a family as netlink has it, as the following do.
func listAddrs(device netlink.Link, family int) ([]netlink.Addr, error) {
	return whole(func() ([]netlink.Addr, error) { return netlink.AddrList(device, family) })
}

func listNeighbours(index, family int) ([]netlink.Neigh, error) {
	return whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, family) })
}

func listRules(family int) ([]netlink.Rule, error) {
	return whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
}

// listRoutes lists the routes of filter's table, and of its protocol if it has one. The kernel
// leaves out the others: a router that speaks BGP has a million, which take seconds to read.
func listRoutes(family int, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if err := h.SetStrictCheck(true); err != nil {
		return nil, err
	}
	return whole(func() ([]netlink.Route, error) {
		found, err := h.RouteListFiltered(family, filter, mask)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil // there is no such table yet
		}
		return found, err
	})
}
