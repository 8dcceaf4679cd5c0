package splice

import "encoding/binary"

// translate rewrites a segment of an open flow for the other end.
func (t *Table) translate(f *flow, from side, s *segment, p *Packet) Verdict {
	ip := p.Header[:p.Start]
	out := append(t.out[:0], ip...)
	if from == client {
		setSource(out, t.hub(f))
	} else {
		setDestination(out, f.client().Addr())
	}
	out = append(out, s.tcp...)
	if from == server && f.stamped() && s.flags&flagRST == 0 {
		out = insertStamps(out, p.Start, t.ownStamp(f), f.stamp[client])
	}
	tcp := out[p.Start:]
	grown := len(tcp) - len(s.tcp)
	if p.Size+grown > maxPacket {
		t.count.Oversize++
		return Took
	}
	if from == client {
		t.shiftUp(f, s, tcp)
	} else {
		t.shiftDown(f, s, tcp)
	}
	size := p.Size + grown
	setSize(out, size)
	t.divide(f, from.other(), len(tcp), s.payload, p)
	t.seal(out, p, size)
	p.Out, p.Skip = out, p.Start+len(s.tcp)
	return Forward
}

// shiftUp changes the numbers of a client's segment to what the server knows.
func (t *Table) shiftUp(f *flow, s *segment, tcp []byte) {
	binary.BigEndian.PutUint16(tcp, f.hubPort)
	add32(tcp[offSeq:], f.up)
	if s.flags&flagACK != 0 {
		add32(tcp[offAck:], -f.down)
	}
	binary.BigEndian.PutUint16(tcp[offWindow:], f.windowFor(server, s.window))
	eachOption(tcp[tcpMin:], func(kind byte, opt []byte) {
		switch {
		case kind == optStamps && len(opt) == stampsLen:
			f.stamp[client] = binary.BigEndian.Uint32(opt[2:])
			if !f.has(serverStamps) {
				blank(opt)
			} else if s.flags&flagACK != 0 {
				add32(opt[6:], -f.clock)
			}
		case kind == optSACK && !f.has(serverSACK):
			blank(opt)
		case kind == optSACK:
			shiftBlocks(opt, -f.down)
		}
	})
}

// shiftDown changes the numbers of a server's segment to what the client knows.
func (t *Table) shiftDown(f *flow, s *segment, tcp []byte) {
	binary.BigEndian.PutUint16(tcp[2:], f.clientPort)
	add32(tcp[offSeq:], f.down)
	if s.flags&flagACK != 0 {
		add32(tcp[offAck:], -f.up)
	}
	binary.BigEndian.PutUint16(tcp[offWindow:], f.windowFor(client, s.window))
	eachOption(tcp[tcpMin:], func(kind byte, opt []byte) {
		switch {
		case kind == optStamps && len(opt) == stampsLen && f.has(serverStamps):
			f.stamp[server] = binary.BigEndian.Uint32(opt[2:])
			f.told = f.stamp[server] + f.clock
			binary.BigEndian.PutUint32(opt[2:], f.told)
		case kind == optSACK:
			shiftBlocks(opt, -f.up)
		}
	})
}

// shiftBlocks adds d to the edges of a SACK option.
func shiftBlocks(opt []byte, d uint32) {
	for b := opt[2:]; len(b) >= 4; b = b[4:] {
		add32(b, d)
	}
}

// blank makes an option of no meaning.
func blank(opt []byte) {
	for i := range opt {
		opt[i] = optNop
	}
}

// insertStamps puts a timestamps option before the others of the TCP header
// that begins at start and ends out. What has no room behind it is left out:
// SACK blocks from the last on, as RFC 2018 section 3 has the receiver of data
// do, and other options altogether.
func insertStamps(out []byte, start int, val, ecr uint32) []byte {
	var old [tcpMax - tcpMin]byte
	opts := old[:copy(old[:], out[start+tcpMin:])]
	if len(opts) > tcpMax-tcpMin-stampsSpace {
		opts = shortened(opts)
	}
	out = appendStamps(out[:start+tcpMin], val, ecr)
	out = append(out, opts...)
	out[start+offLength] = byte(len(out)-start)/4<<4 | out[start+offLength]&0x0f
	return out
}

// shortened returns opts reduced to three SACK blocks; it reuses opts.
func shortened(opts []byte) []byte {
	const blocks = 3
	kept := opts[:0]
	eachOption(opts, func(kind byte, opt []byte) {
		if kind == optSACK && len(kept) == 0 {
			n := min((len(opt)-2)/8, blocks) * 8
			kept = append(append(make([]byte, 0, 4+n), optNop, optNop, optSACK, byte(2+n)), opt[2:2+n]...)
		}
	})
	return kept
}

// ownStamp is a timestamp of our own for the client of a server without any:
// milliseconds that go on from what the client was told last.
func (t *Table) ownStamp(f *flow) uint32 {
	f.told = f.clock + millis(t.now)
	return f.told
}

// divide makes a packet whose payload is more than the receiver takes per
// segment one that the kernel will cut. What the receiver has announced counts
// for segments without options (RFC 6691 section 2).
func (t *Table) divide(f *flow, to side, header, payload int, p *Packet) {
	limit := int(f.mss[to]) - (header - tcpMin)
	if limit < 1 || payload <= limit || p.Segment > 0 && p.Segment <= limit {
		return
	}
	p.Segment, p.Partial = limit, true
}

// seal sets the TCP checksum of out, which is p with another header.
func (t *Table) seal(out []byte, p *Packet, size int) {
	ip, tcp := out[:p.Start], out[p.Start:]
	pseudo := pseudoSum(ip, protoTCP, size-p.Start)
	if p.Partial {
		binary.BigEndian.PutUint16(tcp[offSum:], pseudo)
		return
	}
	check := binary.BigEndian.Uint16(tcp[offSum:])
	old := p.Header[p.Start : p.Start+int(p.Header[p.Start+offLength]>>4)*4]
	was := fold(uint32(sum(old)) + uint32(^check) + uint32(pseudoSum(p.Header, protoTCP, p.Size-p.Start)))
	tcp[offSum], tcp[offSum+1] = 0, 0
	is := fold(uint32(sum(tcp)) + uint32(pseudo))
	binary.BigEndian.PutUint16(tcp[offSum:], adjust(check, was, is))
}
