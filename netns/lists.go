package netns

import (
	"errors"

	"github.com/vishvananda/netlink"
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

func listRoutes(family int, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) { return netlink.RouteListFiltered(family, filter, mask) })
}
