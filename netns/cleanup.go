package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
)

// Cleanup removes what a crashed run left in the calling thread's network
// namespace: first what its journal says, then what is recognisably ours by
// name, address or tag, should the journal be lost.
// It reports in words what it removed. An owner that still runs is an error.
// Empty arguments take the defaults.
func Cleanup(namespace, runDir string) (done []string, err error) {
	p, err := Plan{Role: RoleCloud, Namespace: namespace, RunDir: runDir}.prepared()
	if err != nil {
		return nil, err
	}
	if err := privileged(); err != nil {
		return nil, err
	}
	home, err := nsh.Get()
	if err != nil {
		return nil, fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer home.Close()
	err = inside(home, func() error {
		// Also a journal that is not there: its lock keeps an agent from starting
		// meanwhile and losing, by name, what it has just made.
		j, err := openJournal(p.RunDir, p.Namespace, true)
		if err != nil {
			return err
		}
		u := newUndoer()
		var undoErr error
		done, undoErr = j.rewind(u)
		named, err := removeByName(u, namesOf(p.Role, p.Namespace))
		done = append(done, named...)
		return errors.Join(undoErr, err, j.finish())
	})
	return done, err
}

// removeByName removes everything of the namespace's name that can be told to
// be ours without a journal, in the order in which Close does it.
func removeByName(u *undoer, n names) (done []string, err error) {
	entries, err := formerValues(u, n)
	errs := []error{err}
	chains, err := chainsByName(u, n)
	errs = append(errs, err)
	entries = append(entries, chains...)
	mine, err := restIsMine(u, n)
	errs = append(errs, err)
	if mine {
		tagged, err := taggedRules()
		errs = append(errs, err)
		entries = append(entries, tagged...)
		entries = append(entries, entry{Do: undoRoutes, Family: 4}, entry{Do: undoRoutes, Family: 6})
		// Without the chain there was no transparent socket, and what looks like one
		// is a link's whose uplink has lost its address.
		if slices.ContainsFunc(entries, func(e entry) bool { return e.Do == undoChain && e.Chain == n.chain("TAKE") }) {
			entries = append(entries, entry{Do: undoTaken, Family: 4}, entry{Do: undoTaken, Family: 6})
		}
	}
	entries = append(entries, entry{Do: undoLink, Name: hubHost, MAC: n.hostMAC().String()})
	there, err := spaceByName(n)
	errs = append(errs, err)
	if there {
		entries = append(entries, entry{Do: undoSpace, Name: n.space})
	}
	for _, e := range entries {
		what, err := u.undo(e)
		errs = append(errs, err)
		if what != "" {
			done = append(done, what)
		}
	}
	return done, errors.Join(errs...)
}

// chainsByName finds our chains and the rules that jump to them. The chains
// that decide come after those that jump to them, and the tables that they were in
// at the end: who made these is not known without a journal, but built-in chains
// without a rule or a policy do nothing, whosever they are.
func chainsByName(u *undoer, n names) ([]entry, error) {
	places := []place{
		{"mangle", "OUTPUT", "OUT"}, {"mangle", "OUTPUT", "ERR"},
		{"mangle", "PREROUTING", "PRE"}, {"mangle", "PREROUTING", "TAKE"}, {"mangle", "PREROUTING", "MARK"},
		{"filter", "INPUT", "IN"}, {"filter", "OUTPUT", "REPLY"},
		{"nat", "POSTROUTING", "NAT"}, {"filter", "FORWARD", "FWD"}, {formerTable, "FORWARD", formerPart},
	}
	var found []entry
	for _, family := range []int{4, 6} {
		walls, err := u.firewalls(family)
		if err != nil {
			return found, err
		}
		for _, fw := range walls {
			e, err := fw.chainsByName(places, n)
			found = append(found, e...)
			if err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// place is where a chain of ours is, and the host's own chain that leads to it.
type place struct{ table, base, part string }

func (f *firewall) chainsByName(places []place, n names) (found []entry, err error) {
	there := map[string][]string{}
	var ours []string // tables
	for _, p := range places {
		chains, ok := there[p.table]
		if !ok {
			if chains, err = f.chains(p.table); err != nil {
				return found, err
			}
			there[p.table] = chains
		}
		if !slices.Contains(chains, n.chain(p.part)) {
			continue
		}
		e, err := f.chainByName(p.table, p.base, n.chain(p.part))
		if err != nil {
			return found, err
		}
		found = append(found, e...)
		ours = append(ours, p.table)
	}
	slices.Sort(ours)
	for _, table := range slices.Compact(ours) {
		found = append(found, entry{Do: undoTable, Family: f.family, Kind: f.kind(), Table: table})
	}
	return found, nil
}

// chainByName is what undoes a chain and the jumps to it.
func (f *firewall) chainByName(table, base, chain string) ([]entry, error) {
	jumps, err := f.jumpsTo(table, base, chain)
	if err != nil {
		return nil, err
	}
	var found []entry
	for _, rule := range jumps {
		found = append(found, entry{Do: undoJump, Family: f.family, Kind: f.kind(), Table: table, Chain: base, Rule: rule})
	}
	return append(found, entry{Do: undoChain, Family: f.family, Kind: f.kind(), Table: table, Chain: chain}), nil
}

// restIsMine tells whether what carries no name belongs to n's host: the tagged
// rules and routes.
func restIsMine(u *undoer, n names) (bool, error) {
	mine, err := hubIsMine(n)
	if err != nil || !mine {
		return false, err
	}
	other, err := otherOwner(u, n)
	return err == nil && other == "", err
}

// hubIsMine is false when hub0 belongs to another namespace's host, because
// then the tagged rules and routes are that one's.
func hubIsMine(n names) (bool, error) {
	l, err := netlink.LinkByName(hubHost)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", hubHost, err)
	}
	return bytes.Equal(l.Attrs().HardwareAddr, n.hostMAC()), nil
}

// taggedRules finds the ip rules that carry our tag.
func taggedRules() ([]entry, error) {
	var found []entry
	for _, family := range []int{4, 6} {
		rules, err := listRules(netlinkFamily(family))
		if absentIsFine(err) != nil {
			return found, fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rules {
			if r.Protocol != routeTag || r.Mask == nil || *r.Mask != MarkMask {
				continue
			}
			p := policy{Family: family, Preference: r.Priority, Table: r.Table, Mark: r.Mark, In: r.IifName, Out: r.OifName}
			if r.Src != nil {
				p.From = r.Src.IP.String()
			}
			found = append(found, entry{Do: undoRule, Policy: &p})
		}
	}
	return found, nil
}

// spaceByName tells whether a namespace of ours has the name. One of somebody
// else is an error.
func spaceByName(n names) (bool, error) {
	path := filepath.Join(namespaceDir, n.space)
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !spaceMounted(path) {
		if info.Mode().IsRegular() && info.Size() == 0 {
			return true, nil // the file was made, the mount was not, or it has gone with its mount namespace
		}
		return false, fmt.Errorf("%s is not a network namespace: move it away or choose another namespace", path)
	}
	space, err := nsh.GetFromPath(path)
	if err != nil {
		return false, fmt.Errorf("network namespace %s: %w", n.space, err)
	}
	defer space.Close()
	mine := false
	err = inside(space, func() error {
		lo, err := netlink.LinkByName("lo")
		mine = err == nil && lo.Attrs().Alias == spaceAlias
		return err
	})
	if err == nil && !mine {
		err = fmt.Errorf("network namespace %s exists and is not hawser's: remove it (ip netns del %s) or choose another namespace", n.space, n.space)
	}
	return mine, err
}
