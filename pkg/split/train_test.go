package split

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// platform is where the packets of a receiver without a socket arrive, instead of netstack.
type platform struct {
	stack.NetworkDispatcher
	t        testing.TB
	r        *receiver
	packets  [][]byte
	answered bool // each is to be answered by a packet
}

func newPlatform(t testing.TB) *platform {
	count := &counters{}
	p := &platform{t: t}
	l := &link{hub: testHub, host: testHost, out: newOutbox(deadSocket{}, count), dispatcher: p}
	p.r = newReceiver(deadSocket{}, l, &Options{}, count)
	return p
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (p *platform) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	buf := pkt.ToBuffer()
	p.packets = append(p.packets, buf.Flatten())
	buf.Release()
	if p.answered {
		answer := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte("answer"))})
		_ = p.r.link.out.enqueue(answer)
		answer.DecRef()
	}
}

// arrive hands the receiver a batch.
func (p *platform) arrive(frames ...[]byte) [][]byte {
	p.packets = nil
	p.r.refill()
	p.r.got = len(frames)
	for i, f := range frames {
		s := &p.r.slots[i]
		s.vnet = [vnetLen]byte{}
		n := copy(s.head, f)
		copy(s.tail.AsSlice(), f[n:])
		p.r.msgs[i].len = uint32(vnetLen + len(f))
	}
	p.r.work()
	return p.packets
}

// deadSocket takes everything, and sends nothing.
type deadSocket struct{ syscall.RawConn }

func (deadSocket) Write(func(uintptr) bool) error { return errors.New("nothing is sent in this test") }

// bit is a segment of an upload.
type bit struct {
	seq     uint32
	n       int // bytes of payload, of bytes(seq)
	v6      bool
	port    uint16 // of the client, 1234 if it is 0
	ack     uint32
	window  uint16
	flags   header.TCPFlags // beside ACK
	tos     uint8
	options []byte
}

// bytesFrom is n bytes of the stream.
func bytesFrom(seq uint32, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		at := seq + uint32(i)
		p[i] = byte(at ^ at>>8)
	}
	return p
}

// stamps are a timestamps option.
func stamps(val, ecr uint32) []byte {
	p := []byte{1, 1, 8, 10}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(p, val), ecr)
}

func (b bit) frame() []byte {
	if b.port == 0 {
		b.port = 1234
	}
	tcp := make(header.TCP, 20+len(b.options))
	tcp.Encode(&header.TCPFields{
		SrcPort: b.port, DstPort: 80, SeqNum: b.seq, AckNum: b.ack, DataOffset: uint8(len(tcp)),
		Flags: header.TCPFlagAck | b.flags, WindowSize: b.window,
	})
	copy(tcp[20:], b.options)
	payload := bytesFrom(b.seq, b.n)
	var f []byte
	if b.v6 {
		ip := make(header.IPv6, header.IPv6MinimumSize)
		ip.Encode(&header.IPv6Fields{
			PayloadLength: uint16(len(tcp) + b.n), HopLimit: 64, TransportProtocol: 6, TrafficClass: b.tos, SrcAddr: test6[0], DstAddr: test6[1],
		})
		f = slices.Concat(ether(header.IPv6ProtocolNumber), []byte(ip), []byte(tcp), payload)
	} else {
		ip := make(header.IPv4, header.IPv4MinimumSize)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(20 + len(tcp) + b.n), TTL: 64, Protocol: 6, TOS: b.tos, SrcAddr: test4[0], DstAddr: test4[1],
		})
		f = slices.Concat(ether(header.IPv4ProtocolNumber), []byte(ip), []byte(tcp), payload)
	}
	sum(f)
	return f
}

// read describes a packet that netstack got, and complains of one that is not what was sent.
func (p *platform) read(ip []byte) (b bit) {
	b.v6 = ip[0]>>4 == 6
	start, size := header.IPv4MinimumSize, int(header.IPv4(ip).TotalLength())
	if b.v6 {
		start, size = header.IPv6MinimumSize, header.IPv6MinimumSize+int(header.IPv6(ip).PayloadLength())
	}
	tcp := header.TCP(ip[start:])
	b.seq, b.port, b.ack, b.window = tcp.SequenceNumber(), tcp.SourcePort(), tcp.AckNumber(), tcp.WindowSize()
	b.options = tcp[20:tcp.DataOffset()]
	payload := ip[start+int(tcp.DataOffset()):]
	if b.n = len(payload); size != len(ip) || !bytes.Equal(payload, bytesFrom(b.seq, b.n)) {
		p.t.Errorf("a packet of %d bytes, %d by its header, has not the payload from %d on", len(ip), size, b.seq)
	}
	return b
}

// TestTrains: what follows each other in a batch comes to netstack as one segment.
func TestTrains(t *testing.T) {
	const mss = 1448
	row := func(n int, change func(i int, b *bit)) (bits []bit) {
		for i := range n {
			b := bit{seq: 4294960000 + uint32(i*mss), n: mss, ack: 7, window: 500, options: stamps(100, 200)}
			if change != nil {
				change(i, &b)
			}
			bits = append(bits, b)
		}
		return bits
	}
	for _, tc := range []struct {
		name string
		bits []bit
		want []int // payload of the packets
	}{
		{"a whole batch", row(slots, nil), []int{slots * mss}},
		{"one", row(1, nil), []int{mss}},
		{"IPv6", row(3, func(_ int, b *bit) { b.v6 = true }), []int{3 * mss}},
		{"no options", row(3, func(_ int, b *bit) { b.options = nil }), []int{3 * mss}},
		{"without payload", row(3, func(_ int, b *bit) { b.n = 0 }), []int{0, 0, 0}},
		{"a few bytes", row(3, func(i int, b *bit) { b.seq, b.n = uint32(10+20*i), 20 }), []int{60}},
		{"more than the longest packet", row(6, func(i int, b *bit) { b.seq, b.n = uint32(20000*i), 20000 }), []int{60000, 60000}},
		{"too long to be copied", row(3, func(i int, b *bit) { b.seq, b.n = uint32(30000*i), 30000 }), []int{30000, 30000, 30000}},
		{"PSH", row(3, func(_ int, b *bit) { b.flags = header.TCPFlagPsh }), []int{3 * mss}},
		{"the clock goes on", row(3, func(i int, b *bit) { b.options = stamps(100+uint32(i), 200+uint32(i)) }), []int{3 * mss}},
		{"the clock goes back", row(3, func(i int, b *bit) { b.options = stamps(100-uint32(i), 200) }), []int{mss, mss, mss}},
		{"a gap", row(4, func(i int, b *bit) { b.seq += uint32(i / 2 * mss) }), []int{2 * mss, 2 * mss}},
		{"sent again", row(4, func(i int, b *bit) { b.seq -= uint32(i / 2 * mss) }), []int{2 * mss, 2 * mss}},
		{"an overlap", row(2, func(i int, b *bit) { b.seq -= uint32(i) }), []int{mss, mss}},
		{"acknowledges more", row(4, func(i int, b *bit) { b.ack += uint32(i / 2) }), []int{2 * mss, 2 * mss}},
		{"a larger window", row(4, func(i int, b *bit) { b.window += uint16(i / 2) }), []int{2 * mss, 2 * mss}},
		{"congestion experienced", row(4, func(i int, b *bit) { b.tos = uint8(2 + i/2) }), []int{2 * mss, 2 * mss}},
		{"the end", row(3, func(i int, b *bit) { b.flags = header.TCPFlags(i/2) * header.TCPFlagFin }), []int{2 * mss, mss}},
		{"urgent", row(2, func(_ int, b *bit) { b.flags = header.TCPFlagUrg }), []int{mss, mss}},
		{"a gap reported", row(2, func(i int, b *bit) {
			b.options = slices.Concat(stamps(100, 200), []byte{1, 1, 5, 10, 0, 0, 0, byte(i), 0, 0, 0, 9})
		}), []int{mss, mss}},
		{"options that come and go", row(2, func(i int, b *bit) { b.options = b.options[:12*i] }), []int{mss, mss}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlatform(t)
			var frames [][]byte
			for _, b := range tc.bits {
				frames = append(frames, b.frame())
			}
			var got []int
			next := 0
			for _, ip := range p.arrive(frames...) {
				b := p.read(ip)
				first := tc.bits[next]
				if b.seq != first.seq || b.ack != first.ack || b.window != first.window || !bytes.Equal(b.options, first.options) {
					t.Errorf("the headers are not those of segment %d: %+v", next, b)
				}
				for n := -1; next < len(tc.bits) && n < b.n; next++ {
					n = max(n, 0) + tc.bits[next].n
				}
				got = append(got, b.n)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("netstack got %v bytes, want %v", got, tc.want)
			}
			if joined := p.r.count.joined.Load(); int(joined) != len(tc.bits)-len(tc.want) {
				t.Errorf("%d segments have joined, want %d", joined, len(tc.bits)-len(tc.want))
			}
		})
	}
}

// TestTrainsSideBySide: each connection has its own order, whatever lies between.
func TestTrainsSideBySide(t *testing.T) {
	for flows := 2; flows <= 2*trainFlows; flows++ {
		p := newPlatform(t)
		var frames [][]byte
		for i := range slots {
			b := bit{seq: uint32(i / flows * 100), n: 100, port: 1000 + uint16(i%flows), v6: i%flows == 1}
			frames = append(frames, b.frame())
		}
		next := map[string]uint32{}
		packets := p.arrive(frames...)
		for _, ip := range packets {
			b := p.read(ip)
			k := fmt.Sprint(b.v6, b.port)
			if b.seq != next[k] {
				t.Errorf("%d connections: from port %d comes %d, want %d", flows, b.port, b.seq, next[k])
			}
			next[k] += uint32(b.n)
		}
		for i := range flows {
			if k := fmt.Sprint(i == 1, 1000+i); next[k] != uint32((slots-i+flows-1)/flows*100) {
				t.Errorf("%d connections: %d bytes of port %d", flows, next[k], 1000+i)
			}
		}
		if flows <= trainFlows && len(packets) != flows {
			t.Errorf("%d connections: netstack got %d packets", flows, len(packets))
		}
	}
}

// TestBulkIsAcknowledgedFirst: what netstack answers leaves before the owner has seen to a
// segment whose sender has more, and afterwards where it is a message.
func TestBulkIsAcknowledgedFirst(t *testing.T) {
	for _, tc := range []struct {
		name  string
		bit   bit
		first bool
	}{
		{"bulk", bit{n: 1448}, true},
		{"the end of a message", bit{n: 1448, flags: header.TCPFlagPsh}, false},
		{"little", bit{n: 64}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlatform(t)
			p.answered = true
			waits := -1
			p.r.opts.Attend = func() {}
			p.r.opts.Settle = func() { waits = p.r.link.out.waiting() }
			p.arrive(tc.bit.frame())
			if first := waits == 0; first != tc.first {
				t.Errorf("%d answers waited while the owner had its turn", waits)
			}
			if n := p.r.link.out.waiting(); n != 0 {
				t.Errorf("%d answers wait still", n)
			}
		})
	}
}
