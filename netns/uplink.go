package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tablesOf lists the routing tables that a plan fills.
func tablesOf(p Plan) []int {
	if p.Role != RoleEdge {
		return nil
	}
	tables := []int{tableSteer}
	for i, l := range p.Links {
		if l.Gateway.IsValid() {
			tables = append(tables, uplinkTable(i))
		}
	}
	return tables
}

func uplinkTable(link int) int { return tableSteer + 1 + link }

// foreignRoute returns a route of the table that is not ours, "" when there is
// none.
func foreignRoute(table int) (string, error) {
	for _, family := range []int{4, 6} {
		routes, err := listRoutes(netlinkFamily(family), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if absentIsFine(err) != nil {
			return "", fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Protocol != routeTag {
				return r.String(), nil
			}
		}
	}
	return "", nil
}

// uplinks gives each link with a gateway a table of its own, used only by
// sockets with BypassMark that are bound to the uplink or to its address.
func (b *builder) uplinks() error {
	if err := b.separate(); err != nil {
		return err
	}
	loosened := map[string]bool{}
	for i, l := range b.plan.Links {
		if l.none() {
			continue
		}
		if !loosened[l.Interface] {
			loosened[l.Interface] = true
			b.host.plugged(l.Interface)
			if err := b.addIf(looseStep(l.Interface)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("link %s: %w", l.Name, err)
			}
		}
		if err := b.uplink(l, uplinkTable(i)); err != nil {
			return err
		}
	}
	return nil
}

// uplink is what uplinks does for one link's table.
func (b *builder) uplink(l LinkRoute, table int) error {
	if !l.Gateway.IsValid() {
		return nil
	}
	family := familyOf(l.Gateway)
	b.add(step{
		what: fmt.Sprintf("link %s: route by %s to %s in table %d", l.Name, l.Interface, l.Gateway, table),
		undo: []entry{{Do: undoRoutes, Family: family, Number: table}},
		do:   func() error { return b.host.routeUplink(l, table) },
	}, ruleStep(policy{Family: family, Preference: prefUplink + b.host.moved[family], Table: table, Mark: BypassMark, Out: l.Interface}))
	sources, err := b.host.sources(l, table)
	if err != nil {
		return err
	}
	for _, p := range sources {
		b.add(ruleStep(p))
	}
	return nil
}

// looseStep relaxes a strict reverse path check of an uplink: what the cloud
// sends to the second uplink comes from an address whose route is the first.
func looseStep(device string) (step, bool, error) {
	return replaceStep(device, "rp_filter", "1", "2") // 0 off, 1 strict, 2 loose
}

// replaceStep sets an uplink's setting where that in force has one value. In force is the
// greater one of its own and that of all interfaces.
func replaceStep(device, setting, from, to string) (step, bool, error) {
	path := confPath(4, device, setting)
	all, err := readSysctl(confPath(4, "all", setting))
	if err != nil {
		return step{}, false, err
	}
	own, err := readSysctl(path)
	if err != nil || max(all, own) != from {
		return step{}, false, err
	}
	return sysctlStep(path, to)
}

// sourcePolicies lets sockets that are bound to an address of the uplink, and
// not to its interface, leave by it as well.
func sourcePolicies(l LinkRoute, table int) ([]policy, error) {
	device, err := netlink.LinkByName(l.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil // Watch adds them when it appears
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: interface %s: %w", l.Name, l.Interface, plainLinkError(err))
	}
	family := familyOf(l.Gateway)
	addrs, err := listAddrs(device, netlinkFamily(family))
	if err != nil {
		return nil, fmt.Errorf("link %s: addresses of %s: %w", l.Name, l.Interface, err)
	}
	var found []policy
	for _, a := range addrs {
		if a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		found = append(found, policy{Family: family, Preference: prefSource, Table: table, Mark: BypassMark, From: a.IP.String()})
	}
	return found, nil
}

// sources are an uplink's source policies where our rules are now.
func (h *Host) sources(l LinkRoute, table int) ([]policy, error) {
	policies, err := sourcePolicies(l, table)
	for i := range policies {
		policies[i].Preference += h.moved[policies[i].Family]
	}
	return policies, err
}

// routeUplink sets the default route of a link's table. An uplink that is down,
// or not there, gets it from Watch when it is up.
func (h *Host) routeUplink(l LinkRoute, table int) error {
	device, err := netlink.LinkByName(l.Interface)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return plainLinkError(err)
	}
	if device.Attrs().RawFlags&unix.IFF_UP == 0 {
		if h.news("down "+l.Name, "it is") {
			h.log.Warn("uplink is down: its route follows when it is up", "link", l.Name, "interface", l.Interface)
		}
		return nil
	}
	h.news("down "+l.Name, "")
	route := defaultRoute(device, l.Gateway, table)
	if !onSubnet(device, l.Gateway) {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	return netlink.RouteReplace(route)
}

// onSubnet tells whether the gateway is in a subnet of the interface. Otherwise
// the kernel takes it only when told that it is there all the same.
func onSubnet(device netlink.Link, gateway netip.Addr) bool {
	addrs, err := listAddrs(device, netlinkFamily(familyOf(gateway)))
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if a.Contains(gateway.AsSlice()) || a.Peer != nil && a.Peer.Contains(gateway.AsSlice()) {
			return true
		}
	}
	return gateway.Is6() && gateway.IsLinkLocalUnicast()
}

// rewatch is the pause before broken netlink readers are started again.
const rewatch = time.Second

// Watch keeps the routes of the links while their interfaces come and go, go
// down, come up and change address; the kernel drops the routes of an interface
// that goes down. It also puts back what others remove of ours (keep). It calls tell, if not nil, with the state of every link at
// first and then of those that an event is about, changed or not. It returns nil when ctx ends, after its netlink readers have ended; an
// error only when they cannot be started. End it before Close.
func (h *Host) Watch(ctx context.Context, tell func(UplinkEvent)) error {
	ctx, cancel := context.WithCancel(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() { h.keep(ctx) })
	defer keeping.Wait()
	defer cancel()
	for {
		again, err := h.watchOnce(ctx, tell)
		if err != nil || !again {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rewatch):
		}
	}
}

// watchOnce returns true when a reader broke; a burst of events that overflows
// its socket does that.
func (h *Host) watchOnce(ctx context.Context, tell func(UplinkEvent)) (again bool, err error) {
	done := make(chan struct{})
	events, err := h.subscribe(done)
	defer func() {
		close(done)
		events.drain()
	}()
	if err != nil {
		return false, fmt.Errorf("watch the uplinks: %w", err)
	}
	h.refresh("") // what changed before the readers were there
	h.report(tell)
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-h.changed:
			h.refresh("")
			h.report(tell)
		case u, ok := <-events.links:
			if !ok {
				return true, nil
			}
			h.refresh(u.Attrs().Name)
			h.returns.link(u, time.Now())
			h.report(tell) // also for a name that is no more
		case u, ok := <-events.addrs:
			if !ok {
				return true, nil
			}
			if u.NewAddr {
				h.refresh("")
			} else {
				h.retire()
			}
			h.returns.addr(u, time.Now())
			h.report(tell)
		case u, ok := <-events.routes:
			if !ok {
				return true, nil
			}
			h.returns.route(u, time.Now())
			h.reportRoute(u.Route, tell)
		}
	}
}

// events are the channels of the netlink readers.
type events struct {
	links  chan netlink.LinkUpdate
	addrs  chan netlink.AddrUpdate
	routes chan netlink.RouteUpdate
}

// drain lets the readers end, each of which closes its channel.
func (e events) drain() {
	for range e.links {
	}
	for range e.addrs {
	}
	for range e.routes {
	}
}

// subscribe starts the readers; each closes its channel when it ends. Channels
// without a reader are closed at once.
func (h *Host) subscribe(done <-chan struct{}) (events, error) {
	e := events{make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)}
	h.mu.Lock()
	defer h.mu.Unlock()
	report := func(err error) { h.log.Debug("netlink reader", "error", err) }
	err := errHostClosed
	if !h.closed {
		err = netlink.LinkSubscribeWithOptions(e.links, done, netlink.LinkSubscribeOptions{Namespace: &h.home, ErrorCallback: report})
	}
	if err != nil {
		close(e.links)
		close(e.addrs)
		close(e.routes)
		return e, err
	}
	if err = netlink.AddrSubscribeWithOptions(e.addrs, done, netlink.AddrSubscribeOptions{Namespace: &h.home, ErrorCallback: report}); err != nil {
		close(e.addrs)
		close(e.routes)
		return e, err
	}
	if err = netlink.RouteSubscribeWithOptions(e.routes, done, netlink.RouteSubscribeOptions{Namespace: &h.home, ErrorCallback: report}); err != nil {
		close(e.routes)
	}
	return e, err
}

// refresh makes the routes of the links on one interface true again; "" stands
// for all interfaces.
func (h *Host) refresh(device string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if err := inside(h.home, func() error { return errors.Join(h.replugged(device), h.separateAgain()) }); h.newsOf("settings "+device, err) {
		h.log.Warn("interface lacks settings now", "interface", device, "error", err)
	}
	for i, l := range h.plan.Links {
		if l.none() || device != "" && device != l.Interface {
			continue
		}
		if err := inside(h.home, func() error { return h.renew(l, uplinkTable(i)) }); h.newsOf("route "+l.Name, err) {
			h.log.Warn("uplink has no route now", "link", l.Name, "interface", l.Interface, "error", err)
		}
	}
}

// news reports whether what is wrong with something, "" for nothing, is not what was said of it
// last: an address of any interface that is renewed has all uplinks looked at again.
func (h *Host) news(of, wrong string) bool {
	if wrong == "" {
		delete(h.said, of)
		return false
	}
	if h.said == nil {
		h.said = map[string]string{}
	}
	was := h.said[of]
	h.said[of] = wrong
	return wrong != was
}

func (h *Host) newsOf(of string, err error) bool {
	if err == nil {
		return h.news(of, "")
	}
	return h.news(of, err.Error())
}

// renew repeats what uplinks did. Rules that are there already stay; those for
// addresses that the uplink has no more go.
func (h *Host) renew(l LinkRoute, table int) error {
	if !l.Gateway.IsValid() {
		return nil
	}
	policies, err := h.sources(l, table)
	if err == nil {
		err = h.dropPolicies(table, policies)
	}
	if err := errors.Join(err, h.routeUplink(l, table)); err != nil {
		return err
	}
	for _, p := range policies {
		s := ruleStep(p)
		if h.journal.holds(s.undo[0]) {
			continue
		}
		if err := h.take(s); err != nil {
			return err
		}
	}
	return nil
}

// retire removes the rules for addresses that uplinks have no more. Nothing is
// sent from such an address: the agent ends the connections that used it.
func (h *Host) retire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	for i, l := range h.plan.Links {
		if !l.Gateway.IsValid() {
			continue
		}
		err := inside(h.home, func() error {
			policies, err := h.sources(l, uplinkTable(i))
			if err != nil {
				return err
			}
			return h.dropPolicies(uplinkTable(i), policies)
		})
		if h.newsOf("rule "+l.Name, err) {
			h.log.Warn("rule for a former address stays", "link", l.Name, "interface", l.Interface, "error", err)
		}
	}
}

// dropPolicies removes the source rules of a link's table that are not among
// those to keep: on a train an uplink has dozens of addresses a day.
func (h *Host) dropPolicies(table int, keep []policy) error {
	var errs []error
	gone := func(e entry) bool {
		p := e.Policy
		if p == nil || p.Table != table || p.From == "" || slices.Contains(keep, *p) {
			return false
		}
		err := absentIsFine(netlink.RuleDel(p.rule()))
		errs = append(errs, err)
		return err == nil
	}
	return errors.Join(h.journal.forget(gone), errors.Join(errs...))
}
