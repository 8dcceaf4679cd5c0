package split

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
	"hawser/pkg/repair"
)

// template is what a segment that is sent again is headed by: the headers that
// netstack has sent last, as they were before the guard translated them.
type template struct {
	link    [etherLen]byte
	linkLen int
	ip      [header.IPv6MinimumSize]byte
	ipLen   int
	ports   [4]byte
	ack     uint32
	window  uint16
	stamps  bool
	stamp   uint32 // TSval
	echo    uint32 // TSecr
	mss     uint16 // of a frame that the kernel cuts: it becomes less when a router asks for that
}

// note takes what netstack says last. Strange IP headers make no template.
func (t *template) note(pkt *stack.PacketBuffer, tcp header.TCP) {
	ip := pkt.NetworkHeader().Slice()
	if t.ipLen = 0; len(ip) <= len(t.ip) {
		t.ipLen = copy(t.ip[:], ip)
	}
	t.linkLen = copy(t.link[:], pkt.LinkHeader().Slice())
	copy(t.ports[:], tcp)
	t.ack, t.window = tcp.AckNumber(), tcp.WindowSize()
	if mss := pkt.GSOOptions.MSS; mss > 0 {
		t.mss = mss
	}
	if at := stampAt(tcp); at > 0 {
		t.stamps = true
		t.stamp, t.echo = binary.BigEndian.Uint32(tcp[at:]), binary.BigEndian.Uint32(tcp[at+4:])
	}
}

func (t *template) v6() bool { return t.ipLen == header.IPv6MinimumSize && t.ip[0]>>4 == 6 }

// tcpLen is the length of the TCP header in bytes: a timestamp is padded to 12.
func (t *template) tcpLen() int {
	if t.stamps {
		return header.TCPMinimumSize + 12
	}
	return header.TCPMinimumSize
}

// put writes the TCP header of a segment at seq; its checksum is missing.
func (t *template) put(tcp header.TCP, seq uint32) {
	clear(tcp)
	copy(tcp, t.ports[:])
	tcp.SetSequenceNumber(seq)
	tcp.SetAckNumber(t.ack)
	tcp.SetDataOffset(uint8(len(tcp)))
	tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagPsh))
	tcp.SetWindowSize(t.window)
	if !t.stamps {
		return
	}
	o := tcp[header.TCPMinimumSize:]
	o[0], o[1], o[2], o[3] = header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionTS, header.TCPOptionTSLength
	binary.BigEndian.PutUint32(o[4:], t.stamp)
	binary.BigEndian.PutUint32(o[8:], t.echo)
}

// build makes the packets that carry r once more. The caller holds mu.
func (m *mender) build(f *mended, r repair.Range) {
	if f.head.ipLen == 0 {
		return
	}
	for i := f.first; i < len(f.pieces); i++ {
		p := &f.pieces[i]
		from, to := r.From, r.To
		if int32(from-p.From) < 0 {
			from = p.From
		}
		if int32(p.To-to) < 0 {
			to = p.To
		}
		if int32(to-from) > 0 {
			m.again = append(m.again, f.head.rebuild(p, repair.Range{From: from, To: to}))
			m.count.mended.Add(1)
		}
	}
}

// rebuild makes a packet with a part of an earlier one's payload.
func (t *template) rebuild(p *piece, r repair.Range) *stack.PacketBuffer {
	data := p.pkt.Data().ToBuffer() // shares the bytes
	data.TrimFront(int64(r.From - p.base))
	data.Truncate(int64(r.Len()))
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: t.linkLen + t.ipLen + t.tcpLen(), Payload: data})
	pkt.NetworkProtocolNumber, pkt.TransportProtocolNumber = p.pkt.NetworkProtocolNumber, header.TCPProtocolNumber
	pkt.GSOOptions = p.pkt.GSOOptions
	if t.mss > 0 {
		pkt.GSOOptions.MSS = min(pkt.GSOOptions.MSS, t.mss)
	}
	tcp := header.TCP(pkt.TransportHeader().Push(t.tcpLen()))
	t.put(tcp, r.From)
	ip := pkt.NetworkHeader().Push(t.ipLen)
	copy(ip, t.ip[:])
	copy(pkt.LinkHeader().Push(t.linkLen), t.link[:])
	finishIP(ip, len(tcp)+r.Len())
	finishTCP(pkt, ip, tcp, r.Len())
	return pkt
}

// finishIP sets the lengths and the checksum for n bytes after the IP header.
func finishIP(ip []byte, n int) {
	if header.IPVersion(ip) == header.IPv6Version {
		header.IPv6(ip).SetPayloadLength(uint16(len(ip) - header.IPv6MinimumSize + n))
		return
	}
	h := header.IPv4(ip)
	h.SetTotalLength(uint16(len(ip) + n))
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
}

// finishTCP leaves the checksum to the kernel as netstack has done for the
// original, or computes it.
func finishTCP(pkt *stack.PacketBuffer, ip []byte, tcp header.TCP, payload int) {
	src, dst := addresses(pkt.NetworkProtocolNumber, ip)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(tcp)+payload))
	if pkt.GSOOptions.Type != stack.GSONone && pkt.GSOOptions.NeedsCsum {
		tcp.SetChecksum(sum)
		return
	}
	tcp.SetChecksum(^tcp.CalculateChecksum(checksum.Combine(sum, pkt.Data().Checksum())))
}

// segmentSize is the payload of one segment as the wire will have it.
func segmentSize(pkt *stack.PacketBuffer) int {
	if mss := int(pkt.GSOOptions.MSS); mss > 0 {
		return mss
	}
	return max(pkt.Data().Size(), 1)
}

// endsTo are the ends of a packet of netstack's.
func endsTo(pkt *stack.PacketBuffer, tcp header.TCP) (e guard.Ends) {
	e.ClientPort, e.ServerPort = tcp.DestinationPort(), tcp.SourcePort()
	src, dst := addresses(pkt.NetworkProtocolNumber, pkt.NetworkHeader().Slice())
	put(&e.Client, dst.AsSlice())
	put(&e.Server, src.AsSlice())
	return e
}

// longer reports whether a header has room for selective acknowledgements: more
// options than the usual timestamp alone.
func longer(tcp header.TCP) bool {
	n := len(tcp) - header.TCPMinimumSize
	return n > 0 && (n != 12 || tcp[header.TCPMinimumSize+2] != header.TCPOptionTS)
}

// stampAt returns where TSval is in tcp, or 0.
func stampAt(tcp header.TCP) (at int) {
	eachOption(tcp, func(kind byte, from, to int) {
		if kind == header.TCPOptionTS && to-from == header.TCPOptionTSLength {
			at = from + 2
		}
	})
	return at
}

// selective appends the blocks of the selective acknowledgements of a header
// (RFC 2018 section 3) to list, as far as that has room.
func selective(tcp header.TCP, list []repair.Range) []repair.Range {
	eachOption(tcp, func(kind byte, from, to int) {
		for i := from + 2; kind == header.TCPOptionSACK && i+8 <= to && len(list) < cap(list); i += 8 {
			list = append(list, repair.Range{From: binary.BigEndian.Uint32(tcp[i:]), To: binary.BigEndian.Uint32(tcp[i+4:])})
		}
	})
	return list
}

// hide takes the blocks away that netstack is not to see: all, or those up to
// what it is told. The checksum has been verified before.
func hide(tcp header.TCP, v repair.Verdict) {
	eachOption(tcp, func(kind byte, from, to int) {
		if kind != header.TCPOptionSACK {
			return
		}
		end := from + 2
		for i := from + 2; v.Show && i+8 <= to; i += 8 {
			if int32(binary.BigEndian.Uint32(tcp[i:])-v.Tell) > 0 {
				copy(tcp[end:], tcp[i:i+8])
				end += 8
			}
		}
		if end == from+2 {
			end = from
		} else {
			tcp[from+1] = byte(end - from)
		}
		for ; end < to; end++ {
			tcp[end] = header.TCPOptionNOP
		}
	})
}

// eachOption calls fn for the options of tcp that have a length; from is where
// an option's kind stands, to where it ends.
func eachOption(tcp header.TCP, fn func(kind byte, from, to int)) {
	end := min(int(tcp.DataOffset()), len(tcp))
	for i := header.TCPMinimumSize; i < end; {
		switch kind := tcp[i]; {
		case kind == header.TCPOptionEOL:
			return
		case kind == header.TCPOptionNOP:
			i++
		case i+1 >= end || tcp[i+1] < 2 || i+int(tcp[i+1]) > end:
			return
		default:
			to := i + int(tcp[i+1])
			fn(kind, i, to)
			i = to
		}
	}
}
