package e2e

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/admin"
	"hawser/pkg/nat64"
)

// TestNAT64: an uplink with IPv6 alone, as many mobile networks have it, reaches the cloud's
// IPv4 address by the network's translator, here tayga, also where that is a name's, for which
// the name server makes no IPv6 address. Beside it is an uplink with IPv4, which is cut in the
// middle of a download; the rest comes by the translator, in full packets.
func TestNAT64(t *testing.T) {
	t.Parallel()
	lab.NeedTools(t, "tayga", "ip", "unshare", "mount")
	for _, c := range []struct {
		transport, prefix string
		gateway           string // of the configuration, "" for the host's own route
		cloud             string // its name, "" for its address
	}{
		{"tcp", "fd64:ff9b::/96", "", ""},
		{"quic", "fd64:0:0:344::/64", "fd20:2::2", "cloud.test"},
	} {
		t.Run(c.transport, func(t *testing.T) {
			t.Parallel()
			// A name server on the uplink, and nobody's beside it.
			file := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(file, []byte("nameserver fd20:2::2\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			private := []string{"unshare", "-m", "sh", "-c", "mount --bind " + file + " /etc/resolv.conf && exec \"$@\"", "sh"}
			uplinks := []lab.Uplink{{Name: "wifi", Rate: 50e6, Delay: 10 * ms}, {Name: "lte", Rate: 20e6, Delay: 20 * ms}}
			r := prepare(t, uplinks, pair.Options{Transport: c.transport, EdgeEnv: private})
			dns := r.dns64(c.prefix)
			end := r.translator(c.prefix)
			r.onEdge(t, "ip -4 addr flush dev "+r.Interface("lte"))
			conf, gateway := r.pair.EdgeYAML(), fmt.Sprintf("gateway: %q, ", r.Gateway("lte", lab.IPv4))
			if c.gateway == "" {
				r.onEdge(t, "ip -6 route add default via fd20:2::2 dev "+r.Interface("lte")+" metric 5000")
				t.Cleanup(func() { r.onEdge(t, "ip -6 route del default via fd20:2::2 dev "+r.Interface("lte")) })
				conf = strings.Replace(conf, gateway, "", 1)
			} else {
				conf = strings.Replace(conf, gateway, fmt.Sprintf("gateway: %q, ", c.gateway), 1)
			}
			if before, after, ok := strings.Cut(conf, "name: lte"); ok && c.cloud != "" {
				conf = before + "name: lte" + strings.Replace(after, r.Address("cloud", lab.IPv4).String(), c.cloud, 1)
			}
			if _, err := r.WriteFile("edge.yaml", conf); err != nil {
				t.Fatal(err)
			}
			if err := r.pair.Start(); err != nil {
				t.Fatal(err)
			}
			r.translated(t, c.prefix, private, c.gateway == "")
			if n := dns.asked.Load(); n == 0 || n > 20 {
				t.Errorf("the name server was asked %d times", n)
			}
			r.fullPackets(t)
			end()
			r.elsewhere(t, dns, c.gateway == "")
		})
	}
}

// elsewhere translates behind another prefix. The edge learns that at once where its address
// changes with it, and otherwise as soon as nothing has answered behind the former for a while.
func (r *rig) elsewhere(t *testing.T, dns *dns64, moves bool) {
	t.Helper()
	const prefix = "fd64:0:1::/48"
	dns.prefix.Store(prefix)
	r.translator(prefix)
	if moves {
		r.onEdge(t, "ip addr add fd20:2::9/64 dev "+r.Interface("lte"), "ip addr del fd20:2::1/64 dev "+r.Interface("lte"))
		t.Cleanup(func() {
			r.onEdge(t, "ip addr add fd20:2::1/64 dev "+r.Interface("lte"), "ip addr del fd20:2::9/64 dev "+r.Interface("lte"))
		})
	}
	took := r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" && l.NAT64 == prefix })
	t.Logf("behind another prefix after %v", took)
	const size = 1_000_000
	r.blackhole("wifi", true)
	r.serve(82, sender(size))
	check(t, r.fetch(r.origin(lab.IPv4, 82), time.Minute), 1, size)
	r.blackhole("wifi", false)
}

// translated looks at what status and check say.
func (r *rig) translated(t *testing.T, prefix string, private []string, routed bool) {
	t.Helper()
	to := nat64.Embed(netip.MustParsePrefix(prefix), r.Address("cloud", lab.IPv4))
	if l := r.link(t, "lte"); l.NAT64 != prefix || l.Remote != netip.AddrPortFrom(to, pair.Port).String() {
		t.Errorf("lte goes to %s by %q", l.Remote, l.NAT64)
	}
	if l := r.link(t, "wifi"); l.NAT64 != "" || !strings.HasPrefix(l.Remote, r.Address("cloud", lab.IPv4).String()) {
		t.Errorf("wifi goes to %s by %q", l.Remote, l.NAT64)
	}
	if !routed {
		return // run alone has set the route
	}
	bin, err := lab.Binary("hawser/edge")
	if err != nil {
		t.Fatal(err)
	}
	// It says that the agent runs, and fails for the rest.
	said, _ := r.Exec("edge", append(private, bin, "check", "-c", r.pair.EdgeConf())...)
	if !strings.Contains(said, ", by NAT64 with prefix "+prefix+")") {
		t.Errorf("check says:\n%s", said)
	}
}

// fullPackets downloads while the uplink with IPv4 is cut, and uploads over the other one.
func (r *rig) fullPackets(t *testing.T) {
	t.Helper()
	const size = 10_000_000
	r.serve(80, sender(size))
	up := make(chan gauge, 1)
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		up <- receive(c, nil)
	})
	lengths := r.lengths(r.Interface("lte"))
	c := r.mustDial(r.origin(lab.IPv4, 80), time.Minute)
	cut := false
	check(t, receive(c, func(n int64) {
		if !cut && n > size/4 {
			cut = true
			r.blackhole("wifi", true)
		}
	}), 1, size)
	before := lengths()
	send(t, r.mustDial(r.origin(lab.IPv4, 81), time.Minute), size)
	check(t, await(t, up), 2, size)
	after := lengths()
	// An IPv6 header is 20 bytes longer: 1500 here are 1480 at the cloud.
	const mtu, few = 1500, size / 1500 / 4
	down, upward := full(before.in, mtu), full(after.out, mtu)-full(before.out, mtu)
	t.Logf("full packets: %d down, %d up", down, upward)
	if down < few || upward < few || after.most() > mtu || after.fragments > 0 {
		t.Errorf("%d full packets down and %d up, the longest of %d bytes, %d fragments", down, upward, after.most(), after.fragments)
	}
	r.blackhole("wifi", false)
	r.untilLink(t, "wifi", func(l admin.Link) bool { return l.State == "up" })
}

// translator runs tayga beside the cloud, until end: what comes by any uplink for an address
// behind the prefix goes on by IPv4, from one of 198.18.254.0/24.
func (r *rig) translator(prefix string) (end func()) {
	r.t.Helper()
	conf, err := r.WriteFile("tayga.conf", fmt.Sprintf(
		"tun-device nat64\nipv4-addr 198.18.254.1\nprefix %s\ndynamic-pool 198.18.254.0/24\ndata-dir %s\n", prefix, r.Dir()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.mustExec("cloud", "tayga", "-c", conf, "--mktun")
	for _, words := range []string{
		"link set nat64 up", "addr add 198.18.255.1/32 dev nat64", "addr add fd64:1::1/128 dev nat64",
		"route add 198.18.254.0/24 dev nat64", "route add " + prefix + " dev nat64",
	} {
		r.mustExec("cloud", append([]string{"ip"}, strings.Fields(words)...)...)
	}
	p, err := r.Start("cloud", "tayga", "-c", conf, "--nodetach")
	if err != nil {
		r.t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = p.Stop()
		r.mustExec("cloud", "ip", "link", "del", "nat64")
	})
	r.t.Cleanup(end)
	return end
}

// dns64 is the name server of the uplink's network. It knows ipv4only.arpa, and that any name
// below test is the cloud's.
type dns64 struct {
	prefix atomic.Value // string
	asked  atomic.Int64
}

// dns64 lets one work until the test ends.
func (r *rig) dns64(prefix string) *dns64 {
	r.t.Helper()
	var conn net.PacketConn
	err := r.Do("cloud", func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(r.Gateway("lte", lab.IPv6), 53).String())
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	d := &dns64{}
	d.prefix.Store(prefix)
	go func() {
		b := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			d.asked.Add(1)
			if answer := dns64Answer(b[:size], netip.MustParsePrefix(d.prefix.Load().(string)), r.Address("cloud", lab.IPv4)); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return d
}

// dns64Answer is what a server says that does DNS64 with a prefix for ipv4only.arpa.
func dns64Answer(question []byte, prefix netip.Prefix, cloud netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	known := []netip.Addr{netip.MustParseAddr("192.0.0.170"), netip.MustParseAddr("192.0.0.171")}
	arpa := q.Name.String() == nat64.Name
	switch {
	case strings.HasSuffix(q.Name.String(), ".test."):
		known = []netip.Addr{cloud}
	case !arpa:
		m.RCode, known = dnsmessage.RCodeNameError, nil
	}
	for _, four := range known {
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET, TTL: 60}
		switch {
		case q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: four.As4()}})
		case q.Type == dnsmessage.TypeAAAA && arpa:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: nat64.Embed(prefix, four).As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// lengths counts IPv6 packets by their length.
type lengths struct {
	in, out   map[int]int
	fragments int
}

func (l lengths) most() (most int) {
	for _, by := range []map[int]int{l.in, l.out} {
		for n := range by {
			most = max(most, n)
		}
	}
	return most
}

// full counts full packets. QUIC looks for the longest that passes to within 20 bytes.
func full(by map[int]int, mtu int) (n int) {
	for length, count := range by {
		if length > mtu-20 {
			n += count
		}
	}
	return n
}

// lengths counts what passes an interface of the edge's, until the test ends.
func (r *rig) lengths(device string) func() lengths {
	r.t.Helper()
	var fd int
	if err := r.Do("edge", func() (err error) {
		fd, err = packetSocket(device, unix.ETH_P_ALL)
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	var mu sync.Mutex
	l := lengths{in: map[int]int{}, out: map[int]int{}}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		p := make([]byte, 1<<17)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, p, 0)
			if err != nil || n < 14+40 || binary.BigEndian.Uint16(p[12:]) != unix.ETH_P_IPV6 {
				continue
			}
			by := l.in
			if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype == unix.PACKET_OUTGOING {
				by = l.out
			}
			mu.Lock()
			by[n-14]++
			if p[14+6] == unix.IPPROTO_FRAGMENT {
				l.fragments++
			}
			mu.Unlock()
		}
	}()
	r.t.Cleanup(func() {
		close(stop)
		<-done
		unix.Close(fd)
	})
	return func() lengths {
		time.Sleep(100 * ms) // what has passed is counted
		mu.Lock()
		defer mu.Unlock()
		return lengths{in: maps.Clone(l.in), out: maps.Clone(l.out), fragments: l.fragments}
	}
}
