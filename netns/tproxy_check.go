package netns

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// checkBridges refuses client interfaces where TPROXY has no effect: when
// br_netfilter passes bridged frames through iptables, that is before the IP
// layer takes the packet from the bridge and drops the socket it was given.
// (The setting of a single bridge, nf_call_iptables, is not looked at.)
func checkBridges(p Plan) error {
	for _, name := range p.Clients {
		l, err := netlink.LinkByName(name)
		if err != nil || l.Type() != "bridge" {
			continue
		}
		for _, tables := range []string{"iptables", "ip6tables"} {
			path := "net/bridge/bridge-nf-call-" + tables
			if v, err := readSysctl(path); err == nil && v != "0" {
				return fmt.Errorf("steer.intercept: tproxy cannot take connections from bridge %s while /proc/sys/%s is %s: %s", name, path, v, bridgeRemedy)
			}
		}
	}
	return nil
}

const bridgeRemedy = "use steer.intercept: hub, or set it to 0 if nothing filters bridged frames (Docker may)"

// trySockets opens transparent sockets and puts the plan's chains for them into
// the empty namespace.
func (c *checker) trySockets(p Plan, families []int) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		c.fail("use a kernel with CONFIG_NET_NS", "interface lo of a new namespace: %v", err)
		return
	}
	for _, family := range families {
		if err := tryTransparent(family); err != nil {
			c.fail(tproxyRemedy, "transparent sockets for IPv%d: %v", family, err)
			continue
		}
		if err := tryTaking(p, family); err != nil {
			c.fail(tproxyRemedy, "%s: %v", commandOf(family), err)
			continue
		}
		c.ok("%s: TPROXY and socket match, transparent sockets, tables filter and mangle with all matches that are needed", commandOf(family))
	}
}

const tproxyRemedy = "load the modules xt_TPROXY and xt_socket or use a kernel that has them (CONFIG_NETFILTER_XT_TARGET_TPROXY, CONFIG_NETFILTER_XT_MATCH_SOCKET), or set steer.intercept: hub"

func tryTransparent(family int) error {
	domain, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if family == 6 {
		domain, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, level, option, 1)
}

func tryTaking(p Plan, family int) error {
	fw, err := openFirewall(family, "")
	if err != nil {
		return err
	}
	b := &builder{plan: p, names: namesOf(p.Role, p.Namespace), families: []*firewall{fw}}
	b.plan.Sockets = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("[::1]:1")}
	for _, part := range []func() error{b.claim, b.admission, b.taking} {
		if err := part(); err != nil {
			return err
		}
	}
	for _, s := range b.steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}
