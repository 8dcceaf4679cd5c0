package link

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// twoUplinks is an edge and a cloud in namespaces of their own, joined by two
// wires. The edge's routes lead to the second wire's network by that wire, and
// by the first one only for sockets that are bound to it.
//
//	edge: first  198.18.1.1 fd00:0:0:1::1 -- 198.18.1.2 fd00:0:0:1::2 :cloud
//	edge: second 198.18.2.1 fd00:0:0:2::1 -- 198.18.2.2 fd00:0:0:2::2 :cloud
type twoUplinks struct{ edge, cloud netns.NsHandle }

func newTwoUplinks(t testing.TB) *twoUplinks {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	n := &twoUplinks{}
	for _, h := range []*netns.NsHandle{&n.cloud, &n.edge} {
		if *h, err = netns.New(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		n.edge.Close()
		n.cloud.Close()
		if err := netns.Set(home); err != nil {
			t.Error(err) // the thread stays locked and dies with the test's goroutine
			return
		}
		home.Close()
		runtime.UnlockOSThread()
	})
	n.wire(t, "first", "1")
	n.wire(t, "second", "2")
	n.enter(t, n.edge)
	first := n.device(t, "first")
	for _, via := range []string{"198.18.1.2", "fd00:0:0:1::2"} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: first.Attrs().Index, Gw: net.ParseIP(via)}); err != nil {
			t.Fatalf("default route by %s: %v", via, err)
		}
	}
	return n
}

func (n *twoUplinks) enter(t testing.TB, h netns.NsHandle) {
	t.Helper()
	if err := netns.Set(h); err != nil {
		t.Fatal(err)
	}
}

func (n *twoUplinks) device(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// wire lays one veth pair, both ends of the same name, and gives addresses.
func (n *twoUplinks) wire(t testing.TB, name, network string) {
	t.Helper()
	n.enter(t, n.edge)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(int(n.cloud))}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	for i, h := range []netns.NsHandle{n.edge, n.cloud} {
		n.enter(t, h)
		l := n.device(t, name)
		host := string(rune('1' + i))
		for _, a := range []string{"198.18." + network + "." + host + "/24", "fd00:0:0:" + network + "::" + host + "/64"} {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				t.Fatal(err)
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, addr); err != nil {
				t.Fatalf("%s on %s: %v", a, name, err)
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLinkUsesItsInterface: a bound link leaves by its interface where the
// routes say otherwise, and carries its mark.
func TestLinkUsesItsInterface(t *testing.T) {
	n := newTwoUplinks(t)
	n.enter(t, n.cloud)
	c := startCloud(t, ":0", nil)
	n.enter(t, n.edge)
	for _, family := range []struct{ server, first, second string }{
		{"198.18.2.2", "198.18.1.1", "198.18.2.1"},
		{"fd00:0:0:2::2", "fd00:0:0:1::1", "fd00:0:0:2::1"},
	} {
		remote := netip.AddrPortFrom(netip.MustParseAddr(family.server), c.listener.Addr().Port())
		transports(t, func(t *testing.T, transport Transport) {
			runtime.LockOSThread() // a subtest has a goroutine of its own
			n.enter(t, n.edge)
			for device, want := range map[string]string{"first": family.first, "second": family.second, "": family.second} {
				d := c.dialer(transport, func(o *DialerOptions) { o.Remote, o.Interface, o.Mark = remote, device, 0x51 })
				edge, _, err := d.Dial(context.Background(), sampleHello())
				if err != nil {
					t.Fatalf("by %q: %v", device, err)
				}
				cloud := <-c.conns
				if got := cloud.Info().Remote.Addr(); got != netip.MustParseAddr(want) {
					t.Errorf("by %q: arrived from %v, want %s", device, got, want)
				}
				if got := markOf(t, edge); got != 0x51 {
					t.Errorf("by %q: mark 0x%x", device, got)
				}
				edge.Close(nil)
				cloud.Close(nil)
				<-c.requests
			}
		})
	}
}

func markOf(t *testing.T, c *Conn) int {
	t.Helper()
	var conn syscall.Conn
	switch p := c.pipe.(type) {
	case *tcpPipe:
		conn = p.conn
	case *quicPipe:
		conn = p.own.udp.(syscall.Conn)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var mark int
	if err := raw.Control(func(fd uintptr) { mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// TestSettings looks at what the kernel made of a link's socket options.
func TestSettings(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(TCP)
	for name, c := range map[string]*Conn{"edge": edge, "cloud": cloud} {
		p := c.pipe.(*tcpPipe)
		for option, want := range map[int]int{
			unix.TCP_NODELAY: 1, unix.TCP_NOTSENT_LOWAT: notSentLowat,
			unix.TCP_USER_TIMEOUT: int(userTimeout.Milliseconds()), unix.TCP_KEEPIDLE: 20,
		} {
			var got int
			var err error
			_ = p.raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) })
			if err != nil || got != want {
				t.Errorf("%s: TCP option %d is %d, %v; want %d", name, option, got, err, want)
			}
		}
		available, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
		if err != nil {
			t.Skip("cannot read the list of congestion controls: ", err)
		}
		if slices.Contains(strings.Fields(string(available)), congestionControl) && os.Geteuid() == 0 && c.Info().Congestion != congestionControl {
			t.Errorf("%s: congestion control %q", name, c.Info().Congestion)
		}
	}
}
