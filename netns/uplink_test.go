package netns

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// strictServer accepts a packet only by the interface that its source is
// reached by, and answers ARP only for that interface's own addresses. So a
// packet that left by the wrong uplink, or without the gateway, is lost.
func (w *world) strictServer() {
	w.in(w.server, "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter",
		"echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore",
		"ip6tables -t raw -A PREROUTING -m rpfilter --invert -j DROP",
		"ip -6 route add fd00:3::2/128 dev s1", "ip -6 neigh flush all")
	w.serve(w.server, "cloud", 7443)
}

// TestLinksLeaveByTheirUplink: main's default route is wan0 throughout.
func TestLinksLeaveByTheirUplink(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k.sysctls...)
			w.strictServer()
			links := []struct {
				name string
				b    bound
				addr string
				want string
			}{
				{"first by interface", bound{BypassMark, "wan0", ""}, "198.18.100.9:7443", "cloud 198.18.2.2"},
				{"second by interface", bound{BypassMark, "wan1", ""}, "198.18.100.9:7443", "cloud 198.18.3.2"},
				{"second by address", bound{BypassMark, "", "198.18.3.2"}, "198.18.100.9:7443", "cloud 198.18.3.2"},
				{"IPv6 by interface", bound{BypassMark, "wan1", ""}, "[fd00:64::9]:7443", "cloud fd00:3::2"},
				{"IPv6 by address", bound{BypassMark, "", "fd00:3::2"}, "[fd00:64::9]:7443", "cloud fd00:3::2"},
				{"unbound", bound{mark: BypassMark}, "198.18.100.9:7443", "cloud 198.18.2.2"},
			}
			// The server does not answer an ARP request in the name of a source that it
			// reaches another way: whoever waits for the gateway's address together
			// with such a one, below, would be told that there is no host.
			if !w.ping(here, "198.18.2.1") {
				t.Fatal("the gateway does not answer")
			}
			w.patience = impatient
			for _, l := range links[1:5] {
				w.asks(l.name+" before", here, l.b, l.addr, nobody)
			}
			h, err := install(w.plan, quiet, k.variant)
			must(t, err)
			defer h.Close()
			w.patience = patient
			for _, l := range links {
				w.asks(l.name, here, l.b, l.addr, l.want)
			}
			// Sockets of others do not use the links' tables.
			w.patience = impatient
			w.asks("no mark", here, bound{device: "wan1"}, "198.18.100.8:7443", nobody)
		})
	}
}

func TestGatewayOutsideTheSubnet(t *testing.T) {
	w := newWorld(t)
	w.in(w.server, "ip addr add 198.18.7.1/32 dev s1")
	w.strictServer()
	w.plan.Links[1].Gateway = netip.MustParseAddr("198.18.7.1")
	w.install(w.plan)
	w.asks("second", here, bound{BypassMark, "wan1", ""}, "198.18.100.9:7443", "cloud 198.18.3.2")
}

// TestWatch: the kernel forgets the routes of an interface that goes down.
func TestWatch(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	w.strictServer()
	w.run("ip link set wan1 down")
	eventually(t, "the interface being down", func() bool { return strings.Contains(output(t, "ip link show wan1"), "state DOWN") })
	before := w.snapshot()
	h := w.install(w.plan)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Watch(ctx, nil) }()
	up := func() {
		t.Helper()
		w.run("ip link set wan1 up", "ip addr replace fd00:3::2/64 dev wan1 nodad", "ip addr replace 198.18.3.9/24 dev wan1")
		eventually(t, "the route of the uplink", func() bool {
			routes := output(t, "ip route show table 26745; ip -6 route show table 26746; ip rule")
			return strings.Contains(routes, "default via 198.18.3.1 dev wan1") && strings.Contains(routes, "default via fd00:3::1 dev wan1") &&
				strings.Contains(routes, "from 198.18.3.9")
		})
		w.asks("second", here, bound{BypassMark, "wan1", ""}, "198.18.100.9:7443", "cloud 198.18.3.2")
		w.asks("second by new address", here, bound{BypassMark, "", "198.18.3.9"}, "198.18.100.9:7443", "cloud 198.18.3.9")
	}
	up()
	w.run("ip link set wan1 down")
	if routes := output(t, "ip route show table 26745"); routes != "" {
		t.Errorf("the kernel keeps routes now: %s", routes)
	}
	up()
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(patient):
		t.Fatal("Watch does not end with its context")
	}
	must(t, h.Close())
	w.run("ip addr del 198.18.3.9/24 dev wan1", "ip link set wan1 down")
	w.unchanged(before, "after Close")
	if err := h.Watch(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("Watch of a closed host: %v", err)
	}
}

// TestUplinkTroubleIsToldOnce: DHCP and router advertisements renew addresses all the time, each
// of which has all uplinks looked at again.
func TestUplinkTroubleIsToldOnce(t *testing.T) {
	w := newWorld(t)
	w.plan.Links = w.plan.Links[:2]
	var log bytes.Buffer
	h, err := Install(w.plan, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	defer h.Close()
	gateway := func(addr string) func() {
		return func() { h.plan.Links[1].Gateway = netip.MustParseAddr(addr) }
	}
	for _, trouble := range []struct {
		says         string
		begins, ends func()
	}{
		{"uplink is down", func() { w.run("ip link set wan1 down") }, func() { w.run("ip link set wan1 up") }},
		{"uplink has no route now", gateway("224.0.0.1"), gateway("198.18.3.1")},
	} {
		for times := 1; times <= 2; times++ {
			trouble.begins()
			for range 3 {
				h.refresh("")
			}
			if said := strings.Count(log.String(), trouble.says); said != times {
				t.Errorf("%s is said %d times, the %d. time that it is so:\n%s", trouble.says, said, times, &log)
			}
			trouble.ends()
			h.refresh("")
		}
	}
}

// TestRoutesOfOthers: a link is told of routes that leave by its own interface, and not
// of those of another uplink, which may come and go every few seconds.
func TestRoutesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: enters a network namespace")
	}
	home, err := nsh.Get()
	must(t, err)
	defer home.Close()
	const lo = 1
	cloud := netip.MustParseAddrPort("198.18.100.9:7443")
	h := &Host{home: home, plan: Plan{Links: []LinkRoute{{Interface: "lo", Cloud: cloud}, {Interface: "absent0", Cloud: cloud}}}}
	by := func(index int) *netlink.NexthopInfo { return &netlink.NexthopInfo{LinkIndex: index} }
	for _, c := range []struct {
		what  string
		route netlink.Route
		want  []int
	}{
		{"its own", netlink.Route{LinkIndex: lo}, []int{0}},
		{"another's", netlink.Route{LinkIndex: 1 << 20}, nil},
		{"one of several", netlink.Route{MultiPath: []*netlink.NexthopInfo{by(1 << 20), by(lo)}}, []int{0}},
		{"others'", netlink.Route{MultiPath: []*netlink.NexthopInfo{by(1 << 20), by(1<<20 + 1)}}, nil},
		{"to nowhere", netlink.Route{Type: unix.RTN_UNREACHABLE}, []int{0, 1}},
		{"ours", netlink.Route{LinkIndex: lo, Protocol: routeTag}, nil},
	} {
		var told []int
		h.reportRoute(c.route, func(e UplinkEvent) {
			if told = append(told, e.Link); !e.Rerouted {
				t.Errorf("%s: %+v", c.what, e)
			}
		})
		if !slices.Equal(told, c.want) {
			t.Errorf("%s: links %v are told, want %v", c.what, told, c.want)
		}
	}
}

// TestLeavesBy: an uplink leaves to an IPv4 cloud by IPv6 only where it has no IPv4: neither
// an address nor a route for which it borrows one.
func TestLeavesBy(t *testing.T) {
	w := newWorld(t)
	four, six := []netip.Addr{netip.MustParseAddr("198.18.2.2")}, []netip.Addr{netip.MustParseAddr("fd00:2::2")}
	l := w.plan.Links[0]
	says := func(when string, l LinkRoute, is4, is6 bool, has, beside []netip.Addr) {
		t.Helper()
		if s := uplinkState(l); s.Four != is4 || s.Six != is6 || !slices.Equal(s.Addrs, has) || !slices.Equal(s.Beside, beside) {
			t.Errorf("%s: %+v", when, s)
		}
		if bare := Bare(l); bare != (len(has)+len(beside) == 0 && l.Interface != "absent0") {
			t.Errorf("%s: bare %v", when, bare)
		}
		if a, b := Versions(l); a != is4 || b != is6 {
			t.Errorf("%s: versions %v, %v", when, a, b)
		}
	}
	named := LinkRoute{Name: "wifi", Interface: l.Interface, Named: true}
	sixth := LinkRoute{Name: "wifi", Interface: l.Interface, Cloud: netip.MustParseAddrPort("[fd00:64::9]:7443")}
	router := l
	router.Gateway = netip.MustParseAddr("fd00:2::1")
	says("both", l, true, false, four, six)
	says("both, by name", named, true, true, slices.Concat(four, six), nil)
	says("both, IPv6 cloud", sixth, false, true, six, nil)
	says("both, IPv6 gateway", router, false, true, six, nil)
	w.run("ip addr flush dev wan0 scope global && ip addr add 198.18.2.2/24 dev wan0")
	says("IPv4", l, true, false, four, nil)
	says("IPv4, by name", named, true, false, four, nil)
	w.run("ip addr flush dev wan0 scope global && ip addr add fd00:2::2/64 dev wan0 nodad")
	says("IPv6", l, false, true, six, nil)
	says("IPv6, by name", named, false, true, six, nil)
	w.run("ip route add 198.18.100.9/32 dev wan0")
	says("IPv6, and a route", l, true, false, nil, six)
	w.run("ip route del 198.18.100.9/32 dev wan0", "ip route add 198.18.100.9/32 via 198.18.3.1")
	says("IPv6, and a route by another", l, false, true, six, nil)
	w.run("ip addr flush dev wan0 scope global")
	says("none", l, true, false, nil, nil)
	says("none, by name", named, true, true, nil, nil)
	l.Interface = "absent0"
	says("no interface", l, true, false, nil, nil)
}

// TestTranslatedRoutes: an uplink with IPv6 alone is told of IPv6 routes that lead to an IPv4
// cloud by NAT64, and one with IPv4 is not.
func TestTranslatedRoutes(t *testing.T) {
	w := newWorld(t)
	home, err := nsh.Get()
	must(t, err)
	defer home.Close()
	h := &Host{home: home, plan: w.plan}
	device, err := netlink.LinkByName("wan0")
	must(t, err)
	told := func(dst string, gateway net.IP) (told []int) {
		_, to, err := net.ParseCIDR(dst)
		must(t, err)
		r := netlink.Route{Family: netlink.FAMILY_V6, Dst: to, Gw: gateway, LinkIndex: device.Attrs().Index}
		h.reportRoute(r, func(e UplinkEvent) { told = append(told, e.Link) })
		return told
	}
	router := net.ParseIP("fe80::1")
	if a, b := told("::/0", router), told("64:ff9b::/96", router); len(a) > 0 || len(b) > 0 {
		t.Errorf("with IPv4: %v, %v are told", a, b)
	}
	w.run("ip -4 addr flush dev wan0")
	first := []int{0}
	if a, b, c := told("::/0", nil), told("64:ff9b::/96", router), told("fd00:2::/64", nil); !slices.Equal(a, first) || !slices.Equal(b, first) || len(c) > 0 {
		t.Errorf("with IPv6 alone: %v, %v, %v are told", a, b, c)
	}
}

// TestFormerAddresses: an uplink that gets another address every few minutes has
// rules, and entries in the journal, for those that it has.
func TestFormerAddresses(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	before := w.snapshot()
	h := w.install(w.plan)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Watch(ctx, nil) }()
	journal := func() string {
		data, err := os.ReadFile(journalPath(w.plan.RunDir, w.plan.Namespace))
		must(t, err)
		return string(data)
	}
	only := func(address string) {
		eventually(t, "the rule of "+address+" alone", func() bool {
			rules := output(t, "ip rule")
			return strings.Count(rules, "from 198.18.3.") == 1 && strings.Contains(rules, "from "+address+" ") &&
				strings.Count(journal(), `"from":"198.18.3.`) == 1
		})
	}
	only("198.18.3.2")
	last := "198.18.3.2"
	for _, next := range []string{"198.18.3.20", "198.18.3.21", "198.18.3.2"} {
		w.run("ip addr del "+last+"/24 dev wan1", "ip addr add "+next+"/24 dev wan1")
		last = next
		only(next)
	}
	cancel()
	must(t, <-ended)
	if n := strings.Count(journal(), "\n"); n != len(h.journal.entries)+1 {
		t.Errorf("%d lines in the journal of %d entries", n, len(h.journal.entries))
	}
	must(t, h.Close())
	w.unchanged(before, "after Close")
}
