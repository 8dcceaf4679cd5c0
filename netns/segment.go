package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Uplinks may lead into one segment: two modems behind a switch, two adapters at one access
// point. Linux answers ARP for its addresses by whatever interface it is asked, so that a
// gateway which asks for the first uplink's address learns who answered first, and may send
// by the second what is for the first. Sockets that are bound to the first get none of it
// until the host asks for the gateway by itself, some 20 s later.

// crowded are the uplinks that have an address in a subnet, or a gateway, of another one.
func crowded(links []LinkRoute) (found []string, err error) {
	subnets := map[string][]*net.IPNet{}
	gateways := map[string][]net.IP{}
	for _, l := range links {
		if l.none() {
			continue
		}
		if l.Gateway.Is4() {
			gateways[l.Interface] = append(gateways[l.Interface], l.Gateway.AsSlice())
		}
		if _, known := subnets[l.Interface]; known {
			continue
		}
		if subnets[l.Interface], err = subnetsOf(l.Interface); err != nil {
			return nil, fmt.Errorf("link %s: addresses of %s: %w", l.Name, l.Interface, err)
		}
	}
	beside := func(a, b string) bool {
		for _, own := range subnets[a] {
			in := func(other *net.IPNet) bool { return own.Contains(other.IP) || other.Contains(own.IP) }
			if slices.ContainsFunc(subnets[b], in) {
				return true
			}
		}
		same := func(ip net.IP) bool { return slices.ContainsFunc(gateways[b], ip.Equal) }
		return len(subnets[b]) > 0 && slices.ContainsFunc(gateways[a], same)
	}
	for a, own := range subnets {
		for b := range subnets {
			if a != b && len(own) > 0 && beside(a, b) && !slices.Contains(found, a) {
				found = append(found, a)
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

// subnetsOf are those of an interface's IPv4 addresses, none where it is not there.
func subnetsOf(device string) (subnets []*net.IPNet, err error) {
	l, err := netlink.LinkByName(device)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, plainLinkError(err)
	}
	addrs, err := listAddrs(l, netlink.FAMILY_V4)
	for _, a := range addrs {
		if a.Scope == unix.RT_SCOPE_UNIVERSE {
			subnets = append(subnets, a.IPNet)
		}
	}
	return subnets, err
}

// answerStep has an uplink answer ARP for its own addresses only. One without an address
// answers for another's, which it borrows, and is left as it is.
func answerStep(device string) (step, bool, error) {
	return replaceStep(device, "arp_ignore", "0", "1")
}

// separate is answerStep for the crowded ones as they are at the start.
func (b *builder) separate() error {
	devices, err := crowded(b.plan.Links)
	if err != nil {
		return err
	}
	for _, device := range devices {
		if err := b.addIf(answerStep(device)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("uplink %s: %w", device, err)
		}
	}
	return nil
}

// separateAgain is separate for those that have become so, or were made anew.
func (h *Host) separateAgain() error {
	devices, err := crowded(h.plan.Links)
	errs := []error{err}
	for _, device := range devices {
		switch s, needed, err := answerStep(device); {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			errs = append(errs, err)
		case needed:
			errs = append(errs, h.takeAgain(s))
		}
	}
	return errors.Join(errs...)
}
