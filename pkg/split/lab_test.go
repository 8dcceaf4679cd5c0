package split

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hawser/pkg/shunt"
)

// Addresses of the lab. 198.18.200.0/24 and fd00:c8::/64 exist nowhere: only
// the split answers for them.
const (
	hub0MAC = "02:00:00:00:03:01"
	hub1MAC = "02:00:00:00:03:02"
)

var (
	hub4 = netip.MustParseAddr("198.18.3.2")
	hub6 = netip.MustParseAddr("fd00:3::2")
)

// ample is the patience for what must happen, however busy the machine is: under the race
// detector, with a twentieth of a processor, many connections take more than three minutes.
const ample = 8 * time.Minute

// lab is client - host - server, with the hub beside the host:
//
//	client lan-c --- lan0 host wan0 --- srv0 server
//	                      hub0 --- hub1 hub
//
// TCP from the client is routed to the hub by policy; everything that the
// split sends is forwarded normally.
type lab struct {
	t                         testing.TB
	client, host, hub, server netns.NsHandle
	hub1                      int          // index of the interface
	shunt                     *shunt.Shunt // on hub0, if any
	carrier                   *shunt.Worker
}

// newLab builds the lab; steer says whether client TCP goes to the hub.
func newLab(t testing.TB, steer bool) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and packet sockets")
	}
	l := &lab{t: t}
	for _, ns := range []*netns.NsHandle{&l.client, &l.host, &l.hub, &l.server} {
		*ns = newNamespace(t)
		// Without this link-local addresses are unusable for a second or two.
		l.sysctl(*ns, map[string]string{"net/ipv6/conf/default/accept_dad": "0", "net/ipv6/conf/default/dad_transmits": "0"})
	}
	l.pair(l.client, "lan-c", l.host, "lan0")
	l.pair(l.server, "srv0", l.host, "wan0")
	l.pair(l.hub, "hub1", l.host, "hub0")
	l.setMAC(l.hub, "hub1", hub1MAC)
	l.setMAC(l.host, "hub0", hub0MAC)
	for _, a := range []struct {
		ns        netns.NsHandle
		dev, addr string
	}{
		{l.client, "lan-c", "198.18.1.2/24"}, {l.client, "lan-c", "fd00:1::2/64"},
		{l.host, "lan0", "198.18.1.1/24"}, {l.host, "lan0", "fd00:1::1/64"},
		{l.server, "srv0", "198.18.2.2/24"}, {l.server, "srv0", "fd00:2::2/64"},
		{l.host, "wan0", "198.18.2.1/24"}, {l.host, "wan0", "fd00:2::1/64"},
		{l.host, "hub0", "198.18.3.1/30"}, {l.host, "hub0", "fd00:3::1/126"},
	} {
		l.addr(a.ns, a.dev, a.addr)
	}
	for _, ns := range []netns.NsHandle{l.client, l.host, l.hub, l.server} {
		l.up(ns)
	}
	l.defaults()
	l.sysctls()
	l.neighbour()
	if steer {
		l.steer()
	}
	return l
}

// newNamespace returns a fresh namespace that ends with the test.
func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := netns.Get()
	must(t, err)
	defer old.Close()
	ns, err := netns.New()
	must(t, err)
	must(t, netns.Set(old))
	t.Cleanup(func() { ns.Close() })
	return ns
}

// in runs fn on a thread inside ns.
func in(t testing.TB, ns netns.NsHandle, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	must(t, err)
	must(t, netns.Set(ns))
	defer func() {
		must(t, netns.Set(old))
		old.Close()
		runtime.UnlockOSThread()
	}()
	fn()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// with calls fn with a netlink handle of ns.
func (l *lab) with(ns netns.NsHandle, fn func(h *netlink.Handle) error) {
	l.t.Helper()
	h, err := netlink.NewHandleAt(ns)
	must(l.t, err)
	defer h.Close()
	must(l.t, fn(h))
}

// pair makes a veth pair between two namespaces.
func (l *lab) pair(a netns.NsHandle, an string, b netns.NsHandle, bn string) {
	l.t.Helper()
	l.with(a, func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: an, MTU: 1500},
			PeerName:      bn,
			PeerNamespace: netlink.NsFd(b),
		})
	})
}

func (l *lab) setMAC(ns netns.NsHandle, dev, mac string) {
	l.t.Helper()
	hw, err := net.ParseMAC(mac)
	must(l.t, err)
	l.with(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		if dev == "hub1" {
			l.hub1 = link.Attrs().Index
		}
		return h.LinkSetHardwareAddr(link, hw)
	})
}

func (l *lab) addr(ns netns.NsHandle, dev, addr string) {
	l.t.Helper()
	l.with(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return h.AddrAdd(link, a)
	})
}

// up brings all interfaces of ns up.
func (l *lab) up(ns netns.NsHandle) {
	l.t.Helper()
	l.with(ns, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			if err := h.LinkSetUp(link); err != nil {
				return err
			}
		}
		return nil
	})
}

// route adds a route; via may be empty.
func (l *lab) route(ns netns.NsHandle, r netlink.Route, dst, via, dev string) {
	l.t.Helper()
	l.with(ns, func(h *netlink.Handle) error {
		_, n, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		r.Dst, r.Gw = n, net.ParseIP(via)
		if dev != "" {
			link, err := h.LinkByName(dev)
			if err != nil {
				return err
			}
			r.LinkIndex = link.Attrs().Index
		}
		return h.RouteAdd(&r)
	})
}

func (l *lab) defaults() {
	l.t.Helper()
	l.route(l.client, netlink.Route{}, "0.0.0.0/0", "198.18.1.1", "lan-c")
	l.route(l.client, netlink.Route{}, "::/0", "fd00:1::1", "lan-c")
	l.route(l.server, netlink.Route{}, "0.0.0.0/0", "198.18.2.1", "srv0")
	l.route(l.server, netlink.Route{}, "::/0", "fd00:2::1", "srv0")
}

// sysctl writes values of ns.
func (l *lab) sysctl(ns netns.NsHandle, values map[string]string) {
	l.t.Helper()
	in(l.t, ns, func() {
		for k, v := range values {
			must(l.t, os.WriteFile("/proc/sys/"+k, []byte(v), 0o644))
		}
	})
}

// sysctls turns forwarding on and reverse path filters off.
func (l *lab) sysctls() {
	l.t.Helper()
	l.sysctl(l.host, map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/hub0/rp_filter": "0", "net/ipv4/conf/lan0/rp_filter": "0",
		"net/ipv4/conf/wan0/rp_filter": "0", "net/ipv4/conf/all/send_redirects": "0", "net/ipv4/conf/hub0/send_redirects": "0",
	})
}

// neighbour tells the host hub1's MAC: nobody answers ARP or NDP there.
func (l *lab) neighbour() {
	l.t.Helper()
	hw, err := net.ParseMAC(hub1MAC)
	must(l.t, err)
	l.with(l.host, func(h *netlink.Handle) error {
		link, err := h.LinkByName("hub0")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{hub4, hub6} {
			n := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: hw}
			if err := h.NeighSet(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// steer routes TCP from the client to the hub. (The product marks packets
// with iptables; the route that they take is the same.)
func (l *lab) steer() {
	l.t.Helper()
	l.route(l.host, netlink.Route{Table: 100}, "0.0.0.0/0", hub4.String(), "hub0")
	l.route(l.host, netlink.Route{Table: 100}, "::/0", hub6.String(), "hub0")
	l.with(l.host, func(h *netlink.Handle) error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			r := netlink.NewRule()
			r.Family, r.IifName, r.IPProto, r.Table, r.Priority = family, "lan0", unix.IPPROTO_TCP, 100, 100
			if err := h.RuleAdd(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// offloads switches segmentation, checksum and receive offload of dev.
func (l *lab) offloads(ns netns.NsHandle, dev string, on bool) {
	l.t.Helper()
	in(l.t, ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		must(l.t, err)
		defer unix.Close(fd)
		value := uint32(0)
		if on {
			value = 1
		}
		// ETHTOOL_STSO, _SGSO, _SGRO, _STXCSUM (the last one last: the
		// others depend on it).
		for _, cmd := range []uint32{0x1f, 0x24, 0x2c, 0x17} {
			arg := [2]uint32{cmd, value}
			var req struct {
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}
			copy(req.name[:], dev)
			req.data = unsafe.Pointer(&arg)
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
				l.t.Fatalf("ethtool command %#x on %s: %v", cmd, dev, errno)
			}
		}
	})
}

// capture opens the packet socket of one worker.
func (l *lab) capture(worker, workers int) int {
	l.t.Helper()
	var fd int
	in(l.t, l.hub, func() {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		must(l.t, err)
		must(l.t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
		must(l.t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
		must(l.t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20))
		must(l.t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20))
		proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		must(l.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: l.hub1}))
		if workers > 1 {
			l.fanout(fd)
		}
	})
	return fd
}

// fanout spreads frames over the workers' sockets: by destination port those
// to the hub's own address (answers to dials), the rest by source. IPv4 only.
func (l *lab) fanout(fd int) {
	l.t.Helper()
	const net = 0xfff00000 // SKF_NET_OFF: offsets from the IP header
	hub := binary.BigEndian.Uint32(hub4.AsSlice())
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: net + 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 2, K: hub},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: net + 22},
		{Code: unix.BPF_RET | 0x10}, // A
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: net + 12},
		{Code: unix.BPF_RET | 0x10},
	}
	group := int(uint16(os.Getpid()))
	must(l.t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|unix.PACKET_FANOUT_CBPF<<16))
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_FANOUT_DATA,
		uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f), 0)
	if errno != 0 {
		l.t.Fatalf("PACKET_FANOUT_DATA: %v", errno)
	}
}

// options are a stack's in this lab.
func (l *lab) options(worker, workers int) Options {
	l.t.Helper()
	hub, _ := net.ParseMAC(hub1MAC)
	host, _ := net.ParseMAC(hub0MAC)
	return Options{
		FD: l.capture(worker, workers), HubMAC: hub, HostMAC: host,
		Hub4: hub4, Hub6: hub6,
		Worker: worker, Workers: workers,
	}
}

// start runs a stack until the test ends or stop is called.
func (l *lab) start(o Options, accept func(*Conn)) (s *Stack, stop func()) {
	l.t.Helper()
	s, err := New(o, accept)
	must(l.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for s.net.Load() == nil || !s.running() {
		time.Sleep(100 * time.Microsecond)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				l.t.Errorf("Run: %v", err)
			}
		case <-time.After(ample):
			l.t.Errorf("Run has not returned within %v", ample)
		}
	}
	l.t.Cleanup(stop)
	return s, stop
}

// running says that the stack takes dials.
func (s *Stack) running() bool {
	ok := s.door.enterDial()
	if ok {
		s.door.leaveDial()
	}
	return ok
}

// dial connects from the client to addr.
func (l *lab) dial(addr string) *net.TCPConn {
	l.t.Helper()
	c, err := l.dialErr(addr)
	if err != nil {
		l.t.Fatalf("client dials %s: %v", addr, err)
	}
	return c
}

func (l *lab) dialErr(addr string) (c *net.TCPConn, err error) {
	l.t.Helper()
	in(l.t, l.client, func() {
		var nc net.Conn
		nc, err = (&net.Dialer{Timeout: ample}).Dial("tcp", addr)
		if err == nil {
			c = nc.(*net.TCPConn)
			l.t.Cleanup(func() { c.Close() })
			err = c.SetDeadline(time.Now().Add(ample))
		}
	})
	return c, err
}

// serve listens in the server namespace and calls handle per connection.
func (l *lab) serve(addr string, handle func(*net.TCPConn)) {
	l.t.Helper()
	in(l.t, l.server, func() {
		ln, err := net.Listen("tcp", addr)
		must(l.t, err)
		l.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go handle(c.(*net.TCPConn))
			}
		}()
	})
}

// anywhere is an address that only the split answers for.
func anywhere(v6 bool, port int) string {
	if v6 {
		return fmt.Sprintf("[fd00:c8::7]:%d", port)
	}
	return fmt.Sprintf("198.18.200.7:%d", port)
}
