package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func edgePlan() Plan {
	return Plan{Role: RoleEdge, Clients: []string{"lan0"}, Links: []LinkRoute{
		{Name: "wifi", Interface: "wlan0", Cloud: netip.MustParseAddrPort("[::ffff:198.18.0.1]:7443"), Gateway: netip.MustParseAddr("::ffff:198.18.3.1")}}}
}

func TestPreparedPlan(t *testing.T) {
	p, err := edgePlan().prepared()
	must(t, err)
	if p.Namespace != DefaultNamespace || p.RunDir != DefaultRunDir {
		t.Errorf("defaults: %+v", p)
	}
	if l := p.Links[0]; !l.Gateway.Is4() || !l.Cloud.Addr().Is4() {
		t.Errorf("IPv4 in IPv6 form is not made plain: %+v", l)
	}
	p.Links[0].Gateway = netip.MustParseAddr("fd00::1") // NAT64
	if p, err := p.prepared(); err != nil || p.Links[0].family() != netlink.FAMILY_V6 {
		t.Errorf("an IPv6 gateway to an IPv4 cloud: %+v, %v", p.Links, err)
	}
}

func TestBadPlans(t *testing.T) {
	tests := []struct {
		want   string
		change func(*Plan)
	}{
		{`role "x"`, func(p *Plan) { p.Role = "x" }},
		{`namespace "a/b"`, func(p *Plan) { p.Namespace = "a/b" }},
		{`namespace ".."`, func(p *Plan) { p.Namespace = ".." }},
		{"steer.interfaces: the interface name is missing", func(p *Plan) { p.Clients = []string{""} }},
		{`steer.interfaces: "sixteencharacter"`, func(p *Plan) { p.Clients = []string{"sixteencharacter"} }},
		{"steer.interfaces: lan0 is listed twice", func(p *Plan) { p.Clients = []string{"lan0", "lan0"} }},
		{"steer.interfaces: interface hub0 cannot", func(p *Plan) { p.Clients = []string{"hub0"} }},
		{"steer.exclude: entry 1", func(p *Plan) { p.Exclude = []netip.Prefix{{}} }},
		{"steer.ports: 9-8", func(p *Plan) { p.Ports = []PortRange{{9, 8}} }},
		{"steer.ports: 0-8", func(p *Plan) { p.Ports = []PortRange{{0, 8}} }},
		{"link wifi: \"a b\"", func(p *Plan) { p.Links[0].Interface = "a b" }},
		{"link wifi: interface lan0 is also in steer.interfaces", func(p *Plan) { p.Links[0].Interface = "lan0" }},
		{"link wifi: the cloud's address", func(p *Plan) { p.Links[0].Cloud = netip.AddrPort{} }},
		{"link wifi: gateway 198.18.3.1 and cloud fd00::1", func(p *Plan) {
			p.Links[0].Gateway, p.Links[0].Cloud = netip.MustParseAddr("198.18.3.1"), netip.MustParseAddrPort("[fd00::1]:7443")
		}},
		{`steer.intercept: "x": use "hub" or "tproxy"`, func(p *Plan) { p.Intercept = "x" }},
		{"transparent sockets are for steer.intercept: tproxy", func(p *Plan) { p.Sockets = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")} }},
		{"transparent socket 127.0.0.1:0 is not", func(p *Plan) {
			p.Intercept, p.Sockets = InterceptTPROXY, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
		}},
		{"the second one of IPv4", func(p *Plan) {
			p.Intercept, p.Sockets = InterceptTPROXY, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")}
		}},
		{"masquerade belongs to the cloud", func(p *Plan) { p.Masquerade = true }},
		{"belong to the edge", func(p *Plan) { p.Role = RoleCloud }},
	}
	for _, tt := range tests {
		p := edgePlan()
		tt.change(&p)
		_, err := Install(p, quiet)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want %q", err, tt.want)
		}
		if found := Check(p); len(found) != 1 || found[0].Level != LevelFail || found[0].What != err.Error() {
			t.Errorf("Check: %+v, want only %v", found, err)
		}
	}
}

func TestPortGroups(t *testing.T) {
	var single, ranges []PortRange
	for p := uint16(1); p <= 16; p++ {
		single = append(single, PortRange{p, p})
		ranges = append(ranges, PortRange{p * 10, p*10 + 5})
	}
	tests := []struct {
		ports []PortRange
		want  []string
	}{
		{nil, nil},
		{single[:15], []string{"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"}},
		{single, []string{"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "16"}},
		{ranges[:8], []string{"10:15,20:25,30:35,40:45,50:55,60:65,70:75", "80:85"}},
	}
	for _, tt := range tests {
		if got := portGroups(tt.ports); !slices.Equal(got, tt.want) {
			t.Errorf("portGroups(%v) = %q, want %q", tt.ports, got, tt.want)
		}
	}
}

func TestNamesFitTheKernel(t *testing.T) {
	a, b := namesOf(RoleEdge, "hawser"), namesOf(RoleEdge, "hawser2")
	if a.chain("PRE") == b.chain("PRE") || a.hostMAC().String() == b.hostMAC().String() {
		t.Error("two namespaces have the same names")
	}
	if len(a.chain("MARK")) > 28 {
		t.Errorf("chain name %s is too long", a.chain("MARK"))
	}
	if m := a.hostMAC(); m[0]&3 != 2 {
		t.Errorf("%s is not a locally administered unicast address", m)
	}
	if MarkMask&(BypassMark|steerMark) != BypassMark|steerMark || BypassMark&steerMark != 0 {
		t.Error("the marks overlap or leave the mask")
	}
}

// TestCheckUpsItsHub: before 6.13 a socket joins a fanout group only if its interface is up,
// so that check failed where run does not.
func TestCheckUpsItsHub(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	err := insideFresh(func() error {
		var c checker
		var index int
		if err := c.tryHubs(&index); err != nil {
			return err
		}
		hub, err := netlink.LinkByIndex(index)
		if err == nil && hub.Attrs().RawFlags&unix.IFF_UP == 0 {
			t.Errorf("%s is down while sockets are tried on it", hub.Attrs().Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	before := w.snapshot()
	before617 := !sysctlExists(confPath(6, "all", "force_forwarding"))
	for _, p := range []Plan{w.plan, w.cloudPlan()} {
		text := ""
		for _, f := range Check(p) {
			text += string(f.Level) + " " + f.What + "\n"
			if f.Level != LevelOK && !(before617 && strings.HasPrefix(f.What, "IPv6: this kernel (before 6.17)")) {
				t.Errorf("%s: %+v", p.Role, f)
			}
		}
		for _, want := range []string{"privileges", "veth", "packet sockets", "iptables: tables raw", "ip6tables: tables raw", "IPv6"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: nothing about %s in:\n%s", p.Role, want, text)
			}
		}
		w.unchanged(before, "after Check")
	}
	w.run("ip link set wan1 down")
	warned := slices.ContainsFunc(Check(w.plan), func(f Finding) bool {
		return f.Level == LevelWarn && strings.Contains(f.What, "interface wan1 is down") && f.Remedy == "ip link set wan1 up"
	})
	if !warned {
		t.Error("no warning of an interface that is down")
	}
	t.Setenv("PATH", t.TempDir())
	missing := slices.ContainsFunc(Check(w.plan), func(f Finding) bool {
		return f.Level == LevelFail && f.What == "iptables is not installed" && f.Remedy != ""
	})
	if _, err := Install(w.plan, quiet); !missing || err == nil || !strings.Contains(err.Error(), "iptables is not installed: install the package iptables") {
		t.Errorf("without iptables: Check tells = %v, Install: %v", missing, err)
	}
}

// TestCheckPlaces: check tells of places that cannot be written, or hold something else than
// Install's, as Install itself does.
func TestCheckPlaces(t *testing.T) {
	w := newWorld(t)
	for name, put := range map[string]func(dir string) error{
		"cannot be written: read-only file system": func(dir string) error {
			if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
				return err
			}
			t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
			return nil
		},
		"no space is left in": func(dir string) error {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
				return err
			}
			t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
			return os.WriteFile(filepath.Join(dir, "full"), make([]byte, 4<<10), 0o600)
		},
		"is a directory":  func(dir string) error { return os.Mkdir(journalPath(dir, w.plan.Namespace), 0o755) },
		"not a directory": func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o644)) },
	} {
		p := w.plan
		p.RunDir = filepath.Join(t.TempDir(), "run")
		must(t, os.Mkdir(p.RunDir, 0o755))
		must(t, put(p.RunDir))
		told := slices.ContainsFunc(Check(p), func(f Finding) bool {
			return f.Level == LevelFail && strings.Contains(f.What, name) && !strings.Contains(f.Remedy, "stop the process")
		})
		if h, err := Install(p, quiet); !told || err == nil {
			t.Errorf("%s: Check tells = %v, Install: %v", name, told, err)
			if err == nil {
				must(t, h.Close())
			}
		}
	}
}

// TestCheckBesideRunning: what a running agent holds is told as that.
func TestCheckBesideRunning(t *testing.T) {
	w := newWorld(t)
	h, err := Install(w.plan, quiet)
	must(t, err)
	defer func() { must(t, h.Close()) }()
	failures := slices.DeleteFunc(Check(w.plan), func(f Finding) bool { return f.Level != LevelFail })
	if len(failures) != 1 || !failures[0].Taken || !strings.Contains(failures[0].What, "is in use by the running hawser-") {
		t.Errorf("%+v", failures)
	}
}

// TestLocalWithoutRoute: check says why the host's own connections will not begin.
func TestLocalWithoutRoute(t *testing.T) {
	w := newWorld(t)
	warned := func(local bool) bool {
		p := w.plan
		p.Local = local
		return slices.ContainsFunc(Check(p), func(f Finding) bool {
			return f.Level == LevelWarn && strings.Contains(f.What, "steer.local: the host has no route") && f.Remedy != ""
		})
	}
	w.run("ip route del default")
	if without := warned(false); without || !warned(true) {
		t.Errorf("without a default route: warned %v, with steer.local %v", without, warned(true))
	}
	w.run("ip route add default via 198.18.2.1 dev wan0")
	if warned(true) {
		t.Error("warned though there is a default route")
	}
}

// TestRulesAhead: check names policy rules that would take the clients' packets before
// the steering does, and no others.
func TestRulesAhead(t *testing.T) {
	w := newWorld(t)
	client := w.plan.Clients[0]
	for _, c := range []struct {
		rule string
		want string // "" for none
	}{
		{"from 10.9.0.0/24 lookup 200 pref 100", "policy rule 100 (from 10.9.0.0/24 lookup 200) comes before hawser's 470"},
		{"to 10.8.0.0/16 lookup 200 pref 470", "policy rule 470 (from all to 10.8.0.0/16 lookup 200) comes before hawser's 470"},
		{"iif " + client + " lookup 200 pref 100", "policy rule 100 (from all iif " + client + " lookup 200) comes before hawser's 470"},
		{"from 10.9.0.0/24 lookup 200 pref 1000", ""},
		{"iif wan0 lookup 200 pref 100", ""},
		{"fwmark 0x1 lookup 200 pref 100", ""},
		{"oif wan0 lookup 200 pref 100", ""},
		{"not fwmark 0x1 lookup 200 pref 100", "policy rule 100 (not from all fwmark 0x1 lookup 200) comes before hawser's 470"},
	} {
		w.run("ip rule add " + c.rule)
		found := ""
		for _, f := range Check(w.plan) {
			if strings.Contains(f.What, "policy rule") {
				found += f.What
				if f.Level != LevelWarn || f.Remedy == "" {
					t.Errorf("%s: %+v", c.rule, f)
				}
			}
		}
		if (c.want == "") != (found == "") || !strings.HasPrefix(found, c.want) {
			t.Errorf("%s: found %q, want %q", c.rule, found, c.want)
		}
		w.run("ip rule del " + c.rule)
	}
	w.run("ip -6 rule add from fd00::/16 lookup 200 pref 100")
	if !slices.ContainsFunc(Check(w.plan), func(f Finding) bool { return strings.Contains(f.What, "(from fd00::/16 lookup 200)") }) {
		t.Error("no word of an IPv6 rule")
	}
}

func TestWithoutPrivileges(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs a user without privileges")
	}
	_, err := Install(edgePlan(), quiet)
	if err == nil || !strings.HasSuffix(err.Error(), "is missing: run as root") {
		t.Errorf("error %v", err)
	}
}

// TestNamedCloud: a cloud that is given by name needs no address; the link's IP version
// is its gateway's, or any.
func TestNamedCloud(t *testing.T) {
	p := edgePlan()
	p.Links[0].Cloud, p.Links[0].Named = netip.AddrPort{}, true
	p.Links[0].Known = []netip.Addr{netip.MustParseAddr("::ffff:198.18.0.1"), netip.MustParseAddr("2001:db8::1")}
	p, err := p.prepared()
	must(t, err)
	l := p.Links[0]
	if !l.Known[0].Is4() || l.family() != netlink.FAMILY_V4 {
		t.Errorf("known %v, family %d", l.Known, l.family())
	}
	if l.Gateway = (netip.Addr{}); l.family() != netlink.FAMILY_ALL {
		t.Errorf("without a gateway: family %d", l.family())
	}
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, to, _ := net.ParseCIDR("198.18.0.0/24")
	_, other, _ := net.ParseCIDR("198.19.0.0/24")
	for dst, want := range map[*net.IPNet]bool{nil: true, all4: true, to: true, other: false} {
		if leadsTo(netlink.Route{Dst: dst}, l) != want {
			t.Errorf("a route to %v leads there: %v", dst, !want)
		}
	}
}
