package netns

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kinds of entries.
const (
	undoSpace  = "namespace" // Name
	undoLink   = "interface" // Name, MAC
	undoSysctl = "sysctl"    // Path, Was, Set, Force, Guard, GuardWas
	undoRule   = "rule"      // Policy
	undoRoutes = "routes"    // Family, Number
	undoChain  = "chain"     // Family, Kind, Table, Chain
	undoJump   = "jump"      // Family, Kind, Table, Chain, Rule
	undoTaken  = "sockets"   // Family
	undoTable  = "table"     // Family, Kind, Table: remove built-in chains that are empty
)

// entry says how one step is undone. Which fields count depends on Do.
type entry struct {
	Do   string `json:"do"`
	Name string `json:"name,omitempty"`
	MAC  string `json:"mac,omitempty"` // the interface is ours only with this address

	Path string `json:"path,omitempty"` // below /proc/sys
	Was  string `json:"was,omitempty"`
	Set  string `json:"set,omitempty"`
	// Force restores even when the value is no longer what was set, because
	// restoring another setting changes this one.
	Force bool `json:"force,omitempty"`
	// Guard is a setting that, when changed from GuardWas by somebody else,
	// includes this one: the value then is theirs and stays.
	Guard    string `json:"guard,omitempty"`
	GuardWas string `json:"guard_was,omitempty"`

	Family int      `json:"family,omitempty"` // 4 or 6
	Policy *policy  `json:"policy,omitempty"`
	Number int      `json:"number,omitempty"` // routing table
	Kind   string   `json:"kind,omitempty"`   // of iptables
	Table  string   `json:"table,omitempty"`  // iptables table
	Chain  string   `json:"chain,omitempty"`
	Rule   []string `json:"rule,omitempty"`
}

// policy is an ip rule of ours.
type policy struct {
	Family     int    `json:"family"` // 4 or 6
	Preference int    `json:"preference"`
	Table      int    `json:"table"`
	Mark       uint32 `json:"mark"` // compared under MarkMask
	In         string `json:"in,omitempty"`
	Out        string `json:"out,omitempty"`
	From       string `json:"from,omitempty"` // address
}

func (p policy) String() string {
	s := fmt.Sprintf("IPv%d rule %d: fwmark %#x/%#x", p.Family, p.Preference, p.Mark, uint32(MarkMask))
	for _, part := range [][2]string{{" iif ", p.In}, {" oif ", p.Out}, {" from ", p.From}} {
		if part[1] != "" {
			s += part[0] + part[1]
		}
	}
	return fmt.Sprintf("%s lookup %d", s, p.Table)
}

func (p policy) rule() *netlink.Rule {
	r := netlink.NewRule()
	mask := uint32(MarkMask)
	r.Family, r.Priority, r.Table = netlinkFamily(p.Family), p.Preference, p.Table
	r.Mark, r.Mask = p.Mark, &mask
	r.IifName, r.OifName = p.In, p.Out
	r.Protocol = routeTag
	if ip := net.ParseIP(p.From); ip != nil {
		r.Src = hostNet(ip)
	}
	return r
}

func hostNet(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: maskOf(p)}
}

func netlinkFamily(family int) int {
	if family == 6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// undoer undoes entries in the thread's namespace. It looks for the iptables
// commands when the first entry needs them.
type undoer struct {
	walls map[wall]*firewall
}

// wall names a firewall; its kind is "" for what the host's own iptables is.
type wall struct {
	family int
	kind   string
}

func newUndoer() *undoer { return &undoer{walls: map[wall]*firewall{}} }

// undo reports in words what it removed, "" when there was nothing.
func (u *undoer) undo(e entry) (string, error) {
	switch e.Do {
	case undoSpace:
		done, err := removeSpace(e.Name)
		return told(done, err, "namespace %s", e.Name)
	case undoLink:
		done, err := removeLink(e.Name, e.MAC)
		return told(done, err, "interface %s", e.Name)
	case undoSysctl:
		done, err := restoreSysctl(e)
		return told(done, err, "%s = %s", e.Path, e.Was)
	case undoRule:
		if e.Policy == nil {
			return "", nil
		}
		err := netlink.RuleDel(e.Policy.rule())
		return told(err == nil, absentIsFine(err), "%v", e.Policy)
	case undoRoutes:
		n, err := removeRoutes(e.Family, e.Number)
		return told(n > 0, err, "%d IPv%d routes of table %d", n, e.Family, e.Number)
	case undoTaken:
		n, err := forgetSockets(e.Family)
		return told(n > 0, err, "%d sockets of clients' IPv%d connections", n, e.Family)
	}
	return u.undoFirewall(e)
}

func (u *undoer) undoFirewall(e entry) (string, error) {
	fw, err := u.firewall(e.Family, e.Kind)
	if err != nil {
		return "", fmt.Errorf("IPv%d rules cannot be removed: %w", e.Family, err)
	}
	switch e.Do {
	case undoChain:
		done, err := fw.removeChain(e.Table, e.Chain)
		return told(done, err, "IPv%d chain %s of table %s", e.Family, e.Chain, e.Table)
	case undoJump:
		done, err := fw.removeRule(e.Table, e.Chain, e.Rule)
		return told(done, err, "IPv%d rule in %s/%s: %s", e.Family, e.Table, e.Chain, strings.Join(e.Rule, " "))
	case undoTable:
		fw.removeBuiltins(e.Table)
		return "", nil
	}
	return "", fmt.Errorf("journal: unknown entry %q: it was written by another version", e.Do)
}

// firewall finds the iptables of a family and a kind.
func (u *undoer) firewall(family int, kind string) (*firewall, error) {
	key := wall{family, kind}
	if fw, ok := u.walls[key]; ok {
		return fw, nil
	}
	fw, err := openFirewall(family, kind)
	if err == nil {
		u.walls[key], u.walls[wall{family, fw.kind()}] = fw, fw
	}
	return fw, err
}

// firewalls are those of a family that may hold something of ours: the host's own, and the
// other kind's where that holds what may be. None where iptables is not installed: then what
// there may be cannot be found.
func (u *undoer) firewalls(family int) (found []*firewall, err error) {
	own, err := u.firewall(family, "")
	if errors.Is(err, errNoIptables) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found = append(found, own)
	other, holds := kindLegacy, legacyHolds
	if !own.nft {
		other, holds = kindNFT, nftHolds
	}
	if !holds(family) {
		return found, nil
	}
	fw, err := u.firewall(family, other)
	if errors.Is(err, errNoIptables) && other == kindLegacy {
		return found, nil // then most likely the tables are another program's
	}
	if err != nil {
		return nil, err
	}
	return append(found, fw), nil
}

func told(done bool, err error, format string, args ...any) (string, error) {
	text := fmt.Sprintf(format, args...)
	if err != nil {
		return "", fmt.Errorf("remove %s: %w", text, err)
	}
	if !done {
		return "", nil
	}
	return text, nil
}

// absentIsFine drops the errors that say that a thing, its interface or its
// whole address family is not there.
func absentIsFine(err error) error {
	for _, absent := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EAFNOSUPPORT, os.ErrNotExist} {
		if errors.Is(err, absent) {
			return nil
		}
	}
	return err
}

// removeLink deletes an interface if it has the given hardware address.
func removeLink(name, mac string) (bool, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	want, err := net.ParseMAC(mac)
	if err != nil || !bytes.Equal(l.Attrs().HardwareAddr, want) {
		return false, nil
	}
	err = netlink.LinkDel(l)
	return err == nil, absentIsFine(err)
}

// removeRoutes deletes our routes of one table; table 0 stands for all.
func removeRoutes(family, table int) (int, error) {
	filter := &netlink.Route{Table: table, Protocol: routeTag}
	routes, err := listRoutes(netlinkFamily(family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return 0, absentIsFine(err)
	}
	n := 0
	for _, r := range routes {
		if err := netlink.RouteDel(&r); absentIsFine(err) != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
