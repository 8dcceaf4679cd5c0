package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// planKinds are all plans that differ in what they put on the host.
var planKinds = []string{RoleEdge, InterceptTPROXY, RoleCloud}

func (w *world) planOf(kind string) Plan {
	switch kind {
	case RoleCloud:
		return w.cloudPlan()
	case InterceptTPROXY:
		return w.tproxyPlan(netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("[::1]:9"))
	}
	return w.plan
}

func (w *world) tproxyPlan(sockets ...netip.AddrPort) Plan {
	p := w.plan
	p.Intercept, p.Sockets = InterceptTPROXY, sockets
	return p
}

// echoSockets stands for the agent's sockets: it echoes what comes on
// connections that it takes. Whose they were is kept in taken.
type echoSockets struct {
	w     *world
	addrs []netip.AddrPort
	ls    []net.Listener
	wait  sync.WaitGroup

	mu    sync.Mutex
	taken []*net.TCPConn
}

func newEchoSockets(w *world) *echoSockets {
	w.t.Helper()
	s := &echoSockets{w: w}
	for _, a := range Loopbacks() {
		config := net.ListenConfig{Control: transparent}
		l, err := config.Listen(context.Background(), "tcp", netip.AddrPortFrom(a, 0).String())
		must(w.t, err)
		s.addrs = append(s.addrs, l.Addr().(*net.TCPAddr).AddrPort())
		s.ls = append(s.ls, l)
		s.wait.Go(func() { s.accept(l) })
	}
	w.t.Cleanup(s.close)
	return s
}

func transparent(_, address string, c syscall.RawConn) (err error) {
	level, option := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if strings.HasPrefix(address, "[") {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	cerr := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), level, option, 1); err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, BypassMark)
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

func (s *echoSockets) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.taken = append(s.taken, c.(*net.TCPConn))
		s.mu.Unlock()
		s.wait.Go(func() { _, _ = io.Copy(c, c) })
	}
}

func (s *echoSockets) close() {
	for _, l := range s.ls {
		l.Close()
	}
	s.mu.Lock()
	for _, c := range s.taken {
		c.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

// last is the connection that was taken last.
func (s *echoSockets) last() *net.TCPConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[len(s.taken)-1]
}

// TestTransparentSteering: on every kind of host, behind strict rules, the
// sockets answer in the place of the server, and see who wanted what.
func TestTransparentSteering(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := newWorld(t, k.sysctls...)
			w.useAllTables()
			for _, tables := range []string{"iptables", "ip6tables"} {
				w.run(tables+" -A INPUT -p tcp -i lan0 -j DROP", tables+" -A OUTPUT -p tcp -o lan0 -j DROP")
			}
			w.serve(w.server, "server", 80)
			s := newEchoSockets(w)
			h, err := install(w.tproxyPlan(s.addrs...), quiet, k.variant)
			must(t, err)
			defer h.Close()
			if h.Hub().Index != 0 {
				t.Errorf("there is a hub: %+v", h.Hub())
			}
			for _, e := range families {
				w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
				if c := s.last(); c.LocalAddr().String() != at(e.server, 80) || !strings.Contains(c.RemoteAddr().String(), e.client) {
					t.Errorf("the socket sees %v -> %v", c.RemoteAddr(), c.LocalAddr())
				}
				w.asks("client to nowhere", w.client, bound{}, at(strings.Replace(e.server, "100", "77", 1), 81), "stack")
				w.asks("host", here, bound{}, at(e.server, 80), "stack")
				if c := s.last(); c.LocalAddr().String() != at(e.server, 80) {
					t.Errorf("for the host the socket sees %v", c.LocalAddr())
				}
			}
		})
	}
}

// TestEstablishedGoShort: of a steered connection only the first packets are asked what
// they are; the others go by the connection's own socket.
func TestEstablishedGoShort(t *testing.T) {
	w := newWorld(t)
	s := newEchoSockets(w)
	p := w.tproxyPlan(s.addrs...)
	h := w.install(p)
	defer h.Close()
	const asks = 3
	for range asks {
		for _, e := range families {
			w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
		}
	}
	chain := namesOf(p.Role, p.Namespace).chain
	for _, tables := range []string{"iptables", "ip6tables"} {
		packets := func(part, rule string) string {
			return strings.TrimSpace(output(t, fmt.Sprintf("%s -t mangle -nvxL %s | awk '/%s/ {n += $1} END {print n+0}'", tables, chain(part), rule)))
		}
		short, known := packets("PRE", "goto"), packets("TAKE", "ACCEPT")
		if short == "0" || known != short {
			t.Errorf("%s: %s packets go the short way, %s of them by their socket", tables, short, known)
		}
		if tracked := packets("TAKE", "TPROXY redirect"); tracked != fmt.Sprint(asks) {
			t.Errorf("%s: %s packets come to the listener, want the %d SYNs", tables, tracked, asks)
		}
	}
}

// TestTransparentLeavesTheRestAlone compares a router before, with and after.
func TestTransparentLeavesTheRestAlone(t *testing.T) {
	w := newWorld(t, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	w.serve(w.server, "server", 80)
	w.serve(here, "host", 22)
	w.serve(w.client, "client", 8080)
	for _, e := range families {
		w.serveUDP(w.server, at(e.server, 9))
	}
	w.everythingElse("before")
	old := w.openConnections()
	s := newEchoSockets(w)
	h := w.install(w.tproxyPlan(s.addrs...))
	w.everythingElse("with hawser")
	for what, c := range old {
		if got := w.talk(c); got != "stack" { // the server's echo
			t.Errorf("connection from before Install, %s: %s", what, got)
		}
		c.Close()
	}
	w.asks("client", w.client, bound{}, at(serverAddr4, 80), "stack")
	must(t, h.Close())
	w.everythingElse("after")
	w.asks("client after Close", w.client, bound{}, at(serverAddr4, 80), "server "+clientAddr4)
	w.asks("host after Close", here, bound{}, at(serverAddr4, 80), "server 198.18.2.2")
}

// TestTransparentIsNoRouter: a host that forwarded nothing still does not, and
// nobody reaches the sockets past the rules.
func TestTransparentIsNoRouter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(w.server, "server", 80)
	s := newEchoSockets(w)
	w.install(w.tproxyPlan(s.addrs...))
	w.patience = impatient
	for i, e := range families {
		w.serveUDP(w.server, at(e.server, 9))
		if w.ping(w.client, e.server) || w.udp(w.client, at(e.server, 9)) || w.ping(w.other, e.server) {
			t.Errorf("IPv%d packets are forwarded that were not before", e.family)
		}
		w.asks("other", w.other, bound{}, at(e.server, 80), nobody)
		w.asks("client to the socket's port", w.client, bound{}, at(e.host, int(s.addrs[i].Port())), nobody)
	}
}

func TestTransparentPorts(t *testing.T) {
	w := newWorld(t, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	w.plan.Ports = []PortRange{{100, 100}, {1000, 1999}}
	for _, port := range []int{99, 2000} {
		w.serve(w.server, "server", port)
	}
	s := newEchoSockets(w)
	w.install(w.tproxyPlan(s.addrs...))
	for _, e := range families {
		for _, port := range []int{100, 1000, 1999} {
			w.asks("wanted", w.client, bound{}, at(e.server, port), "stack")
		}
		for _, port := range []int{99, 2000} {
			w.asks("not wanted", w.client, bound{}, at(e.server, port), "server "+e.client)
		}
	}
}

// TestTransparentUntracked is TestUntracked for sockets; here a server among
// the clients works as well.
func TestTransparentUntracked(t *testing.T) {
	w := newWorld(t, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1")
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft: apt-get install nftables")
	}
	w.run("nft add table inet bare", "nft add chain inet bare pre '{ type filter hook prerouting priority raw; }'", "nft add rule inet bare pre notrack",
		"nft add chain inet bare out '{ type filter hook output priority raw; }'", "nft add rule inet bare out notrack")
	w.serve(here, "host", 22)
	w.serve(w.client, "client", 8080)
	s := newEchoSockets(w)
	w.install(w.tproxyPlan(s.addrs...))
	for i, e := range families {
		server := []string{"198.18.2.1", "fd00:2::1"}[i]
		w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
		w.asks("server to the host", w.server, bound{}, at([]string{"198.18.2.2", "fd00:2::2"}[i], 22), "host "+server)
		w.asks("server to the client", w.server, bound{}, at(e.client, 8080), "client "+server)
	}
}

// TestErrorsReachTheSocket: an ICMP error of a client's router about a steered
// connection lowers the path MTU of the socket that has it.
func TestErrorsReachTheSocket(t *testing.T) {
	w := newWorld(t)
	s := newEchoSockets(w)
	w.install(w.tproxyPlan(s.addrs...))
	for _, e := range families {
		c, err := w.dial(w.client, bound{}, at(e.server, 80))
		must(t, err)
		defer c.Close()
		if got := w.talk(c); got != "stack" {
			t.Fatal(got)
		}
		taken := s.last()
		w.tooBig(e, c.LocalAddr().(*net.TCPAddr).AddrPort(), netip.MustParseAddrPort(at(e.server, 80)), nextSequence(t, taken))
		eventually(t, fmt.Sprintf("IPv%d: the path MTU of 1280", e.family), func() bool { return mtu(t, taken, e.family) == 1280 })
	}
}

// tooBig sends the client's router's error about a segment of the server's.
func (w *world) tooBig(e ends, client, server netip.AddrPort, seq uint32) {
	w.t.Helper()
	kind, network := byte(3), "ip4:icmp"
	if e.family == 6 {
		kind, network = 2, "ip6:ipv6-icmp"
	}
	quote := segment{src: server, dst: client, seq: seq, flags: flagACK}
	body := icmpError(client.Addr(), server.Addr(), kind, quote.packet())
	body = body[len(body)-8-len(quote.packet()):]
	body[6], body[7] = 5, 0 // MTU 1280
	if e.family == 4 {
		body[1] = 4 // fragmentation needed
		sum := checksum(body)
		body[2], body[3] = byte(sum>>8), byte(sum)
	}
	must(w.t, w.visit(w.client, func() error {
		raw, err := net.Dial(network, e.server)
		if err != nil {
			return err
		}
		defer raw.Close()
		_, err = raw.Write(body)
		return err
	}))
}

func control(t *testing.T, c *net.TCPConn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	must(t, cerr)
	must(t, err)
}

func mtu(t *testing.T, c *net.TCPConn, family int) (n int) {
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if family == 6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	control(t, c, func(fd int) (err error) {
		n, err = unix.GetsockoptInt(fd, level, option)
		return err
	})
	return n
}

// nextSequence is a sequence number that c has not had acknowledged: the kernel
// ignores errors about others. It comes from TCP_REPAIR.
func nextSequence(t *testing.T, c *net.TCPConn) (seq uint32) {
	const sendQueue = 2 // TCP_SEND_QUEUE
	control(t, c, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, sendQueue); err != nil {
			return err
		}
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		seq = uint32(n)
		if err != nil {
			return err
		}
		const offWithoutProbe = -1 // TCP_REPAIR_OFF_NO_WP
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe)
	})
	return seq
}

// TestLostSockets: a steered connection that the sockets know nothing of, as
// after a crash, is reset by the next ones.
func TestLostSockets(t *testing.T) {
	w := newWorld(t)
	s := newEchoSockets(w)
	h := w.install(w.tproxyPlan(s.addrs...))
	for _, e := range families {
		c, err := w.dial(w.client, bound{}, at(e.server, 80))
		must(t, err)
		if got := w.talk(c); got != "stack" {
			t.Fatal(got)
		}
		control(t, s.last(), func(fd int) error { // a socket in repair mode goes without a word
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		})
		s.last().Close()
		if got := w.talk(c); !strings.Contains(got, "reset") {
			t.Errorf("IPv%d: the client hears %q", e.family, got)
		}
	}
	must(t, h.Close())
}

// TestRefusesWithoutSockets: packets must not be led to where nobody is.
func TestRefusesWithoutSockets(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	before := w.snapshot()
	for want, p := range map[string]Plan{
		"no transparent socket takes IPv4": w.tproxyPlan(),
		"no transparent socket takes IPv6": w.tproxyPlan(netip.MustParseAddrPort("127.0.0.1:9")),
	} {
		if _, err := Install(p, quiet); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if h, err := Install(w.planOf(InterceptTPROXY), quiet); err != nil {
		t.Error(err)
	} else {
		if _, err := h.Capture(1, FanoutSource); err == nil || !strings.Contains(err.Error(), "there is no hub") {
			t.Errorf("capture: %v", err)
		}
		must(t, h.Close())
	}
	w.run("ip link set lo down")
	if _, err := Install(w.planOf(InterceptTPROXY), quiet); err == nil || !strings.Contains(err.Error(), "ip link set lo up") {
		t.Errorf("with lo down: %v", err)
	}
	w.run("ip link set lo up")
	w.unchanged(before, "after failed starts")
}

func TestTransparentCheck(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	before := w.snapshot()
	findings := Check(w.tproxyPlan())
	for _, f := range findings {
		if f.Level != LevelOK {
			t.Errorf("%+v", f)
		}
	}
	for _, want := range []string{"iptables: TPROXY", "ip6tables: TPROXY"} {
		if !slices.ContainsFunc(findings, func(f Finding) bool { return strings.HasPrefix(f.What, want) }) {
			t.Errorf("nothing about %s in %+v", want, findings)
		}
	}
	w.unchanged(before, "after Check")
}

// TestBridgeOfClients: with br_netfilter TPROXY cannot work on a bridge, which
// is said; without it, it does.
func TestBridgeOfClients(t *testing.T) {
	const call = "net/bridge/bridge-nf-call-"
	w := newWorld(t)
	if !sysctlExists(call + "iptables") {
		t.Skip("needs br_netfilter: modprobe br_netfilter")
	}
	w.run("ip link add br0 type bridge", "ip addr flush dev lan0", "ip link set lan0 master br0",
		"ip addr add 198.18.1.1/24 dev br0", "ip addr add fd00:1::1/64 dev br0 nodad", "ip link set br0 up")
	w.plan.Clients = []string{"br0"}
	must(t, writeSysctl(call+"iptables", "0"))
	must(t, writeSysctl(call+"ip6tables", "1"))
	s := newEchoSockets(w)
	p := w.tproxyPlan(s.addrs...)
	_, err := Install(p, quiet)
	if err == nil || !strings.Contains(err.Error(), "bridge br0 while /proc/sys/net/bridge/bridge-nf-call-ip6tables is 1") {
		t.Errorf("Install: %v", err)
	}
	if !slices.ContainsFunc(Check(p), func(f Finding) bool { return f.Level == LevelFail && strings.Contains(f.What, "bridge br0") }) {
		t.Error("Check does not tell")
	}
	must(t, writeSysctl(call+"ip6tables", "0"))
	w.install(p)
	for _, e := range families {
		eventually(t, "the bridge forwarding", func() bool { return w.ping(w.client, e.host) })
		w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
	}
}

// TestPauseTwice: a pause that could be made for one address family only is tried
// again; when it ends both families' new connections are taken again.
func TestPauseTwice(t *testing.T) {
	w := newWorld(t)
	if !ipv6Usable() {
		t.Skip("needs two address families")
	}
	ip6tables, err := exec.LookPath("ip6tables")
	must(t, err)
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	script := fmt.Sprintf("#!/bin/sh\n[ -e %q ] && exit 3\nexec %q \"$@\"\n", broken, ip6tables)
	must(t, os.WriteFile(filepath.Join(dir, "ip6tables"), []byte(script), 0o755))
	must(t, os.Symlink(ip6tables+"-save", filepath.Join(dir, "ip6tables-save")))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	h := w.install(w.planOf(InterceptTPROXY))
	before := w.snapshot()
	for range 3 {
		must(t, os.WriteFile(broken, nil, 0o600))
		err := h.PauseTaking(true)
		must(t, os.Remove(broken))
		if err == nil {
			t.Fatal("paused without ip6tables")
		}
	}
	must(t, h.PauseTaking(true))
	must(t, h.PauseTaking(false))
	w.unchanged(before, "after the pause")
}
