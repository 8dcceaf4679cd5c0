package link

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// station is an end of a test's datagrams, read as the QUIC library does.
type station struct {
	*datagrams
	ms []ipv4.Message
}

func newStation(t testing.TB, network, address string) *station {
	t.Helper()
	udp, err := net.ListenPacket(network, address)
	if err != nil {
		t.Skip("no such address here: ", err)
	}
	t.Cleanup(func() { udp.Close() })
	_ = udp.SetDeadline(time.Now().Add(ample))
	d, err := newDatagrams(udp.(*net.UDPConn))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	}); err != nil {
		t.Fatal(err)
	}
	return &station{d, messages(8)}
}

func messages(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
	}
	return ms
}

func (s *station) port() int { return s.LocalAddr().(*net.UDPAddr).Port }

// control appends a control message whose data is value in size bytes.
func control(b []byte, level, kind int32, value uint32, size int) []byte {
	at := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(size))...)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	for i := range size {
		b[at+unix.CmsgSpace(0)+i] = byte(value >> (8 * i))
	}
	return b
}

// TestDatagramsGathered: packets that were sent at once with UDP_SEGMENT come with
// one call, as they were, all from the same address, with the ECN mark.
func TestDatagramsGathered(t *testing.T) {
	for name, c := range map[string]struct {
		network, bind string
		to            net.IP
		level, kind   int32
		size          int
	}{
		"v4":         {"udp4", loopback, net.IPv4(127, 0, 0, 1), unix.IPPROTO_IP, unix.IP_TOS, 1},
		"dual to v4": {"udp", ":0", net.IPv4(127, 0, 0, 1), unix.IPPROTO_IP, unix.IP_TOS, 1},
		"v6":         {"udp6", "[::1]:0", net.IPv6loopback, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newStation(t, c.network, c.bind), newStation(t, c.network, c.bind)
			sent := make([]byte, 10*1000+300)
			for i := range sent {
				sent[i] = byte(i / 7)
			}
			oob := control(nil, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000, 2)
			oob = control(oob, c.level, c.kind, 2, c.size) // ECT(0)
			peer := &net.UDPAddr{IP: c.to, Port: to.port()}
			for range 2 {
				if n, oobn, err := from.WriteMsgUDP(sent, oob, peer); n != len(sent) || oobn != len(oob) || err != nil {
					t.Fatal(n, oobn, err)
				}
				to.expect(t, sent, 1000, from.port())
			}
		})
	}
}

// expect reads what was sent in packets of a size.
func (s *station) expect(t *testing.T, sent []byte, size, port int) {
	t.Helper()
	var got []byte
	var addr net.Addr
	for len(got) < len(sent) {
		n, err := s.ReadBatch(s.ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		if s.in.count != 1 || len(s.in.known) != 1 {
			t.Errorf("%d datagrams, %d addresses, want 1 and 1", s.in.count, len(s.in.known))
		}
		for _, m := range s.ms[:n] {
			if want := min(size, len(sent)-len(got)); m.N != want {
				t.Errorf("a packet of %d bytes, want %d", m.N, want)
			}
			got = append(got, m.Buffers[0][:m.N]...)
			if addr == nil {
				addr = m.Addr
			}
			if m.Addr != addr || addr.(*net.UDPAddr).Port != port {
				t.Errorf("from %v, want port %d and one address", m.Addr, port)
			}
			if ecn(t, m.OOB[:m.NN]) != 2 {
				t.Errorf("the ECN mark is %d, want 2", ecn(t, m.OOB[:m.NN]))
			}
		}
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes came than were sent")
	}
}

func ecn(t *testing.T, oob []byte) byte {
	t.Helper()
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TOS || m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_TCLASS {
			return m.Data[0]
		}
	}
	return 0xff
}

// TestDatagramsErrors: the library gets the kernel's word for what failed.
func TestDatagramsErrors(t *testing.T) {
	s := newStation(t, "udp4", loopback)
	to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
	if _, _, err := s.WriteMsgUDP(make([]byte, 70000), nil, to); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too large: %v", err)
	}
	if _, _, err := s.WriteMsgUDP([]byte("x"), nil, &net.UDPAddr{IP: net.IPv6loopback, Port: 9}); err == nil {
		t.Error("sent to an address of another family")
	}
	_ = s.SetReadDeadline(time.Now().Add(-time.Second))
	var timeout net.Error
	if _, err := s.ReadBatch(s.ms, 0); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a deadline that has passed: %v", err)
	}
	s.Close()
	if _, err := s.ReadBatch(s.ms, 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestDatagramsAllocate: neither sending nor receiving allocates, whoever sends.
func TestDatagramsAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	one, two, to := newStation(t, "udp4", loopback), newStation(t, "udp4", loopback), newStation(t, "udp4", loopback)
	peer := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to.port()}
	packet := make([]byte, 1200)
	if n := testing.AllocsPerRun(200, func() {
		for _, from := range []*station{one, two} {
			if _, _, err := from.WriteMsgUDP(packet, nil, peer); err != nil {
				t.Fatal(err)
			}
			if _, err := to.ReadBatch(to.ms, 0); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations per two packets", n)
	}
}

// TestArrivalsGrow: a socket has memory for a load only once there is one.
func TestArrivalsGrow(t *testing.T) {
	from, to := newStation(t, "udp4", loopback), newStation(t, "udp4", loopback)
	peer := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to.port()}
	pass := func(n int) {
		for i := range n {
			if _, _, err := from.WriteMsgUDP([]byte{byte(i)}, nil, peer); err != nil {
				t.Fatal(err)
			}
		}
		for i := 0; i < n; {
			got, err := to.ReadBatch(to.ms, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range to.ms[:got] {
				if m.N != 1 || m.Buffers[0][0] != byte(i) {
					t.Fatalf("packet %d of %d: %d bytes, %v", i, n, m.N, m.Buffers[0][:1])
				}
				i++
			}
		}
	}
	for range 20 {
		pass(1)
	}
	if to.in.ready != arrivalsAtFirst {
		t.Errorf("memory for %d datagrams without a load", to.in.ready)
	}
	pass(40)
	if to.in.ready != arrivalsAtOnce {
		t.Errorf("memory for %d datagrams under load", to.in.ready)
	}
}

// TestKnownAddresses: addresses that were made up do not fill the memory.
func TestKnownAddresses(t *testing.T) {
	var a arrivals
	a.init()
	for i := range 3 * knownMost {
		name := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: uint16(i)}
		if addr := a.address(name); addr != a.address(name) || addr.Port != i>>8&0xff|i<<8&0xff00 {
			t.Fatalf("%d: %v", i, addr)
		}
	}
	if len(a.known) > knownMost {
		t.Errorf("%d addresses are kept", len(a.known))
	}
}

// TestQUICUsesDatagrams: the end that dials does; both make their sockets with openQUIC.
func TestQUICUsesDatagrams(t *testing.T) {
	edge, _ := startCloud(t, loopback, nil).connect(QUIC)
	p := edge.pipe.(*quicPipe)
	if _, ok := p.own.transport.Conn.(*datagrams); !ok {
		t.Errorf("the edge's socket is a %T", p.own.transport.Conn)
	}
	if !edge.Info().Offload {
		t.Error("packets are not sent in batches")
	}
}

// batcher is what the QUIC library receives with.
type batcher interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// BenchmarkDatagrams is a batch of 14 packets, as the library sends and receives
// it, by a plain socket and by ours.
func BenchmarkDatagrams(b *testing.B) {
	for _, ours := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "ours"}[ours], func(b *testing.B) {
			var from interface {
				WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
			}
			var to batcher
			a, z := plainUDP(b), plainUDP(b)
			from, to = a, ipv4.NewPacketConn(z)
			if ours {
				f, err := newDatagrams(a)
				t, err2 := newDatagrams(z)
				if err := errors.Join(err, err2); err != nil {
					b.Fatal(err)
				}
				from, to = f, t
			}
			exchange(b, from.WriteMsgUDP, to, z.LocalAddr().(*net.UDPAddr))
		})
	}
}

func plainUDP(b *testing.B) *net.UDPConn {
	c, err := net.ListenPacket("udp4", loopback)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func exchange(b *testing.B, write func(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error), to batcher, addr *net.UDPAddr) {
	const packets = 14
	data := make([]byte, packets*1452)
	oob := control(nil, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1452, 2)
	ms := messages(8)
	start := cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := write(data, oob, addr); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < packets; {
			n, err := to.ReadBatch(ms, 0)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
	b.ReportMetric((cpuTime(b)-start).Seconds()*1e9/float64(b.N*len(data)), "CPU-s/GB")
}
