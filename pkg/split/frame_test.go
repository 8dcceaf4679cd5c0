package split

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func TestParseVnet(t *testing.T) {
	for _, tc := range []struct {
		name    string
		bytes   []byte
		want    vnetHeader
		gso     bool
		trusted bool
		fails   bool
	}{
		{name: "plain", bytes: make([]byte, 10)},
		{name: "checksum open", bytes: []byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0},
			want: vnetHeader{flags: 1, csumStart: 34, csumOffset: 16}, trusted: true},
		{name: "verified", bytes: []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, want: vnetHeader{flags: 2}, trusted: true},
		{name: "gso ipv4", bytes: []byte{1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0},
			want: vnetHeader{flags: 1, gsoType: 1, headerLen: 66, gsoSize: 1448, csumStart: 34, csumOffset: 16}, gso: true, trusted: true},
		{name: "gso ipv6 with ecn", bytes: []byte{1, 0x84, 86, 0, 0x94, 5, 54, 0, 16, 0},
			want: vnetHeader{flags: 1, gsoType: 0x84, headerLen: 86, gsoSize: 1428, csumStart: 54, csumOffset: 16}, gso: true, trusted: true},
		{name: "udp", bytes: []byte{1, 3, 0, 0, 1, 0, 0, 0, 0, 0}, fails: true},
		{name: "segment size 0", bytes: []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0}, fails: true},
		{name: "short", bytes: make([]byte, 9), fails: true},
		{name: "empty", fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, err := parseVnet(tc.bytes)
			if tc.fails {
				if !errors.Is(err, errVnet) {
					t.Fatalf("error %v, want errVnet", err)
				}
				return
			}
			if err != nil || h != tc.want || h.gso() != tc.gso || h.trusted() != tc.trusted {
				t.Fatalf("got %+v, gso %v, trusted %v, %v", h, h.gso(), h.trusted(), err)
			}
			var back [vnetLen]byte
			if h.put(back[:]); !slices.Equal(back[:], tc.bytes) {
				t.Errorf("put %v, want %v", back, tc.bytes)
			}
		})
	}
}

func FuzzParseVnet(f *testing.F) {
	f.Add([]byte{1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := parseVnet(p)
		if err != nil {
			return
		}
		var back [vnetLen]byte
		h.put(back[:])
		if !slices.Equal(back[:], p[:vnetLen]) {
			t.Errorf("%v parsed and put is %v", p[:vnetLen], back)
		}
	})
}

// Frames for the tests: hub0 to hub1, TCP with payload and right checksums.
var (
	testHub  = tcpip.LinkAddress("\x02\x00\x00\x00\x03\x02")
	testHost = tcpip.LinkAddress("\x02\x00\x00\x00\x03\x01")
	test4    = [2]tcpip.Address{tcpip.AddrFrom4([4]byte{198, 18, 1, 2}), tcpip.AddrFrom4([4]byte{198, 18, 200, 7})}
	test6    = [2]tcpip.Address{tcpip.AddrFrom16([16]byte{0xfd, 15: 2}), tcpip.AddrFrom16([16]byte{0xfd, 1: 0xc8, 15: 7})}
)

// ether returns an Ethernet header for typ.
func ether(typ tcpip.NetworkProtocolNumber) []byte {
	p := make([]byte, etherLen)
	header.Ethernet(p).Encode(&header.EthernetFields{SrcAddr: testHost, DstAddr: testHub, Type: typ})
	return p
}

// tcpSegment returns a segment with a right checksum.
func tcpSegment(src, dst tcpip.Address, payload []byte) []byte {
	p := append(make([]byte, header.TCPMinimumSize), payload...)
	h := header.TCP(p)
	h.Encode(&header.TCPFields{SrcPort: 1234, DstPort: 80, SeqNum: 1, AckNum: 2, DataOffset: 20, Flags: header.TCPFlagAck, WindowSize: 100})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(p)))
	h.SetChecksum(^h.CalculateChecksum(onesSum(payload, sum)))
	return p
}

// onesSum is RFC 1071's sum, written as the RFC has it.
func onesSum(p []byte, initial uint16) uint16 {
	sum := uint32(initial)
	for i := 0; i < len(p); i += 2 {
		word := uint32(p[i]) << 8
		if i+1 < len(p) {
			word |= uint32(p[i+1])
		}
		sum += word
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// frame4 returns a whole IPv4 frame; change may spoil the IP header before its
// checksum is set.
func frame4(payload []byte, change func(header.IPv4)) []byte {
	segment := tcpSegment(test4[0], test4[1], payload)
	ip := make(header.IPv4, header.IPv4MinimumSize)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(20 + len(segment)), TTL: 64, Protocol: 6, SrcAddr: test4[0], DstAddr: test4[1]})
	if change != nil {
		change(ip)
	}
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	return slices.Concat(ether(header.IPv4ProtocolNumber), ip, segment)
}

// frame6 returns a whole IPv6 frame with extension headers before TCP; first
// is the number of the first of them.
func frame6(payload, extensions []byte, first uint8) []byte {
	segment := tcpSegment(test6[0], test6[1], payload)
	ip := make(header.IPv6, header.IPv6MinimumSize)
	ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(extensions) + len(segment)), HopLimit: 64, TransportProtocol: 6, SrcAddr: test6[0], DstAddr: test6[1]})
	ip[6] = first
	return slices.Concat(ether(header.IPv6ProtocolNumber), ip, extensions, segment)
}

// judgeFrame does with a frame what the receiver does with an untrusted one.
func judgeFrame(frame []byte) verdict {
	head := frame[:min(len(frame), headRoom)]
	p, v := parseFrame(head, len(frame), testHub)
	if v == verdictPass && !p.verify(head[etherLen:], frame[len(head):]) {
		return verdictChecksum
	}
	return v
}

func TestJudgeFrame(t *testing.T) {
	flip := func(frame []byte, i int) []byte {
		p := slices.Clone(frame)
		p[i] ^= 0x10
		return p
	}
	long := random(3001)
	hopByHop := []byte{6, 0, 1, 4, 0, 0, 0, 0}
	options2 := slices.Concat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{6, 1, 1, 12, 15: 0})
	good4, good6 := frame4(long, nil), frame6(long, nil, 6)
	own := slices.Clone(good4)
	copy(own[6:], testHub)
	udp := frame4(nil, func(h header.IPv4) { h[9] = 17 })
	ping := frame4(nil, func(h header.IPv4) { h[9] = 1 })
	unreachable := slices.Clone(ping)
	copy(unreachable[34:], []byte{3, 1, 0, 0})
	binary.BigEndian.PutUint16(unreachable[36:], ^onesSum(unreachable[34:], 0))
	for _, tc := range []struct {
		name  string
		frame []byte
		want  verdict
	}{
		{"ipv4", good4, verdictPass},
		{"ipv4 no payload", frame4(nil, nil), verdictPass},
		{"ipv4 odd payload", frame4([]byte("odd"), nil), verdictPass},
		{"ipv4 padded", append(frame4([]byte("x"), nil), 0xff, 0xff, 0xff), verdictPass},
		{"ipv4 payload spoilt", flip(good4, 1000), verdictChecksum},
		{"ipv4 last byte spoilt", flip(good4, len(good4)-1), verdictChecksum},
		{"ipv4 first payload byte spoilt", flip(good4, 54), verdictChecksum},
		{"ipv4 header spoilt", flip(good4, 30), verdictChecksum},
		{"ipv4 port spoilt", flip(good4, 36), verdictChecksum},
		{"ipv4 length beyond the frame", frame4(long, func(h header.IPv4) { h.SetTotalLength(5000) }), verdictMalformed},
		{"ipv4 length below the header", frame4(long, func(h header.IPv4) { h.SetTotalLength(19) }), verdictMalformed},
		{"ipv4 no room for TCP", frame4(long, func(h header.IPv4) { h.SetTotalLength(39) }), verdictMalformed},
		{"ipv4 header length 4", frame4(nil, func(h header.IPv4) { h[0] = 0x44 }), verdictMalformed},
		{"ipv4 version 5", frame4(nil, func(h header.IPv4) { h[0] = 0x55 }), verdictMalformed},
		{"ipv4 first fragment", frame4(nil, func(h header.IPv4) { h[6] = 0x20 }), verdictFragment},
		{"ipv4 last fragment", frame4(nil, func(h header.IPv4) { h[7] = 1 }), verdictFragment},
		{"udp", udp, verdictForeign},
		{"ping", ping, verdictForeign},
		{"icmp unreachable", unreachable, verdictPass},
		{"icmp unreachable spoilt", flip(unreachable, len(unreachable)-1), verdictChecksum},
		{"own frame", own, verdictForeign},
		{"arp", slices.Concat(ether(header.ARPProtocolNumber), make([]byte, 28)), verdictForeign},
		{"ipv6", good6, verdictPass},
		{"ipv6 odd payload", frame6([]byte("odd"), nil, 6), verdictPass},
		{"ipv6 payload spoilt", flip(good6, 2000), verdictChecksum},
		{"ipv6 address spoilt", flip(good6, 30), verdictChecksum},
		{"ipv6 hop by hop", frame6(long, hopByHop, 0), verdictPass},
		{"ipv6 two extensions", frame6(long, options2, 0), verdictPass},
		{"ipv6 endless extensions", frame6(nil, []byte{0, 255, 0, 0, 0, 0, 0, 0}, 0), verdictMalformed},
		{"ipv6 fragment", frame6(long, []byte{6, 0, 0, 1, 0, 0, 0, 0}, 44), verdictFragment},
		{"ipv6 no next header", frame6(long, nil, 59), verdictForeign},
		{"empty", nil, verdictMalformed},
		{"half an ethernet header", good4[:10], verdictMalformed},
		{"half an ip header", good4[:20], verdictMalformed},
		{"half an ipv6 header", good6[:40], verdictMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := judgeFrame(tc.frame); got != tc.want {
				t.Errorf("verdict %d, want %d", got, tc.want)
			}
		})
	}
}

// Every single-bit error in a segment is found.
func TestVerifyFindsEveryBit(t *testing.T) {
	for _, good := range [][]byte{frame4(random(301), nil), frame6(random(300), nil, 6)} {
		if v := judgeFrame(good); v != verdictPass {
			t.Fatalf("verdict %d", v)
		}
		start := etherLen + 20
		if good[12] == 0x86 {
			start = etherLen + 40
		}
		for bit := start * 8; bit < len(good)*8; bit++ {
			good[bit/8] ^= 1 << (bit % 8)
			if judgeFrame(good) == verdictPass {
				t.Fatalf("bit %d flipped, and the frame passes", bit)
			}
			good[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(frame4([]byte("payload"), nil))
	f.Add(frame6([]byte("payload"), []byte{6, 0, 1, 4, 0, 0, 0, 0}, 0))
	f.Add(frame6(random(2000), nil, 6))
	f.Add(icmpFrame(false, 3, 4, 0))
	f.Add(icmpFrame(true, 2, 0, 1000))
	f.Add(icmpFrame(true, 1, 1, 0))
	f.Fuzz(func(t *testing.T, frame []byte) {
		head := frame[:min(len(frame), headRoom)]
		p, v := parseFrame(head, len(frame), testHub)
		if v != verdictPass {
			return
		}
		if p.start < 20 || p.end < p.start || p.end > len(frame)-etherLen || p.start > len(head)-etherLen {
			t.Fatalf("packet from %d to %d in a frame of %d bytes", p.start, p.end, len(frame))
		}
		// The two-part sum is the one-part sum.
		all, _ := parseFrame(frame, len(frame), testHub)
		if p.verify(head[etherLen:], frame[len(head):]) != all.verify(frame[etherLen:], nil) {
			t.Error("the verdict depends on where the frame is cut")
		}
		good, rest := p.verify(head[etherLen:], frame[len(head):]), frame[len(head):]
		head = slices.Clone(head)
		p.temper(head[etherLen:])
		if now, v := parseFrame(head, len(frame), testHub); v != verdictPass || now != p || p.verify(head[etherLen:], rest) != good {
			t.Errorf("tempered, the frame is judged %d, or another packet, or its checksum otherwise than before (right: %v)", v, good)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{FD: 0, HubMAC: []byte(testHub), HostMAC: []byte(testHost), Hub4: hub4, Hub6: hub6}
	if err := good.withDefaults().check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"FD":              func(o *Options) { o.FD = -1 },
		"HubMAC, HostMAC": func(o *Options) { o.HubMAC = nil },
		"MTU":             func(o *Options) { o.MTU = 1000 },
		"Worker 2 of 2":   func(o *Options) { o.Worker, o.Workers = 2, 2 },
		"MinRTO":          func(o *Options) { o.MinRTO = 1 },
		"Congestion":      func(o *Options) { o.Congestion = "bbr" },
		"DialTimeout":     func(o *Options) { o.DialTimeout = -1 },
		"Buffer":          func(o *Options) { o.Buffer = 100 },
		"MaxHandshakes":   func(o *Options) { o.MaxHandshakes = -1 },
		"Hub4":            func(o *Options) { o.Hub4 = hub6 },
		"Hub6":            func(o *Options) { o.Hub6 = hub4 },
	} {
		o := good
		spoil(&o)
		if err := o.withDefaults().check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v does not name it", name, err)
		}
	}
	if _, err := New(good, nil); err == nil {
		t.Error("New takes a file that is no packet socket")
	}
}
