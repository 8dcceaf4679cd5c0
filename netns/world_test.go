package netns

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	nsh "github.com/vishvananda/netns"
)

// world is a host of its own with its neighbours, all in namespaces without a
// name:
//
//	client --lan0-- host --wan0-- server
//	 other --oth0--      --wan1--
//
// The test's goroutine is bound to a thread in the host's namespace, so that worlds may
// stand beside each other.
type world struct {
	t                     *testing.T
	client, server, other nsh.NsHandle
	plan                  Plan // an edge with all it can have
	patience              time.Duration
}

// Patience where something must come, however busy the machine is, and where
// nothing may.
const (
	patient   = 30 * time.Second
	impatient = 250 * time.Millisecond
)

const (
	serverAddr4, serverAddr6 = "198.18.100.1", "fd00:64::1"
	clientAddr4, clientAddr6 = "198.18.1.2", "fd00:1::2"
)

var worldNumber atomic.Int64

func newWorld(t *testing.T, hostSysctls ...string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables: apt-get install iptables")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	w := &world{t: t, patience: patient}
	w.client, w.server, w.other = w.space(), w.space(), w.space()
	w.space() // becomes the host
	w.plan = Plan{
		Role:      RoleEdge,
		Namespace: fmt.Sprintf("hawsertest%d-%03d", os.Getpid(), worldNumber.Add(1)), // none begins another
		Clients:   []string{"lan0"},
		Local:     true,
		Exclude:   []netip.Prefix{netip.MustParsePrefix("198.18.100.2/32"), netip.MustParsePrefix("fd00:64::2/128")},
		Links: []LinkRoute{
			{Name: "wifi", Interface: "wan0", Cloud: netip.MustParseAddrPort("198.18.100.9:7443")},
			{Name: "lte", Interface: "wan1", Gateway: netip.MustParseAddr("198.18.3.1"), Cloud: netip.MustParseAddrPort("198.18.100.9:7443")},
			{Name: "lte6", Interface: "wan1", Gateway: netip.MustParseAddr("fd00:3::1"), Cloud: netip.MustParseAddrPort("[fd00:64::9]:7443")},
		},
		RunDir: t.TempDir(),
	}
	w.run("ip link set lo up")
	for _, s := range hostSysctls {
		name, value, _ := strings.Cut(s, "=")
		must(t, writeSysctl(name, value))
	}
	w.wire("lan0", "c0", w.client, 1, 1)
	w.wire("wan0", "s0", w.server, 2, 2)
	w.wire("wan1", "s1", w.server, 3, 2)
	w.wire("oth0", "o0", w.other, 4, 1)
	w.run("ip route add default via 198.18.2.1 dev wan0", "ip -6 route add default via fd00:2::1 dev wan0")
	w.in(w.client, "ip route add default via 198.18.1.1", "ip -6 route add default via fd00:1::1")
	w.in(w.other, "ip route add default via 198.18.4.1", "ip -6 route add default via fd00:4::1")
	var clouds []string
	for i := range 9 {
		clouds = append(clouds, fmt.Sprintf("addr add 198.18.100.%d/32 dev lo", i+1), fmt.Sprintf("addr add fd00:64::%d/128 dev lo nodad", i+1))
	}
	w.ip(w.server, clouds...)
	w.in(w.server, "ip route add 198.18.0.0/16 via 198.18.2.2", "ip -6 route add fd00::/16 via fd00:2::2")
	for _, ns := range []nsh.NsHandle{here, w.client, w.server, w.other} {
		eventually(t, "the interfaces coming up", func() bool { return w.settled(ns) })
	}
	t.Cleanup(func() {
		if left, err := Cleanup(w.plan.Namespace, w.plan.RunDir); err != nil || len(left) > 0 {
			t.Errorf("after the test Cleanup removed %q, error %v", left, err)
		}
		for _, ns := range []*nsh.NsHandle{&w.client, &w.server, &w.other} {
			ns.Close()
		}
	})
	return w
}

// settled tells whether all interfaces of ns have a carrier and addresses that
// can be used. The kernel's link watch may take up to a second.
func (w *world) settled(ns nsh.NsHandle) (ok bool) {
	must(w.t, w.visit(ns, func() error {
		out, err := exec.Command("ip", "address").Output()
		ok = !regexp.MustCompile("NO-CARRIER|tentative|LOWERLAYERDOWN|state DOWN").Match(out)
		return err
	}))
	return ok
}

// space makes a namespace and leaves the thread in it.
func (w *world) space() nsh.NsHandle {
	ns, err := nsh.New()
	must(w.t, err)
	// Link-local addresses are there at once and do not change a snapshot later.
	must(w.t, writeSysctl("net/ipv6/conf/default/dad_transmits", "0"))
	must(w.t, writeSysctl("net/ipv6/conf/default/accept_dad", "0"))
	w.run("ip link set lo up")
	return ns
}

// wire joins the host to a neighbour. end is the host's number in the subnet.
func (w *world) wire(inner, outer string, ns nsh.NsHandle, net, end int) {
	pid := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns))
	w.ip(here, "link add "+inner+" type veth peer name "+outer, "link set "+outer+" netns "+pid,
		fmt.Sprintf("addr add 198.18.%d.%d/24 dev %s", net, end, inner),
		fmt.Sprintf("addr add fd00:%d::%d/64 dev %s nodad", net, end, inner),
		"link set "+inner+" up")
	w.ip(ns, fmt.Sprintf("addr add 198.18.%d.%d/24 dev %s", net, 3-end, outer),
		fmt.Sprintf("addr add fd00:%d::%d/64 dev %s nodad", net, 3-end, outer),
		"link set "+outer+" up")
}

// ip has one ip program do several commands.
func (w *world) ip(ns nsh.NsHandle, commands ...string) {
	w.t.Helper()
	must(w.t, w.visit(ns, func() error {
		ip := exec.Command("ip", "-batch", "-")
		ip.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := ip.CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w: %s", commands, err, out)
		}
		return nil
	}))
}

func (w *world) run(commands ...string) {
	w.t.Helper()
	for _, c := range commands {
		output(w.t, c)
	}
}

func (w *world) in(ns nsh.NsHandle, commands ...string) {
	w.t.Helper()
	must(w.t, inside(ns, func() error {
		for _, c := range commands {
			if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", c, err, out)
			}
		}
		return nil
	}))
}

func output(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) cloudPlan() Plan {
	return Plan{Role: RoleCloud, Namespace: w.plan.Namespace, Masquerade: true, RunDir: w.plan.RunDir}
}

// install fails the test when Install fails and closes the host at its end.
func (w *world) install(p Plan) *Host {
	w.t.Helper()
	h, err := Install(p, slog.New(slog.DiscardHandler))
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, h.Close()) })
	return h
}

// variable are values that change by themselves.
var variable = regexp.MustCompile(`\[\d+:\d+\]| expires \d+sec`)

// snapshot is everything of the host that Install could change, by source.
func (w *world) snapshot() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, c := range []string{"iptables-save", "ip6tables-save", "ip rule", "ip -6 rule", "ip route show table all",
		"ip -6 route show table all", "ip -d address", "ip neigh show nud permanent"} {
		var lines []string
		// Not its error output: ip complains of namespaces that others remove.
		args := words(c)
		out, err := exec.Command(args[0], args[1:]...).Output()
		must(w.t, err)
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "#") {
				lines = append(lines, variable.ReplaceAllString(line, ""))
			}
		}
		all[c] = strings.Join(lines, "")
	}
	for _, dir := range []string{"net/ipv4/conf", "net/ipv6/conf"} {
		err := filepath.WalkDir(sysctlFile(dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				if data, err := os.ReadFile(path); err == nil { // stable_secret cannot be read
					all[path] = string(data)
				}
			}
			return nil
		})
		must(w.t, err)
	}
	spaces, err := filepath.Glob(filepath.Join(namespaceDir, w.plan.Namespace+"*"))
	must(w.t, err)
	all["namespaces"] = fmt.Sprint(spaces)
	all["ip_forward"], _ = readSysctl("net/ipv4/ip_forward")
	if all["liberal"], err = readSysctl(liberal); err != nil {
		all["liberal"] = "0" // connection tracking is not loaded yet
	}
	if entries, err := os.ReadDir(w.plan.RunDir); err == nil {
		all["journal"] = fmt.Sprint(entries)
	}
	return all
}

// atRest is a snapshot once the kernel has done what it does a moment after Install: it
// adds the local route of an IPv6 address when the interface has come up.
func (w *world) atRest() map[string]string {
	w.t.Helper()
	if _, err := net.InterfaceByName(hubHost); err != nil {
		return w.snapshot() // no hub
	}
	for end := time.Now().Add(patient); ; time.Sleep(settling / 100) {
		addresses, err := exec.Command("ip", "-6", "-o", "address", "show", "dev", hubHost).Output()
		must(w.t, err)
		routes, err := exec.Command("ip", "-6", "route", "show", "table", "local", "type", "local", "dev", hubHost).Output()
		must(w.t, err)
		if strings.Count(string(addresses), "inet6") == strings.Count(string(routes), "\n") {
			return w.snapshot()
		}
		if time.Now().After(end) {
			w.t.Fatalf("addresses without routes:\n%s%s", addresses, routes)
		}
	}
}

func differences(before, after map[string]string) []string {
	var found []string
	for key, value := range before {
		if after[key] != value {
			found = append(found, key+":"+lineDiff("-", value, after[key])+lineDiff("+", after[key], value))
		}
	}
	for key, value := range after {
		if _, ok := before[key]; !ok {
			found = append(found, fmt.Sprintf("%s: new:\n%s", key, value))
		}
	}
	slices.Sort(found)
	return found
}

// lineDiff lists the lines of a that b lacks.
func lineDiff(sign, a, b string) (lines string) {
	for line := range strings.Lines(a) {
		if !strings.Contains(b, line) {
			lines += "\n" + sign + " " + strings.TrimSpace(line)
		}
	}
	return lines
}

// unchanged complains of what stays different: the kernel's link watch tells of a
// carrier up to a second later.
func (w *world) unchanged(before map[string]string, when string) {
	w.t.Helper()
	var left []string
	for end := time.Now().Add(settling); ; time.Sleep(settling / 20) {
		if left = differences(before, w.snapshot()); len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, d := range left {
		w.t.Errorf("%s: %s", when, d)
	}
}

// settling is how long what the kernel does a moment later may take.
const settling = 3 * time.Second

// useAllTables gives the host rules of its own, as every real one has.
func (w *world) useAllTables() {
	w.run("iptables -P FORWARD DROP", "ip6tables -P FORWARD DROP",
		"iptables -A FORWARD -i oth0 -j ACCEPT", "iptables -A FORWARD -o oth0 -j ACCEPT",
		"ip6tables -A FORWARD -i oth0 -j ACCEPT", "ip6tables -A FORWARD -o oth0 -j ACCEPT",
		"iptables -t mangle -A PREROUTING -i oth0 -j MARK --set-xmark 0x5/0xff",
		"ip6tables -t mangle -A PREROUTING -i oth0 -j MARK --set-xmark 0x5/0xff",
		"iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE",
		"ip6tables -t nat -A POSTROUTING -s 2001:db8::/32 -j MASQUERADE")
}
