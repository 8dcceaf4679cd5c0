package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hawser/e2e/emu"
)

// families returns the IP versions that the lab uses.
func (l *Lab) families() []Family {
	if l.spec.IPv6 {
		return []Family{IPv4, IPv6}
	}
	return []Family{IPv4}
}

// prepareKernel sets what must be set before the first interface exists.
func (l *Lab) prepareKernel(n *node) error {
	set := map[string]string{
		// Uplinks share destinations: replies come in where no route points back.
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",
	}
	routes := n.name == cloudNode || strings.HasPrefix(n.name, edgeNode)
	if routes {
		set["net/ipv4/ip_forward"] = "1"
	}
	for _, scope := range []string{"all", "default"} {
		base := "net/ipv6/conf/" + scope + "/"
		switch {
		case n.name == emuNode || !l.spec.IPv6:
			// The emulator's interfaces carry other hosts' frames and no talk of their own.
			set[base+"disable_ipv6"] = "1"
		case routes:
			set[base+"forwarding"] = "1"
			fallthrough
		default:
			// Addresses are usable at once, and nobody waits for routers.
			set[base+"accept_dad"] = "0"
			set[base+"dad_transmits"] = "0"
			set[base+"accept_ra"] = "0"
		}
	}
	for key, value := range set {
		if err := n.sysctl(key, value); err != nil {
			return fmt.Errorf("sysctl on %s: %w", n.name, err)
		}
	}
	return nil
}

// end names one end of a cable.
type end struct {
	node *node
	name string
}

// cable makes a veth pair and sets both ends up.
func cable(a, b end, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a.name, mtu
	attrs.Namespace = netlink.NsFd(a.node.ns)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.name, PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(b.node.ns)}
	if err := a.node.net.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s-%s: %w", a.name, b.name, err)
	}
	return errors.Join(a.up(), b.up())
}

func (e end) up() error {
	link, err := e.node.net.LinkByName(e.name)
	if err == nil {
		err = e.node.net.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("%s on %s: %w", e.name, e.node.name, err)
	}
	return nil
}

// address gives the end an address in its subnet.
func (e end) address(p netip.Prefix) error {
	link, err := e.node.net.LinkByName(e.name)
	if err == nil {
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		err = e.node.net.AddrAdd(link, addr)
	}
	if err != nil {
		return fmt.Errorf("address %v on %s of %s: %w", p, e.name, e.node.name, err)
	}
	return nil
}

// route sends a destination through a gateway on the node; a previous route to it goes.
func (n *node) route(to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}
	if to.Addr().Is6() {
		r.Family = unix.AF_INET6
	}
	if err := n.net.RouteReplace(r); err != nil {
		return fmt.Errorf("route %v via %v on %s: %w", to, via, n.name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func anywhere(f Family) netip.Prefix {
	return netip.PrefixFrom(pick(f, "0.0.0.0", "::"), 0)
}

// wireLAN connects the clients to the first edge, by one cable or through a bridge, and the
// other edges' to theirs.
func (l *Lab) wireLAN() error {
	edge := l.must(edgeNode)
	lan := end{edge, LAN}
	if l.spec.Clients > 1 {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = LAN
		if err := edge.net.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("bridge %s: %w", LAN, err)
		}
		// As on a host where nobody has loaded br_netfilter: frames cross the
		// bridge without a detour through iptables.
		for _, tables := range []string{"iptables", "ip6tables", "arptables"} {
			err := edge.sysctl("net/bridge/bridge-nf-call-"+tables, "0")
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("bridge %s: %w", LAN, err)
			}
		}
		if err := lan.up(); err != nil {
			return err
		}
	}
	for i := 1; i <= l.spec.Clients; i++ {
		if err := l.wireClient(i); err != nil {
			return err
		}
	}
	for k := 2; k <= l.spec.Edges; k++ {
		if err := l.wireGuest(k); err != nil {
			return err
		}
	}
	return l.each(func(f Family) error { return lan.address(subnet(lanAddr(f, 1, 1))) })
}

// wireGuest connects the client of an edge after the first.
func (l *Lab) wireGuest(k int) error {
	lan, guest := end{l.must(edgeName(k)), LAN}, end{l.must(guestName(k)), "eth0"}
	if err := cable(lan, guest, 1500); err != nil {
		return err
	}
	return l.each(func(f Family) error {
		return errors.Join(
			lan.address(subnet(lanAddr(f, k, 1))),
			guest.address(subnet(lanAddr(f, k, 11))),
			guest.node.route(anywhere(f), lanAddr(f, k, 1)),
		)
	})
}

func (l *Lab) wireClient(i int) error {
	edge := l.must(edgeNode)
	client := end{l.must(clientNode + strconv.Itoa(i)), "eth0"}
	port := end{edge, LAN}
	if l.spec.Clients > 1 {
		port.name = "c" + strconv.Itoa(i)
	}
	var err error
	if l.spec.LAN != nil {
		err = l.throughEmulator(client, port, lanName, 1500)
	} else {
		err = cable(port, client, 1500)
	}
	if err != nil {
		return err
	}
	if l.spec.Clients > 1 {
		if err := joinBridge(port); err != nil {
			return err
		}
	}
	return l.each(func(f Family) error {
		if err := client.address(subnet(lanAddr(f, 1, 10+i))); err != nil {
			return err
		}
		return client.node.route(anywhere(f), lanAddr(f, 1, 1))
	})
}

func joinBridge(port end) error {
	bridge, err := port.node.net.LinkByName(LAN)
	if err != nil {
		return err
	}
	link, err := port.node.net.LinkByName(port.name)
	if err != nil {
		return err
	}
	return port.node.net.LinkSetMaster(link, bridge)
}

// wireOrigin connects the origin to the cloud and gives the cloud its public address.
func (l *Lab) wireOrigin() error {
	cloud, origin := l.must(cloudNode), l.must(originNode)
	wan, eth := end{cloud, "wan0"}, end{origin, "eth0"}
	if err := cable(wan, eth, 1500); err != nil {
		return err
	}
	return l.each(func(f Family) error {
		public := cloudAddr(f)
		return errors.Join(
			wan.address(subnet(originAddr(f, 1))),
			eth.address(subnet(originAddr(f, 2))),
			end{cloud, "lo"}.address(netip.PrefixFrom(public, public.BitLen())),
			origin.route(anywhere(f), originAddr(f, 1)),
		)
	})
}

// wireUplink connects an edge and the cloud, through the emulator unless unshaped.
func (l *Lab) wireUplink(i int) error {
	u := l.spec.Uplinks[i-1]
	up, dn := end{l.must(edgeName(u.edge())), upName(i)}, end{l.must(cloudNode), dnName(i)}
	if u.Unshaped {
		if err := cable(up, dn, u.mtu()); err != nil {
			return err
		}
	} else if err := l.wireThroughEmulator(up, dn, i); err != nil {
		return err
	}
	return l.each(func(f Family) error {
		return errors.Join(up.address(subnet(uplinkAddr(f, i, 1))), dn.address(subnet(uplinkAddr(f, i, 2))))
	})
}

func (l *Lab) wireThroughEmulator(up, dn end, i int) error {
	return l.throughEmulator(up, dn, strconv.Itoa(i), l.spec.Uplinks[i-1].mtu())
}

// throughEmulator connects two ends by way of the emulator's interfaces a and b,
// which are told apart by a suffix.
func (l *Lab) throughEmulator(up, dn end, suffix string, mtu int) error {
	n := l.must(emuNode)
	a, b := end{n, "a" + suffix}, end{n, "b" + suffix}
	if err := errors.Join(cable(up, a, mtu), cable(dn, b, mtu)); err != nil {
		return err
	}
	for _, e := range []end{up, dn} {
		if err := inside(e.node.ns, func() error { return emu.DisableOffloads(e.name) }); err != nil {
			return err
		}
	}
	return nil
}

// each runs fn for every family of the lab.
func (l *Lab) each(fn func(Family) error) error {
	for _, f := range l.families() {
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

// Direct makes an uplink the one that direct traffic takes, both ways: its edge's
// default route and the cloud's route to the clients. New chooses each edge's first uplink.
func (l *Lab) Direct(uplink string) error {
	i := l.index(uplink)
	if i == 0 {
		return l.noUplink(uplink)
	}
	k := l.spec.Uplinks[i-1].edge()
	edge, cloud := l.must(edgeName(k)), l.must(cloudNode)
	return l.each(func(f Family) error {
		return errors.Join(
			edge.route(anywhere(f), uplinkAddr(f, i, 2)),
			cloud.route(subnet(lanAddr(f, k, 0)).Masked(), uplinkAddr(f, i, 1)),
		)
	})
}
