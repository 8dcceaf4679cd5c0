package netns

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/vishvananda/netlink"
)

// plugged notes which interface now has the name, and whether that is another
// one than before.
func (h *Host) plugged(device string) bool {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return false // renamed sees to what it was
	}
	index := l.Attrs().Index
	if h.devices == nil {
		h.devices = map[string]int{}
	}
	was := h.devices[device]
	h.devices[device] = index
	return was != index
}

// replugged repeats what was set on an interface, "" for all of them, that has been made
// anew: a modem that was plugged in again, a bridge or an access point that was
// configured anew. Its settings are those of a new one, and by a client interface that
// does not forward no steered connection gets through.
func (h *Host) replugged(device string) error {
	names, err := h.settled()
	errs := []error{err, h.renamed()}
	for _, name := range names {
		if device != "" && device != name || !h.plugged(name) {
			continue
		}
		if slices.ContainsFunc(h.plan.Links, func(l LinkRoute) bool { return l.Interface == name }) {
			errs = append(errs, h.loosenAgain(name))
		}
		if h.plan.forwards(name) {
			errs = append(errs, h.forwardAgain(name))
		}
	}
	return errors.Join(errs...)
}

// renamed takes back what was set on interfaces that have another name by now, as udev gives
// one to a modem a moment after it was plugged in: no guard names them, and what undoes their
// settings would not find them. By the new name they may get these anew. It also forgets
// interfaces that are gone.
func (h *Host) renamed() error {
	links, err := listLinks()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var errs []error
	for was, index := range h.devices {
		now := names[index]
		if now == was {
			continue
		}
		delete(h.devices, was)
		delete(h.excepted, forwardPath(4, was))
		delete(h.excepted, forwardPath(6, was))
		for _, e := range h.journal.entries {
			if now != "" && e.Do == undoSysctl && path.Base(path.Dir(e.Path)) == was {
				e.Path = path.Join(path.Dir(path.Dir(e.Path)), now, path.Base(e.Path))
				_, err := restoreSysctl(e)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// settled are the interfaces that need settings for us.
func (h *Host) settled() (names []string, err error) {
	for _, l := range h.plan.Links {
		if !l.none() {
			names = append(names, l.Interface)
		}
	}
	links, err := listLinks()
	for _, l := range links {
		if name := l.Attrs().Name; h.plan.forwards(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// loosenAgain repeats looseStep.
func (h *Host) loosenAgain(device string) error {
	s, needed, err := looseStep(device)
	if errors.Is(err, os.ErrNotExist) || err == nil && !needed {
		return nil
	}
	if err != nil {
		return err
	}
	return h.takeAgain(s)
}

// forwardAgain repeats what forwarding did for one interface, or does it for one that
// was not there at the start. The guard comes first.
func (h *Host) forwardAgain(device string) error {
	for _, fw := range h.walls {
		b := &builder{host: h, plan: h.plan, names: h.names, guarded: map[int][]string{}}
		steps, err := b.switches(fw.family, []string{device})
		if err != nil {
			return err
		}
		known := slices.Contains(h.guarded[fw.family], device)
		if len(b.guarded[fw.family]) == 0 || !known && len(h.guarded[fw.family]) >= guardedMost {
			continue
		}
		if !known {
			h.guarded[fw.family] = append(h.guarded[fw.family], device)
		}
		if err := h.guard(fw, device); err != nil {
			return err
		}
		for _, s := range steps {
			if err := h.takeAgain(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// guardedMost bounds, per family, how many interfaces are guarded, since some come later:
// each has a rule and entries in the journal until the end.
const guardedMost = 256

// guard keeps such an interface from forwarding anything else.
func (h *Host) guard(fw *firewall, device string) error {
	if filtersBridged(fw.family) {
		if err := fw.AppendUnique("filter", h.names.chain("FWD"), words(passBridged)...); err != nil {
			return oneLine(err)
		}
	}
	return oneLine(fw.AppendUnique("filter", h.names.chain("FWD"), words("-i "+device+" -j DROP")...))
}

// unguard takes the guards away where somebody else has the host forward by now, as a VPN
// or what runs containers does: what they forward is theirs. Guards of exceptions stay. The
// caller holds mu.
func (h *Host) unguard() error {
	for _, fw := range h.walls {
		guarded := h.guarded[fw.family]
		stay := slices.DeleteFunc(slices.Clone(guarded), func(device string) bool { return !h.isException(fw.family, device) })
		if len(stay) == len(guarded) || slices.Contains(guarded, everything) {
			continue
		}
		if forwards, err := forwardsAll(fw.family); err != nil || !forwards {
			continue
		}
		if err := h.forwardBy(fw, map[int][]string{fw.family: stay}); err != nil {
			return err
		}
		h.guarded[fw.family] = stay
		h.log.Info("the host has begun to forward by itself: nothing is kept from that any more", "family", fmt.Sprintf("IPv%d", fw.family))
	}
	return nil
}

// isException tells whether an interface was guarded on a host that forwards.
func (h *Host) isException(family int, device string) bool {
	return h.excepted[forwardPath(family, device)]
}

// forwardPath is the setting by which a single interface forwards.
func forwardPath(family int, device string) string {
	if family == 6 {
		return confPath(6, device, "force_forwarding")
	}
	return confPath(4, device, "forwarding")
}

// forwardBy makes the chain of forwardRules anew.
func (h *Host) forwardBy(fw *firewall, guarded map[int][]string) error {
	b := &builder{host: h, plan: h.plan, names: h.names, guarded: guarded}
	return h.refill(chainStep(fw, "filter", h.names.chain("FWD"), b.forwardRules(fw.family)))
}

// spareBridged has the guards pass bridged frames by where iptables has come to see them, as
// when something has the kernel load br_netfilter. The caller holds mu.
func (h *Host) spareBridged() error {
	for _, fw := range h.walls {
		was := h.bridged[fw.family]
		h.bridged[fw.family] = filtersBridged(fw.family)
		if was || !h.bridged[fw.family] || len(h.guarded[fw.family]) == 0 {
			continue
		}
		if err := h.forwardBy(fw, h.guarded); err != nil {
			h.bridged[fw.family] = false // again at the next look
			return err
		}
	}
	return nil
}

// forwardsAll tells whether the host forwards by all interfaces, which it does not because
// of us where single ones can be told to. An error says that this cannot be told.
func forwardsAll(family int) (bool, error) {
	paths := []string{"net/ipv4/ip_forward"}
	if family == 6 {
		paths = []string{confPath(6, "all", "forwarding"), confPath(6, "all", "force_forwarding")}
	}
	for _, path := range paths {
		on, err := readSysctl(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		if on == "1" {
			return true, nil
		}
	}
	return false, nil
}
