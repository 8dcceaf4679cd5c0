package netns

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bigTCP is the longest packet that is not BIG TCP, in bytes: receive slots of
// the stack are not longer.
const bigTCP = 65536

const (
	carrierWait = 5 * time.Second
	carrierPoll = 5 * time.Millisecond
)

// markSpace puts our sign on the lo of the thread's namespace.
func markSpace() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetAlias(lo, spaceAlias)
}

// hubs makes the namespace and the veth pair.
func (b *builder) hubs() error {
	h, n := b.host, b.names
	b.add(step{
		what: "network namespace " + n.space,
		undo: []entry{{Do: undoSpace, Name: n.space}},
		do: func() (err error) {
			if err = createSpace(n.space); err == nil {
				h.space, err = nsh.GetFromName(n.space)
			}
			return err
		},
	}, step{
		what: fmt.Sprintf("interfaces %s and %s", hubHost, hubInner),
		undo: []entry{{Do: undoLink, Name: hubHost, MAC: n.hostMAC().String()}},
		do:   func() error { return createHubs(n, h.space) },
	}, step{
		what: "settings of namespace " + n.space,
		do:   func() error { return inside(h.space, b.furnishSpace) },
	}, step{
		what: "settings of interface " + hubHost,
		do:   b.furnishHost,
	})
	return nil
}

func createHubs(n names, space nsh.NsHandle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = hubHost, hubMTU, n.hostMAC()
	return netlink.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         hubInner,
		PeerHardwareAddr: n.hubMAC(),
		PeerMTU:          hubMTU,
		PeerNamespace:    netlink.NsFd(int(space)),
	})
}

// furnishSpace makes the namespace mute: the stack is the only speaker on hub1.
// IPv6 is off there, which the raw sockets do not notice.
func (b *builder) furnishSpace() error {
	if err := applySettings(4, "all", []setting{{"forwarding", "0"}}); err != nil {
		return err
	}
	if err := applySettings(6, "all", []setting{{"forwarding", "0"}}); err != nil {
		return err
	}
	quiet := []setting{{"disable_ipv6", "1"}, {"accept_ra", "0"}, {"accept_dad", "0"}, {"addr_gen_mode", "1"}}
	if err := applySettings(6, hubInner, quiet); err != nil {
		return err
	}
	for _, fw := range b.families {
		if err := fw.Append("raw", "PREROUTING", words("-i "+hubInner+" -p tcp -j DROP")...); err != nil {
			return oneLine(err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	hub, err := netlink.LinkByName(hubInner)
	if err != nil {
		return err
	}
	b.host.hub.Index = hub.Attrs().Index
	if err := netlink.LinkSetARPOff(hub); err != nil {
		return err
	}
	if err := limitPackets(hub); err != nil {
		return err
	}
	return netlink.LinkSetUp(hub)
}

// furnishHost gives hub0 its addresses and tells it where the stack is: nobody
// answers ARP or neighbour solicitations on hub1.
func (b *builder) furnishHost() error {
	hub, err := netlink.LinkByName(hubHost)
	if err != nil {
		return err
	}
	if err := b.furnishSettings(); err != nil {
		return err
	}
	if err := limitPackets(hub); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(hub); err != nil {
		return err
	}
	info := &b.host.hub
	info.HostMAC, info.HubMAC, info.MTU = b.names.hostMAC(), b.names.hubMAC(), hubMTU
	for _, fw := range b.families {
		p := b.names.v4()
		if fw.family == 6 {
			p = b.names.v6()
			info.Host6, info.Hub6 = p.host.Addr(), p.hub.Addr()
		} else {
			info.Host4, info.Hub4 = p.host.Addr(), p.hub.Addr()
		}
		if err := addressHub(hub, p, b.names.hubMAC()); err != nil {
			return err
		}
	}
	if err := awaitCarrier(hubHost); err != nil {
		return err
	}
	return inside(b.host.space, func() error { return awaitCarrier(hubInner) })
}

// awaitCarrier waits until an interface can send. The kernel's link watch does
// that in the background, on a busy machine up to a second later, and frames
// sent before are lost.
func awaitCarrier(device string) error {
	for end := time.Now().Add(carrierWait); ; time.Sleep(carrierPoll) {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("interface %s has no carrier after %v", device, carrierWait)
		}
	}
}

func (b *builder) furnishSettings() error {
	// The kernel uses the greater of all's and hub0's rp_filter. Answers arrive
	// with the servers' addresses, whose routes do not point to hub0.
	filter := "2"
	if all, err := readSysctl(confPath(4, "all", "rp_filter")); err == nil && all == "0" {
		filter = "0"
	}
	v4 := []setting{{"forwarding", "1"}, {"rp_filter", filter}, {"send_redirects", "0"}, {"accept_redirects", "0"}}
	if err := applySettings(4, hubHost, v4); err != nil {
		return err
	}
	v6 := []setting{{"accept_ra", "0"}, {"autoconf", "0"}, {"accept_dad", "0"}, {"addr_gen_mode", "1"},
		{"router_solicitations", "0"}, {"accept_redirects", "0"}, {"force_forwarding", "1"}}
	if len(b.families) == 1 {
		v6 = []setting{{"disable_ipv6", "1"}}
	} else {
		v6 = append(v6, setting{"disable_ipv6", "0"})
	}
	return applySettings(6, hubHost, v6)
}

func addressHub(hub netlink.Link, p hubPrefixes, mac net.HardwareAddr) error {
	addr := &netlink.Addr{IPNet: prefixNet(p.host)}
	family := netlink.FAMILY_V4
	if p.host.Addr().Is6() {
		family, addr.Flags = netlink.FAMILY_V6, unix.IFA_F_NODAD
	}
	if err := netlink.AddrReplace(hub, addr); err != nil {
		return fmt.Errorf("address %s: %w", p.host, err)
	}
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex:    hub.Attrs().Index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           p.hub.Addr().AsSlice(),
		HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", p.hub.Addr(), err)
	}
	return nil
}

// hub gives hub0 back what it needs to reach the stack. The caller holds the host's mutex.
func (k *keeper) hub() (done []string, err error) {
	h := k.host
	if h.plan.Intercept == InterceptTPROXY {
		return nil, nil
	}
	hub, err := netlink.LinkByName(hubHost)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", hubHost, plainLinkError(err))
	}
	// The stack's frames go to the address that hub0 was made with. It forgets its neighbours
	// when it gets another one.
	mac := h.names.hostMAC()
	if !bytes.Equal(hub.Attrs().HardwareAddr, mac) && hub.Attrs().ParentIndex == h.hub.Index {
		if err := netlink.LinkSetHardwareAddr(hub, mac); err != nil {
			return nil, fmt.Errorf("interface %s: %w", hubHost, err)
		}
		done = append(done, fmt.Sprintf("hardware address %s of %s", mac, hubHost))
	}
	if hub.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(hub); err != nil {
			return done, fmt.Errorf("interface %s: %w", hubHost, err)
		}
		done = append(done, "interface "+hubHost+" up")
	}
	for _, fw := range h.walls {
		p := h.names.v4()
		if fw.family == 6 {
			p = h.names.v6()
		}
		if fw.family == 6 && ipv6Off(hubHost) || hubAddressed(hub, p) {
			continue
		}
		if err := addressHub(hub, p, h.names.hubMAC()); err != nil {
			return done, err
		}
		done = append(done, fmt.Sprintf("address %s of %s", p.host, hubHost))
	}
	return done, nil
}

// hubAddressed tells whether hub0 has what addressHub gives it; also where that cannot be said.
func hubAddressed(hub netlink.Link, p hubPrefixes) bool {
	family := netlinkFamily(familyOf(p.host.Addr()))
	addresses, err := listAddrs(hub, family)
	if err == nil && !slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.Equal(p.host.Addr().AsSlice()) }) {
		return false
	}
	neighbours, err := listNeighbours(hub.Attrs().Index, family)
	return err != nil || slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
		return n.State&netlink.NUD_PERMANENT != 0 && n.IP.Equal(p.hub.Addr().AsSlice())
	})
}

// ipv6Off says that IPv6 is switched off on an interface: no address or route can be there.
func ipv6Off(device string) bool {
	off, err := readSysctl(confPath(6, device, "disable_ipv6"))
	return err != nil || off == "1"
}

func maskOf(p netip.Prefix) net.IPMask {
	return net.CIDRMask(p.Bits(), p.Addr().BitLen())
}

// limitPackets keeps BIG TCP off. Kernels without BIG TCP report zero.
func limitPackets(l netlink.Link) error {
	a := l.Attrs()
	for _, limit := range []struct {
		now uint32
		set func(netlink.Link, int) error
	}{
		{a.GSOMaxSize, netlink.LinkSetGSOMaxSize},
		{a.GROMaxSize, netlink.LinkSetGROMaxSize},
		{a.GSOIPv4MaxSize, netlink.LinkSetGSOIPv4MaxSize},
		{a.GROIPv4MaxSize, netlink.LinkSetGROIPv4MaxSize},
	} {
		if limit.now <= bigTCP {
			continue
		}
		if err := limit.set(l, bigTCP); err != nil {
			return fmt.Errorf("limit packets of %s to %d bytes: %w", a.Name, bigTCP, err)
		}
	}
	return nil
}
