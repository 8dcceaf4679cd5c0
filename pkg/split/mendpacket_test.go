package split

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
	"hawser/pkg/repair"
)

// sackOption is the option that says blocks, which are pairs of numbers.
func sackOption(blocks ...uint32) []byte {
	o := []byte{header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionSACK, byte(2 + 4*len(blocks))}
	for _, b := range blocks {
		o = binary.BigEndian.AppendUint32(o, b)
	}
	return o
}

// stampOption is the option of a timestamp.
func stampOption(val, echo uint32) []byte {
	o := []byte{header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionTS, header.TCPOptionTSLength}
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(o, val), echo)
}

// tcpHeader is a header with options.
func tcpHeader(ack uint32, window uint16, options ...[]byte) header.TCP {
	o := bytes.Join(options, nil)
	tcp := header.TCP(append(make([]byte, header.TCPMinimumSize), o...))
	tcp.Encode(&header.TCPFields{SrcPort: 1000, DstPort: 80, SeqNum: 77, AckNum: ack, WindowSize: window,
		DataOffset: uint8(len(tcp)), Flags: header.TCPFlagAck})
	return tcp
}

func TestTellRewrites(t *testing.T) {
	f := mended{shift: 3}
	tcp := tcpHeader(1000, 100, stampOption(5, 6), sackOption(3000, 4000, 6000, 8000))
	// 4000 is told; the client's window ends at 1800, shown are three quarters.
	v := repair.Verdict{Tell: 1400, Edge: 1800, Stamp: 9, Ahead: true}
	if a := f.tell(v, tcp, true, true); a != pass {
		t.Errorf("action %v", a)
	}
	if tcp.AckNumber() != 1400 || tcp.WindowSize() != 50 || len(selective(tcp, make([]repair.Range, 0, 4))) != 0 {
		t.Errorf("ack %d, window %d: % x", tcp.AckNumber(), tcp.WindowSize(), []byte(tcp))
	}
	if at := stampAt(tcp); binary.BigEndian.Uint32(tcp[at:]) != 5 || binary.BigEndian.Uint32(tcp[at+4:]) != 9 {
		t.Errorf("the timestamp is wrong: % x", []byte(tcp))
	}
	// The same once more says nothing new; with payload it goes on.
	again := func() header.TCP { return tcpHeader(1000, 100, sackOption(3000, 4000)) }
	v.Ahead = false
	if a := f.tell(v, again(), true, true); a != swallow {
		t.Errorf("a repetition: action %v", a)
	}
	if a := f.tell(v, again(), true, false); a != pass {
		t.Errorf("with payload: action %v", a)
	}
	// A shut window is always told: netstack counts the answers to its probes.
	v.Edge = 1400
	for range 2 {
		tcp := again()
		if a := f.tell(v, tcp, true, true); a != pass || tcp.WindowSize() != 0 {
			t.Errorf("a shut window: action %v, window %d", a, tcp.WindowSize())
		}
	}
	// Shown is only what lies beyond what is told.
	v = repair.Verdict{Tell: 4000, Edge: 9000, Show: true}
	tcp = tcpHeader(1000, 1000, stampOption(5, 6), sackOption(3000, 4000, 6000, 8000))
	f.tell(v, tcp, true, true)
	if got := selective(tcp, make([]repair.Range, 0, 4)); len(got) != 1 || got[0] != (repair.Range{From: 6000, To: 8000}) {
		t.Errorf("shown: %v", got)
	}
}

// netstackPacket is a packet as netstack hands it to the filters.
func netstackPacket(v6, gso bool, seq uint32, payload []byte) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 120, Payload: buffer.MakeWithData(payload)})
	tcp := tcpHeader(500, 600, stampOption(7, 8))
	tcp.SetSequenceNumber(seq)
	copy(pkt.TransportHeader().Push(len(tcp)), tcp)
	pkt.TransportProtocolNumber, pkt.NetworkProtocolNumber = header.TCPProtocolNumber, ipv4.ProtocolNumber
	total := len(tcp) + len(payload)
	if v6 {
		pkt.NetworkProtocolNumber = ipv6.ProtocolNumber
		ip := header.IPv6(pkt.NetworkHeader().Push(header.IPv6MinimumSize))
		ip.Encode(&header.IPv6Fields{PayloadLength: uint16(total), TransportProtocol: header.TCPProtocolNumber, HopLimit: 64})
		ip[8], ip[24] = 0xfd, 0xfc
	} else {
		ip := header.IPv4(pkt.NetworkHeader().Push(header.IPv4MinimumSize))
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + total), TTL: 64, Protocol: uint8(header.TCPProtocolNumber)})
		copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	}
	pkt.LinkHeader().Push(etherLen)[0] = 2
	if gso {
		pkt.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: 1000, CsumOffset: header.TCPChecksumOffset}
	}
	return pkt
}

// TestRebuild: a part of a frame that is sent again carries the right bytes,
// today's acknowledgement and timestamp, and right checksums.
func TestRebuild(t *testing.T) {
	payload := make([]byte, 5000)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	for _, v6 := range []bool{false, true} {
		for _, gso := range []bool{false, true} {
			m := mender{count: &counters{}}
			pkt := netstackPacket(v6, gso, 1<<32-1000, payload) // wraps
			var f mended
			f.head.note(pkt, header.TCP(pkt.TransportHeader().Slice()))
			f.head.ack, f.head.stamp = 4321, 99
			base := uint32(1<<32 - 1000)
			f.pieces = []piece{{repair.Range{From: base, To: base + 5000}, base, pkt}}
			m.build(&f, repair.Range{From: base + 1001, To: base + 3501})
			if len(m.again) != 1 || m.count.mended.Load() != 1 {
				t.Fatalf("%d packets", len(m.again))
			}
			again := m.again[0]
			data := again.Data().AsRange().ToSlice()
			tcp := header.TCP(again.TransportHeader().Slice())
			if !bytes.Equal(data, payload[1001:3501]) || tcp.SequenceNumber() != 1 || tcp.AckNumber() != 4321 ||
				tcp.WindowSize() != 600 || binary.BigEndian.Uint32(tcp[stampAt(tcp):]) != 99 || again.LinkHeader().Slice()[0] != 2 {
				t.Errorf("IPv6 %v, GSO %v: %d bytes, % x", v6, gso, len(data), []byte(tcp))
			}
			src, dst := addresses(again.NetworkProtocolNumber, again.NetworkHeader().Slice())
			sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(tcp)+len(data)))
			if gso && tcp.Checksum() != sum || !gso && !tcp.IsChecksumValid(src, dst, checksum.Checksum(data, 0), uint16(len(data))) {
				t.Errorf("IPv6 %v, GSO %v: checksum %x", v6, gso, tcp.Checksum())
			}
			ip := again.NetworkHeader().Slice()
			if v6 && int(header.IPv6(ip).PayloadLength()) != len(tcp)+len(data) || !v6 && (int(header.IPv4(ip).TotalLength()) != len(ip)+len(tcp)+len(data) || !header.IPv4(ip).IsChecksumValid()) {
				t.Errorf("IPv6 %v, GSO %v: IP header % x", v6, gso, ip)
			}
			again.DecRef()
			pkt.DecRef()
		}
	}
}

// TestRebuildNarrow: what is sent again after a router has asked for shorter segments, as
// netstack's tell, is cut to those; after that nothing makes them longer.
func TestRebuildNarrow(t *testing.T) {
	for name, c := range map[string]struct {
		gso  bool
		last uint16 // segment size of what netstack has sent last
		want uint16
	}{"shorter": {true, 600, 600}, "as they were": {true, 1000, 1000}, "longer": {true, 1200, 1000}, "no frames": {false, 0, 0}} {
		m := mender{count: &counters{}}
		pkt, last := netstackPacket(false, c.gso, 1, make([]byte, 5000)), netstackPacket(false, c.gso, 5001, nil)
		last.GSOOptions.MSS = c.last
		var f mended
		for _, p := range []*stack.PacketBuffer{pkt, last} {
			f.head.note(p, header.TCP(p.TransportHeader().Slice()))
		}
		f.pieces = []piece{{repair.Range{From: 1, To: 5001}, 1, pkt}}
		m.build(&f, repair.Range{From: 1, To: 2001})
		if len(m.again) != 1 || m.again[0].GSOOptions.MSS != c.want || c.gso && outgoing(m.again[0]).gsoSize != c.want {
			t.Errorf("%s: %d packets, options %+v", name, len(m.again), m.again[0].GSOOptions)
		}
		for _, p := range []*stack.PacketBuffer{m.again[0], pkt, last} {
			p.DecRef()
		}
	}
}

// passerby is a filter that counts what goes out.
type passerby struct{ seen int }

func (w *passerby) inbound(*segment) action               { return pass }
func (w *passerby) outbound(pkt *stack.PacketBuffer) bool { w.seen++; return true }
func (w *passerby) idle()                                 {}

// TestAgainGoesOut: the mender does not see its own packets as netstack's, whatever filters
// stand between it and that.
func TestAgainGoesOut(t *testing.T) {
	l := newLab(t, true)
	s, err := New(l.options(0, 1), nil)
	must(t, err)
	var out, in passerby
	s.keeper = &keeper{opts: GuardOptions{Gate: NewGate(guard.Fast, guard.Limits{})}}
	s.out.filters = []filter{&out}
	m := s.mend()
	defer m.close()
	s.out.filters = append(s.out.filters, &in)
	m.send(netstackPacket(false, false, 1, []byte{1}))
	if out.seen != 1 || in.seen != 0 || s.out.waiting() != 1 {
		t.Errorf("filters beyond the mender have seen %d packets, those before it %d; %d wait", out.seen, in.seen, s.out.waiting())
	}
}

// TestAsleep: where no client has reported a gap, the mender keeps nothing, and
// costs a look at the headers.
func TestAsleep(t *testing.T) {
	m := &mender{count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{}}
	pkt := netstackPacket(false, true, 1, make([]byte, 5000))
	defer pkt.DecRef()
	ack := inboundSegment(tcpHeader(500, 600, stampOption(1, 2)))
	if n := testing.AllocsPerRun(100, func() {
		m.outbound(pkt)
		m.inbound(&ack)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
	if m.awake() || len(m.flows) > 0 {
		t.Error("something is kept")
	}
	duplicate := inboundSegment(tcpHeader(5000, 600, sackOption(1000, 2000)))
	if m.inbound(&duplicate); m.awake() {
		t.Error("a duplicate (RFC 2883) counts as a gap")
	}
	gap := inboundSegment(tcpHeader(500, 600, sackOption(1000, 2000)))
	if m.inbound(&gap); !m.awake() {
		t.Error("a gap wakes nobody")
	}
}

// inboundSegment is a segment of a client's, the answer to netstackPacket.
func inboundSegment(tcp header.TCP) segment {
	ip := make([]byte, header.IPv4MinimumSize)
	copy(ip[12:], []byte{10, 0, 0, 2, 10, 0, 0, 1})
	ip = append(ip, tcp...)
	answer := header.TCP(ip[header.IPv4MinimumSize:])
	answer.SetSourcePort(tcp.DestinationPort())
	answer.SetDestinationPort(tcp.SourcePort())
	return segment{ip: ip, start: header.IPv4MinimumSize, data: len(ip), end: len(ip)}
}

// FuzzSelective: whatever options a client sends, blocks are read and hidden
// within the header, and no other option changes.
func FuzzSelective(f *testing.F) {
	f.Add([]byte(tcpHeader(1, 2, stampOption(3, 4), sackOption(5, 6, 7, 8))), uint32(6))
	f.Add([]byte(tcpHeader(1, 2, sackOption(5, 6), []byte{8, 1, 5, 200})), uint32(0))
	f.Fuzz(func(t *testing.T, p []byte, tell uint32) {
		if len(p) < header.TCPMinimumSize {
			return
		}
		tcp := header.TCP(p)
		var list [4]repair.Range
		before := selective(tcp, list[:0])
		if len(before) > 0 && !longer(tcp[:min(len(tcp), max(int(tcp.DataOffset()), header.TCPMinimumSize))]) {
			t.Fatalf("blocks are overlooked: % x", p)
		}
		others := optionsBut(tcp)
		shown := header.TCP(bytes.Clone(p))
		hide(shown, repair.Verdict{Tell: tell, Show: true})
		for _, b := range selective(shown, list[:0]) {
			if int32(b.From-tell) <= 0 {
				t.Fatalf("%v is shown, told is %d", b, tell)
			}
		}
		hide(tcp, repair.Verdict{Tell: tell})
		if got := selective(tcp, list[:0]); len(got) > 0 {
			t.Fatalf("%v is not hidden", got)
		}
		if !bytes.Equal(optionsBut(tcp), others) || !bytes.Equal(optionsBut(shown), others) {
			t.Fatalf("other options have changed: % x", p)
		}
	})
}

// optionsBut are the options of a header but for selective acknowledgements.
func optionsBut(tcp header.TCP) (all []byte) {
	eachOption(tcp, func(kind byte, from, to int) {
		if kind != header.TCPOptionSACK {
			all = append(all, tcp[from:to]...)
		}
	})
	return all
}

// BenchmarkMendAsleep is what the mender costs per packet on a clean LAN.
func BenchmarkMendAsleep(b *testing.B) {
	m := &mender{count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{}}
	pkt := netstackPacket(false, true, 1, make([]byte, 5000))
	defer pkt.DecRef()
	ack := inboundSegment(tcpHeader(500, 600, stampOption(1, 2)))
	for b.Loop() {
		m.outbound(pkt)
		m.inbound(&ack)
	}
}

// later lets a mender's clock be d further.
func (m *mender) later(d time.Duration) {
	m.mu.Lock()
	m.peers.begun = m.peers.begun.Add(-d)
	m.mu.Unlock()
	m.tick()
}

// held is what a mender has: flows, and bytes owed to clients.
func (m *mender) held() (flows, debt int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.flows), m.debt
}

// TestGivenUp: a client that owes an answer for a minute loses its connection,
// and what is kept of one that ended without a word is given back.
func TestGivenUp(t *testing.T) {
	var resets, sent atomic.Int32
	m := &mender{
		count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{},
		scale: func(*guard.Ends) (uint8, bool) { return 0, true },
		send:  func(pkt *stack.PacketBuffer) { sent.Add(1); pkt.DecRef() }, waiting: func() int { return 0 },
		reset: func(_ *guard.Ends, next uint32, v6 bool) {
			if resets.Add(1); next != 500 || v6 {
				t.Errorf("reset at %d, IPv6 %v", next, v6)
			}
		},
	}
	defer m.close()
	pkt := netstackPacket(false, true, 1, make([]byte, 5000))
	defer pkt.DecRef()
	begin := func() {
		m.outbound(pkt)
		if flows, _ := m.held(); flows != 1 {
			t.Fatalf("%d flows", flows)
		}
	}
	first := inboundSegment(tcpHeader(1, 60000, sackOption(3001, 5001)))
	m.inbound(&first) // the client's first gap is netstack's

	begin()
	m.later(mendIdle)
	if flows, _ := m.held(); flows != 0 || m.live.Load() != 0 {
		t.Errorf("%d flows are kept without any sign", flows)
	}

	begin()
	gap := inboundSegment(tcpHeader(1, 60000, sackOption(3001, 5001)))
	m.inbound(&gap)
	if _, debt := m.held(); gap.tcp().AckNumber() != 5001 || debt != 5000 {
		t.Errorf("told %d, %d owed", gap.tcp().AckNumber(), debt)
	}
	m.later(2 * mendIdle)
	if flows, _ := m.held(); flows != 1 || sent.Load() == 0 || resets.Load() != 0 {
		t.Errorf("%d flows, %d packets sent again, %d resets", flows, sent.Load(), resets.Load())
	}
	m.later(time.Minute)
	if flows, debt := m.held(); flows != 0 || debt != 0 || resets.Load() != 1 {
		t.Errorf("%d flows, %d owed, %d resets", flows, debt, resets.Load())
	}
	m.later(2 * peerTime)
	if m.outbound(pkt); m.awake() {
		t.Error("a client's poor line is never forgotten")
	}
}

// TestForgedSegmentsEndNoMending: what netstack does not mind - resets that have not the
// number that comes next, SYNs, what acknowledges nothing or what was never sent - leaves
// what is owed to the client, which nobody else would send again. Its own reset ends that.
func TestForgedSegmentsEndNoMending(t *testing.T) {
	m := &mender{
		count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{},
		scale: func(*guard.Ends) (uint8, bool) { return 0, true },
		send:  func(pkt *stack.PacketBuffer) { pkt.DecRef() }, waiting: func() int { return 0 },
	}
	defer m.close()
	next := uint32(500) // of the client's numbers, for netstack
	hear := func(seq, ack uint32, flags header.TCPFlags, options ...[]byte) {
		tcp := tcpHeader(ack, 60000, options...)
		tcp.SetSequenceNumber(seq)
		tcp.SetFlags(uint8(flags))
		s := inboundSegment(tcp)
		if m.inbound(&s) != pass {
			t.Errorf("a segment with flags %v is swallowed", flags)
		}
	}
	hear(next, 1, header.TCPFlagAck, sackOption(3001, 5001)) // the client's first gap is netstack's
	pkt := netstackPacket(false, true, 1, make([]byte, 5000))
	defer pkt.DecRef()
	m.outbound(pkt)
	hear(next, 1, header.TCPFlagAck, sackOption(3001, 5001))
	for name, s := range map[string]struct {
		seq, ack uint32
		flags    header.TCPFlags
	}{
		"an old reset":                 {next - 1, 1, header.TCPFlagRst},
		"a reset from nowhere":         {next + 1<<31, 1, header.TCPFlagRst | header.TCPFlagAck},
		"a SYN":                        {next, 1, header.TCPFlagSyn},
		"a SYN-ACK":                    {next, 1, header.TCPFlagSyn | header.TCPFlagAck},
		"no flags":                     {next, 0, 0},
		"a FIN alone":                  {next, 0, header.TCPFlagFin},
		"acknowledges what is to come": {next, 1 + 1<<30, header.TCPFlagAck},
		"has numbers from nowhere":     {next + 1<<30, 5001, header.TCPFlagAck},
		"has numbers of long ago":      {next - 1<<30, 5001, header.TCPFlagAck},
	} {
		hear(s.seq, s.ack, s.flags)
		if flows, debt := m.held(); flows != 1 || debt != 5000 {
			t.Fatalf("%s: %d flows, %d bytes owed, want 1 and 5000", name, flows, debt)
		}
	}
	hear(next+1000, 1, header.TCPFlagRst) // after 1000 bytes that netstack has not acknowledged
	if flows, debt := m.held(); flows != 0 || debt != 0 {
		t.Errorf("after its reset: %d flows, %d bytes owed", flows, debt)
	}
}

// TestQuestionsBringNothing: netstack asks whether a window is still shut with a byte that has
// no meaning, where the one before was acknowledged. So it must not leave where that is
// true for netstack only: the client might take it for what it lacks.
func TestQuestionsBringNothing(t *testing.T) {
	m := &mender{
		count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{},
		scale: func(*guard.Ends) (uint8, bool) { return 0, true },
		send:  func(pkt *stack.PacketBuffer) { pkt.DecRef() }, waiting: func() int { return 0 },
		reset: func(*guard.Ends, uint32, bool) {},
	}
	defer m.close()
	hear := func(ack uint32, blocks ...uint32) header.TCP {
		s := inboundSegment(tcpHeader(ack, 20000, sackOption(blocks...)))
		m.inbound(&s)
		return s.tcp()
	}
	hear(1, 3001, 5001) // the client's first gap is netstack's
	pkt := netstackPacket(false, true, 1, make([]byte, 20000))
	defer pkt.DecRef()
	m.outbound(pkt)
	// Netstack is told three quarters of the window, which end in the second gap.
	told := hear(1, 2001, 14001, 16001, 20001)
	if told.AckNumber() != 15001 || told.WindowSize() != 0 {
		t.Fatalf("netstack is told %d, with a window of %d", told.AckNumber(), told.WindowSize())
	}
	question := func(una uint32) bool {
		probe := netstackPacket(false, false, una-1, []byte{0})
		defer probe.DecRef()
		return m.outbound(probe)
	}
	for range 10 { // the line is silent for seconds
		m.later(time.Second)
		if question(15001) {
			t.Fatal("a byte of a question leaves that the client may lack")
		}
	}
	hear(15001, 16001, 20001)
	if !question(15001) {
		t.Error("a question does not leave although the client has what it brings")
	}
}
