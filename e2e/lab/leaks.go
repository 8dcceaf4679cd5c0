package lab

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hostNode stands for the root namespace in Leaks.
const hostNode = "host"

// state lists what programs leave behind, one line of text each.
type state map[string]bool

// foreign matches namespaces that other tests of this module make meanwhile: those of
// package netns.
var foreign = regexp.MustCompile(`^hawsertest\d+-`)

// Leaks lists what is there now and was not when New was done (in the nodes edge,
// cloud and clients) or began (in the root namespace): namespaces that have this lab's name
// and are no nodes, or an agent's own, interfaces, policy rules, routes and iptables rules.
// Each line begins with the node or "host". Empty means clean. Changes that others make
// to the root namespace meanwhile are listed too. It works until Close, and after
// Close for the root namespace alone.
func (l *Lab) Leaks() ([]string, error) {
	var leaks []string
	host, err := readHost()
	if err != nil {
		return nil, err
	}
	for line := range host {
		if !l.base[hostNode][line] && !l.expected(line) {
			leaks = append(leaks, hostNode+": "+line)
		}
	}
	for _, n := range l.watched() {
		now, err := readState(n.ns)
		if err != nil {
			return nil, fmt.Errorf("leaks on %s: %w", n.name, err)
		}
		for line := range now {
			if !l.base[n.name][line] {
				leaks = append(leaks, n.name+": "+line)
			}
		}
	}
	slices.Sort(leaks)
	return leaks, nil
}

// watched returns the nodes whose state is compared.
func (l *Lab) watched() []*node {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(l.nodes), func(n *node) bool { return n.name == emuNode })
}

// expected tells whether a line of the host's state is a node's own namespace while
// the lab lives, or one that no program of this lab has made: they get names that begin
// with the lab's, and an agent that is told none takes one that begins with ours.
func (l *Lab) expected(line string) bool {
	name, ok := strings.CutPrefix(line, "namespace ")
	if !ok {
		return false
	}
	if !strings.HasPrefix(name, l.id+"-") {
		return !strings.HasPrefix(name, "hawser") || foreign.MatchString(name)
	}
	return slices.ContainsFunc(l.watchedAndEmulator(), func(n *node) bool { return n.full == name })
}

func (l *Lab) watchedAndEmulator() []*node {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	return l.nodes
}

// snapshotNodes remembers the nodes as New leaves them.
func (l *Lab) snapshotNodes() error {
	for _, n := range l.watched() {
		s, err := readState(n.ns)
		if err != nil {
			return fmt.Errorf("snapshot of %s: %w", n.name, err)
		}
		l.base[n.name] = s
	}
	return nil
}

// readHost reads the root namespace with the named namespaces.
func readHost() (state, error) {
	root, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("root namespace: %w", err)
	}
	defer root.Close()
	s, err := readState(root)
	if err != nil {
		return nil, fmt.Errorf("root namespace: %w", err)
	}
	names, err := namespaceNames()
	for _, n := range names {
		s["namespace "+n] = true
	}
	return s, err
}

func readState(ns netns.NsHandle) (state, error) {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	s := state{}
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	index := map[int]string{}
	for _, link := range links {
		a := link.Attrs()
		index[a.Index] = a.Name
		s["interface "+a.Name] = true
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := h.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		for _, r := range rules {
			s[fmt.Sprintf("rule (IPv%s) %v", version(family), r)] = true
		}
		// Table 0 as a filter means the routes of all tables.
		routes, err := h.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range routes {
			if !automatic(r) {
				s[routeLine(r, index)] = true
			}
		}
	}
	return s, readTables(ns, s)
}

func version(family int) string {
	if family == unix.AF_INET6 {
		return "6"
	}
	return "4"
}

// automatic tells whether the kernel adds the route by itself, with an interface some
// time after it is up or with an address.
func automatic(r netlink.Route) bool {
	return r.Table == unix.RT_TABLE_LOCAL || r.Dst != nil && (r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast())
}

func routeLine(r netlink.Route, index map[int]string) string {
	return fmt.Sprintf("route %v via %v dev %s table %d type %d", r.Dst, r.Gw, index[r.LinkIndex], r.Table, r.Type)
}

// readTables adds the iptables rules and own chains, where the tools are installed.
func readTables(ns netns.NsHandle, s state) error {
	for _, tool := range []string{"iptables-save", "ip6tables-save"} {
		if _, err := exec.LookPath(tool); err != nil {
			continue
		}
		var out []byte
		err := inside(ns, func() (err error) {
			out, err = exec.Command(tool).Output()
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", tool, err)
		}
		table := ""
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "*"):
				table = line[1:]
			case strings.HasPrefix(line, "-A"), ownChain(line):
				s[tool+" "+table+" "+line] = true
			}
		}
	}
	return nil
}

// ownChain matches ":NAME - [0:0]": a chain without policy is not built in.
func ownChain(line string) bool {
	fields := strings.Fields(line)
	return len(fields) > 1 && strings.HasPrefix(line, ":") && fields[1] == "-"
}
