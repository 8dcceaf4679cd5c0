package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Level grades a Finding.
type Level string

// Levels. Install would fail where a finding is LevelFail.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn"
	LevelFail Level = "fail"
)

// Finding is one result of Check: what was found, and what to do about it (""
// when nothing is to be done).
type Finding struct {
	Level  Level
	What   string
	Remedy string
	Taken  bool // it fails because a process that runs has what is needed
}

// checker collects findings.
type checker struct{ findings []Finding }

func (c *checker) ok(format string, args ...any) {
	c.findings = append(c.findings, Finding{Level: LevelOK, What: fmt.Sprintf(format, args...)})
}

func (c *checker) warn(remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{Level: LevelWarn, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (c *checker) fail(remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{Level: LevelFail, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Check finds out whether Install(p) would work, from the calling thread's
// network namespace. Kernel features are tried in a network namespace without
// a name that is gone afterwards; the host itself is only read.
func Check(p Plan) []Finding {
	c := &checker{}
	p, err := p.prepared()
	if err != nil {
		c.fail("correct the configuration", "%v", err)
		return c.findings
	}
	rootful := true
	if err := privileged(); err != nil {
		c.fail("run as root", "privileges: %v", err)
		rootful = false
	} else {
		c.ok("privileges: CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN")
	}
	c.interfaces(p)
	commands := c.commands()
	if rootful {
		c.place(p)
		c.kernel(p, commands)
	}
	return c.findings
}

func (c *checker) interfaces(p Plan) {
	for _, name := range p.Clients {
		c.device("client", "steer.interfaces", name)
	}
	for _, l := range p.Links {
		c.device("uplink", "link "+l.Name, l.Interface)
	}
	if ipv6Usable() {
		c.ok("IPv6 is available")
	} else {
		c.warn("set net.ipv6.conf.all.disable_ipv6 to 0 if IPv6 is wanted", "IPv6 is off: only IPv4 is carried")
	}
}

func (c *checker) device(kind, field, name string) {
	l, err := namedLink(name)
	if err == nil {
		err = partError(l)
	}
	switch {
	case errors.As(err, new(partOf)) && kind == "uplink":
		c.warn("ip link shows the whole as master", "%s: interface %s: %v", field, name, err)
	case errors.As(err, new(partOf)):
		c.fail("ip link shows the whole as master", "%s: interface %s: %v", field, name, err)
	case errors.As(err, new(otherName)):
		c.fail("see ip link: it shows such a name as altname", "%s: interface %s: %v", field, name, err)
	case errors.As(err, &netlink.LinkNotFoundError{}) && kind == "uplink":
		c.warn("plug it in, or correct the name (ip link shows the interfaces): run waits for it", "%s: interface %s: %v", field, name, plainLinkError(err))
	case err != nil:
		c.fail("correct the name (ip link shows the interfaces) or create it", "%s: interface %s: %v", field, name, plainLinkError(err))
	case l.Attrs().RawFlags&unix.IFF_UP == 0:
		c.warn("ip link set "+name+" up", "%s: interface %s is down", field, name)
	case l.Attrs().RawFlags&unix.IFF_RUNNING == 0:
		c.warn("check the cable or the radio", "%s: interface %s has no carrier", field, name)
	default:
		c.ok("%s: %s interface %s is up", field, kind, name)
	}
}

// commands returns the families whose iptables command is there.
func (c *checker) commands() []int {
	return slices.DeleteFunc(spoken(), func(family int) bool {
		name := commandOf(family)
		path, err := exec.LookPath(name)
		if err != nil {
			c.fail("install the package iptables", "%s is not installed", name)
			return true
		}
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			path = resolved
		}
		c.ok("%s is %s", name, path)
		return false
	})
}

// place looks for what is in the way on the host.
func (c *checker) place(p Plan) {
	j, err := openJournal(p.RunDir, p.Namespace, false)
	switch {
	case errors.As(err, new(*fs.PathError)):
		c.fail("remove what stands there: it must be a file in a directory", "%v", err)
		return
	case err != nil:
		c.fail("stop the process that is named, or choose another namespace", "%v", err)
		c.findings[len(c.findings)-1].Taken = errors.As(err, new(inUse))
		return
	}
	c.writable(p)
	n := namesOf(p.Role, p.Namespace)
	if j != nil {
		if len(j.entries) > 0 {
			c.warn("nothing: the next start removes it; cleanup does it now", "a crashed run left %d things to undo in %s", len(j.entries), j.path)
		}
		j.file.Close()
	}
	if _, err := spaceByName(n); err != nil {
		c.fail("choose another namespace or remove that one", "%v", err)
	}
	if mine, err := hubIsMine(n); err != nil || !mine {
		c.fail("remove it, or stop the hawser that owns it", "interface %s exists and does not belong to namespace %s", hubHost, p.Namespace)
		return
	}
	if err := checkAlone(newUndoer(), n); err != nil {
		c.fail("stop that hawser, or run its cleanup", "%v", err)
		return
	}
	if p.Intercept == InterceptTPROXY {
		if err := checkBridges(p); err != nil {
			c.fail(bridgeRemedy, "%v", err)
		}
	}
	c.rules(p)
	c.local(p)
	c.filters(p)
	for _, table := range tablesOf(p) {
		if owner, err := foreignRoute(table); err != nil || owner != "" {
			c.fail("move these routes to another table", "routing table %d is in use: %s", table, owner)
		}
	}
}

// writable looks for what Install must write to: a container often shows the host's settings,
// or all but a few directories, for reading only.
func (c *checker) writable(p Plan) {
	needed := []string{p.RunDir, sysctlFile(confPath(4, "all", "forwarding"))}
	if p.Intercept != InterceptTPROXY {
		needed = append(needed, namespaceDir)
	}
	for _, path := range needed {
		there := path
		err := unix.Access(there, unix.W_OK)
		for errors.Is(err, fs.ErrNotExist) && there != filepath.Dir(there) { // Install makes what is missing
			there = filepath.Dir(there)
			err = unix.Access(there, unix.W_OK)
		}
		if err != nil {
			c.fail("mount it for writing: in a container that takes a privileged one, or a mount of its own", "%s cannot be written: %v", path, err)
		} else if path == p.RunDir && full(there) {
			c.fail("remove what fills it, or enlarge it (df shows it)", "no space is left in %s", path)
		}
	}
}

// full tells whether nothing can be written into a directory for want of space.
func full(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && (s.Blocks > 0 && s.Bavail == 0 || s.Files > 0 && s.Ffree == 0)
}

// rules looks for policy rules ahead of the steering's that may take its packets.
func (c *checker) rules(p Plan) {
	if p.Role != RoleEdge {
		return
	}
	for _, family := range []int{4, 6} {
		rules, err := listRules(netlinkFamily(family))
		if absentIsFine(err) != nil {
			c.warn("", "the policy rules cannot be read: %v", err)
		}
		for _, r := range rules {
			if takesSteered(r, p, prefSteer) {
				c.warn("if clients' connections match it, give it a preference above "+strconv.Itoa(prefSource)+" (ip rule)",
					"policy rule %d (%s) comes before hawser's %d: what it leads elsewhere is not carried", r.Priority, ruleText(r), prefSteer)
			}
		}
	}
}

// local looks for what the host's own connections need to begin: the kernel asks for a route
// before any rule of ours sees them.
func (c *checker) local(p Plan) {
	if !p.Local {
		return
	}
	anywhere := net.IPv4(192, 0, 2, 1) // of no host (RFC 5737)
	if _, err := netlink.RouteGet(anywhere); errors.Is(err, unix.ENETUNREACH) {
		c.warn("give the host a default route, by any uplink", "steer.local: the host has no route to most addresses: its own connections to them cannot begin, and are not steered")
	}
}

// takesSteered tells whether a policy rule may match packets that are steered, before
// our first rule does: of two with one preference the older comes first. The kernel's own
// first rule leads to what is for this host.
func takesSteered(r netlink.Rule, p Plan, first int) bool {
	from := r.IifName == "" || slices.Contains(p.Clients, r.IifName) || r.IifName == "lo" && p.Local
	// A mark is another program's, of its own packets mostly: what has not got it is all else.
	match := r.Mark == 0 && r.OifName == "" && from || r.Invert
	return r.Priority <= first && r.Table != unix.RT_TABLE_LOCAL && r.Protocol != routeTag && match
}

// ruleText is a policy rule's match and table in ip's words.
func ruleText(r netlink.Rule) string {
	text := "from all"
	if r.Src != nil {
		text = "from " + r.Src.String()
	}
	if r.Invert {
		text = "not " + text
	}
	if r.Dst != nil {
		text += " to " + r.Dst.String()
	}
	if r.IifName != "" {
		text += " iif " + r.IifName
	}
	if r.Mark != 0 {
		text += fmt.Sprintf(" fwmark %#x", r.Mark)
	}
	return fmt.Sprintf("%s lookup %d", text, r.Table)
}

// kernel tries every feature that the plan needs in a namespace of its own.
func (c *checker) kernel(p Plan, families []int) {
	var index int
	err := insideFresh(func() error {
		if p.Intercept == InterceptTPROXY {
			c.trySockets(p, families)
			return nil
		}
		if err := c.tryHubs(&index); err != nil {
			return nil
		}
		c.tryCapture(index)
		for _, family := range families {
			c.tryFirewall(p, family)
		}
		return nil
	})
	if err != nil {
		c.fail("use a kernel with CONFIG_NET_NS", "network namespaces: %v", err)
		return
	}
	if p.Intercept != InterceptTPROXY && len(families) > 1 && !sysctlExists(confPath(6, "all", "force_forwarding")) {
		if on, err := readSysctl(confPath(6, "all", "forwarding")); err == nil && on != "1" {
			c.warn("", "IPv6: this kernel (before 6.17) forwards on all interfaces or none: the host becomes an IPv6 router while hawser runs; other traffic is still not forwarded")
		}
	}
}

func (c *checker) tryHubs(index *int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = hubHost
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hubInner})
	var l netlink.Link
	if err == nil {
		l, err = netlink.LinkByName(hubInner)
	}
	if err != nil {
		c.fail("load the module veth or use a kernel that has it", "veth interfaces: %v", err)
		return err
	}
	// Before 6.13 sockets of an interface that is down cannot join a fanout group.
	if err := netlink.LinkSetUp(l); err != nil {
		c.fail("", "veth interfaces: %s up: %v", hubInner, err)
		return err
	}
	*index = l.Attrs().Index
	c.ok("kernel: network namespaces and veth interfaces")
	return nil
}

func (c *checker) tryCapture(index int) {
	fds, err := openCapture(index, 2, captureKind{FanoutSource, hubAddrs{}, captureReceive, captureFilter(everySegment)})
	if err != nil {
		c.fail("load the module af_packet or use a kernel (5.11 or newer) that has it", "raw capture with virtio headers and fanout: %v", err)
		return
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	c.ok("kernel: packet sockets with virtio headers and fanout")
}

// tryFirewall puts the plan's own chains into the empty namespace.
func (c *checker) tryFirewall(p Plan, family int) {
	fw, err := openFirewall(family, "")
	if err != nil {
		c.fail("install the package iptables", "%v", err)
		return
	}
	b := &builder{plan: p, names: namesOf(p.Role, p.Namespace), families: []*firewall{fw}, guarded: map[int][]string{}}
	err = errors.Join(fw.fill("filter", "FWD", b.forwardRules(family)),
		oneLine(fw.Append("raw", "PREROUTING", words("-p tcp -j DROP")...)))
	tables := "raw and filter"
	if p.Role == RoleEdge {
		tables = "raw, filter and mangle"
		err = errors.Join(err, fw.fill("mangle", b.names.chain("MARK"), markRules(steerMark)),
			fw.fill("mangle", "PRE", b.clientRules(family, "MARK")), fw.fill("mangle", "OUT", b.localRules(family)),
			fw.fill("mangle", "ERR", errorRules()))
	} else if p.Masquerade {
		tables = "raw, filter and nat"
		err = errors.Join(err, oneLine(fw.Append("nat", "POSTROUTING", words("-j MASQUERADE")...)))
	}
	if err != nil {
		c.fail("load the missing netfilter modules or use a kernel that has them", "%s: %v", commandOf(family), err)
		return
	}
	c.ok("%s: tables %s with all matches that are needed", commandOf(family), tables)
}
