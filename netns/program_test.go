package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

var (
	client4 = netip.MustParseAddrPort("10.1.2.3:40001")
	remote4 = netip.MustParseAddrPort("198.18.9.9:443")
	client6 = netip.MustParseAddrPort("[fd00:a:b::c]:40001")
	remote6 = netip.MustParseAddrPort("[fd00:9::9]:443")
)

func segmentOf(src, dst netip.AddrPort) segment { return segment{src: src, dst: dst, flags: flagSYN} }

func withPort(a netip.AddrPort, port int) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), uint16(port))
}

func plainFrame(packet []byte) []byte { return ethernet(make([]byte, 6), make([]byte, 6), packet) }

func changed(packet []byte, change func([]byte)) []byte {
	p := append([]byte(nil), packet...)
	change(p)
	return p
}

// filterCases are packets with what Capture promises about them.
func filterCases() map[string]struct {
	packet []byte
	pass   bool
} {
	type c = struct {
		packet []byte
		pass   bool
	}
	tcp4, tcp6 := segmentOf(client4, remote4).packet(), segmentOf(client6, remote6).packet()
	answer4, answer6 := segmentOf(remote4, client4).packet(), segmentOf(remote6, client6).packet()
	seg := segmentOf(client4, remote4).tcp()
	udp4 := ipPacket(17, client4.Addr(), remote4.Addr(), seg, 0)
	udp6 := ipPacket(17, client6.Addr(), remote6.Addr(), seg, 0)
	extended := append([]byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}, segmentOf(client6, remote6).tcp()...)
	return map[string]c{
		"tcp4":              {tcp4, true},
		"tcp4 options":      {ipPacket(protoTCP, client4.Addr(), remote4.Addr(), seg, 40), true},
		"tcp4 may fragment": {changed(tcp4, func(p []byte) { p[6] = 0 }), true},
		"first fragment":    {changed(tcp4, func(p []byte) { p[6] = 0x20 }), true},
		"last fragment":     {changed(tcp4, func(p []byte) { p[6], p[7] = 0, 185 }), true},
		"fragment of udp":   {changed(udp4, func(p []byte) { p[6] = 0x20 }), false},
		"udp4":              {udp4, false},
		"ping4":             {ipPacket(protoICMP, client4.Addr(), remote4.Addr(), make([]byte, 64), 0), false},
		"unreachable4 tcp":  {icmpError(client4.Addr(), remote4.Addr(), 3, answer4), true},
		"unreachable4 udp":  {icmpError(client4.Addr(), remote4.Addr(), 3, udp4), false},
		"redirect4 tcp":     {icmpError(client4.Addr(), remote4.Addr(), 5, answer4), false},
		"tcp6":              {tcp6, true},
		"udp6":              {udp6, false},
		"tcp6 extension":    {ipPacket(60, client6.Addr(), remote6.Addr(), extended, 0), false},
		"fragment6":         {ipPacket(44, client6.Addr(), remote6.Addr(), extended, 0), true},
		"fragment6 of udp":  {ipPacket(44, client6.Addr(), remote6.Addr(), append([]byte{17}, extended[1:]...), 0), false},
		"too big6 tcp":      {icmpError(client6.Addr(), remote6.Addr(), 2, answer6), true},
		"time exceeded6":    {icmpError(client6.Addr(), remote6.Addr(), 3, answer6), true},
		"too big6 udp":      {icmpError(client6.Addr(), remote6.Addr(), 2, udp6), false},
		"ping6":             {icmpError(client6.Addr(), remote6.Addr(), 128, answer6), false},
		"solicitation":      {icmpError(client6.Addr(), remote6.Addr(), 135, answer6), false},
		"type 0":            {icmpError(client6.Addr(), remote6.Addr(), 0, answer6), false},
	}
}

func vm(t testing.TB, p program) *bpf.VM {
	t.Helper()
	if _, err := bpf.Assemble(p); err != nil {
		t.Fatal(err)
	}
	m, err := bpf.NewVM(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCaptureFilter(t *testing.T) {
	m := vm(t, captureFilter(everySegment))
	for name, c := range filterCases() {
		n, err := m.Run(plainFrame(c.packet))
		if err != nil || (n > 0) != c.pass {
			t.Errorf("%s: filter gives %d, %v; want pass = %v", name, n, err, c.pass)
		}
	}
	arp := append(make([]byte, 12), 0x08, 0x06)
	if n, err := m.Run(append(arp, make([]byte, 46)...)); n != 0 || err != nil {
		t.Errorf("ARP: filter gives %d, %v", n, err)
	}
}

// worker runs the fanout program as the kernel does.
func worker(t testing.TB, m *bpf.VM, packet []byte) int {
	t.Helper()
	n, err := m.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var hubOwn4, hubOwn6 = netip.MustParseAddr("198.19.255.2"), netip.MustParseAddr("fd68:6177:7365::2")

// TestFanoutOwnConnections: what belongs to connections of the stack itself
// goes by its port, everything else as it would without them.
func TestFanoutOwnConnections(t *testing.T) {
	const n = 5
	own, plain := vm(t, fanoutProgram(FanoutSource, n, hubAddrs{hubOwn4, hubOwn6})), vm(t, fanoutProgram(FanoutSource, n, hubAddrs{}))
	for i, base := range [][2]netip.AddrPort{{client4, remote4}, {client6, remote6}} {
		hub := netip.AddrPortFrom([]netip.Addr{hubOwn4, hubOwn6}[i], 0)
		for port := 2000; port < 2100; port++ {
			end := withPort(hub, port)
			if got := worker(t, own, segmentOf(base[1], end).packet()); got != port%n {
				t.Fatalf("an answer to %v goes to worker %d", end, got)
			}
			quote := icmpError(base[1].Addr(), end.Addr(), 3, segmentOf(end, base[1]).packet())
			if got := worker(t, own, quote); got != port%n {
				t.Fatalf("an ICMP error about %v goes to worker %d", end, got)
			}
			client := withPort(base[0], port)
			for _, p := range [][]byte{segmentOf(client, base[1]).packet(), icmpError(client.Addr(), base[1].Addr(), 3, segmentOf(base[1], client).packet())} {
				if a, b := worker(t, own, p), worker(t, plain, p); a != b {
					t.Fatalf("a packet of %v goes to worker %d, without connections of our own to %d", client, a, b)
				}
			}
		}
	}
}

func TestFanoutSourceProgram(t *testing.T) {
	const n, connections = 5, 2000
	for _, base := range [][2]netip.AddrPort{{client4, remote4}, {client6, remote6}} {
		for _, step := range []int{1, 2} {
			t.Run(fmt.Sprint(base[0].Addr(), step), func(t *testing.T) {
				m := vm(t, fanoutProgram(FanoutSource, n, hubAddrs{}))
				count := [n]int{}
				for i := range connections {
					client := withPort(base[0], 30000+i*step)
					got := worker(t, m, segmentOf(client, base[1]).packet())
					if got != worker(t, m, segmentOf(client, withPort(base[1], 80)).packet()) {
						t.Fatal("the worker depends on the server's port")
					}
					quote := icmpError(client.Addr(), base[1].Addr(), 3, segmentOf(base[1], client).packet())
					if e := worker(t, m, quote); e != got {
						t.Fatalf("connection of %v is worker %d's, an ICMP error about it goes to %d", client, got, e)
					}
					count[got]++
				}
				for w, c := range count {
					if c < connections/n*8/10 || c > connections/n*12/10 {
						t.Errorf("worker %d has %d of %d connections: %v", w, c, connections, count)
					}
				}
			})
		}
	}
}

func TestFanoutSourceSpreadsAddresses(t *testing.T) {
	m, count := vm(t, fanoutProgram(FanoutSource, 4, hubAddrs{})), [4]int{}
	for i := range 1000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		count[worker(t, m, segmentOf(netip.AddrPortFrom(addr, 50000), remote4).packet())]++
	}
	for w, c := range count {
		if c < 200 || c > 300 {
			t.Errorf("worker %d has %d of 1000 clients: %v", w, c, count)
		}
	}
}

func TestFanoutLocalPortProgram(t *testing.T) {
	for n := 1; n <= 7; n++ {
		m := vm(t, fanoutProgram(FanoutLocalPort, n, hubAddrs{}))
		for port := 1024; port < 65536; port += 997 {
			for _, ends := range [][2]netip.AddrPort{{remote4, withPort(client4, port)}, {remote6, withPort(client6, port)}} {
				in := segmentOf(ends[0], ends[1])
				long := in.packet()
				if ends[0].Addr().Is4() {
					long = ipPacket(protoTCP, in.src.Addr(), in.dst.Addr(), in.tcp(), 12)
				}
				quote := icmpError(netip.MustParseAddr("198.18.0.1"), ends[1].Addr(), 3, segmentOf(ends[1], ends[0]).packet())
				if ends[0].Addr().Is6() {
					quote = icmpError(remote6.Addr(), ends[1].Addr(), 1, segmentOf(ends[1], ends[0]).packet())
				}
				for i, p := range [][]byte{in.packet(), long, quote} {
					if got := worker(t, m, p); got != port%n {
						t.Fatalf("packet %d to port %d of %d workers goes to %d", i, port, n, got)
					}
				}
			}
		}
	}
}

// mayPass is the filter's promise in plain Go. Whatever is too short fails.
func mayPass(f []byte) (pass bool) {
	defer func() {
		if recover() != nil {
			pass = false
		}
	}()
	ip := f[14:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0800:
		if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
			return ip[9] == protoTCP
		}
		if ip[9] == protoICMP {
			quoted := ip[4*int(ip[0]&15):]
			return quoted[0] == 3 && quoted[8+9] == protoTCP
		}
		return ip[9] == protoTCP
	case 0x86dd:
		if ip[6] == protoIP6I {
			return ip[40] >= 1 && ip[40] <= 4 && ip[48+6] == protoTCP
		}
		return ip[6] == protoTCP || ip[6] == protoFrag && ip[40] == protoTCP
	}
	return false
}

func FuzzPrograms(f *testing.F) {
	for _, c := range filterCases() {
		f.Add(plainFrame(c.packet))
	}
	filter := vm(f, captureFilter(everySegment))
	fanouts := []*bpf.VM{vm(f, fanoutProgram(FanoutSource, 3, hubAddrs{hubOwn4, hubOwn6})), vm(f, fanoutProgram(FanoutLocalPort, 3, hubAddrs{}))}
	f.Fuzz(func(t *testing.T, frame []byte) {
		n, err := filter.Run(frame)
		if err != nil {
			t.Fatal(err)
		}
		if len(frame) >= 14 && (n > 0) != mayPass(frame) {
			t.Fatalf("filter gives %d for % x", n, frame)
		}
		if len(frame) < 14 {
			return
		}
		for _, m := range fanouts {
			if w, err := m.Run(frame[14:]); err != nil || w < 0 || w > 2 {
				t.Fatalf("worker %d, %v for % x", w, err, frame)
			}
		}
	})
}
