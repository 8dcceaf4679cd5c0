package split

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// filter stands between the hub and netstack: the handshake guard, and what
// sends packets on without ending their connection. Both methods may change
// headers in place. They are called on different goroutines at the same time.
//
// Filters are asked in the order of receiver.filters, from the hub on, for what comes in,
// in the opposite order for what goes out; the first that does not let a packet pass ends
// the round.
type filter interface {
	// inbound sees a TCP segment that has passed all checks, before netstack
	// does. It must not keep s. Called by the receive loop only.
	inbound(s *segment) action
	// outbound sees a packet of netstack's with all headers set; false swallows
	// it. The filter must not keep it. Called by whatever goroutine sends.
	outbound(pkt *stack.PacketBuffer) bool
	// idle is called by the receive loop after every batch, before it may park.
	idle()
}

// action is what a filter wants done with a segment.
type action uint8

const (
	pass    action = iota // go on to the next filter, at last to netstack
	swallow               // it ends here, and is counted
	forward               // send it back out of the hub as it stands in its slot
)

// segment is a received TCP segment in its slot. It may be longer than the MTU
// (see gso), and payload may go on in tail.
type segment struct {
	ip    []byte // from the IP header on, within the slot's head: all headers and the first payload
	tail  []byte // the payload that follows ip
	start int    // of the TCP header, in bytes from the IP header
	data  int    // of the payload, in bytes from the IP header
	end   int    // of the packet, in bytes from the IP header
	v6    bool
	// partial says that the checksum field holds the pseudo header's sum only
	// and the kernel completes it on sending: then nothing but the addresses,
	// the protocol and the length are part of it. Otherwise whoever changes a
	// segment that is to be forwarded mends the checksum.
	partial bool
	gso     bool // the kernel will cut it into segments

	slot *slot // for replace
}

// tcp is the TCP header, options included, and the first payload.
func (s *segment) tcp() header.TCP { return header.TCP(s.ip[s.start:]) }

// payload is the length of the payload in bytes.
func (s *segment) payload() int { return s.end - s.data }

// source and destination are the addresses as they stand in the IP header,
// 4 or 16 bytes.
func (s *segment) source() []byte {
	if s.v6 {
		return s.ip[8:24]
	}
	return s.ip[12:16]
}

func (s *segment) destination() []byte {
	if s.v6 {
		return s.ip[24:40]
	}
	return s.ip[16:20]
}

// errorFilter is a filter that wants ICMP errors, too.
type errorFilter interface {
	// inboundError sees an ICMP error that has passed all checks; start is
	// where its ICMP header begins in ip, in bytes, and end the packet's length.
	inboundError(ip []byte, start, end int) action
}

// segmentOf describes the TCP segment of a parsed packet; false if its data
// offset is not within what the slot's head holds.
func segmentOf(p packet, ip, tail []byte, v vnetHeader) (segment, bool) {
	s := segment{
		ip: ip[:min(len(ip), p.end)], start: p.start, end: p.end,
		v6: p.network == header.IPv6ProtocolNumber, partial: v.flags&vnetNeedsCsum != 0, gso: v.gso(),
	}
	s.tail = tail[:p.end-len(s.ip)]
	if s.start+header.TCPMinimumSize > len(s.ip) {
		return s, false
	}
	s.data = s.start + int(s.tcp().DataOffset())
	return s, s.data >= s.start+header.TCPMinimumSize && s.data <= len(s.ip)
}

// parse makes r.seg of a received packet; false if that is no TCP segment, or not a whole one.
func (r *receiver) parse(s *slot, p packet, frame []byte, size int, v vnetHeader) (ok bool) {
	if p.transport != uint8(header.TCPProtocolNumber) {
		return false
	}
	r.seg, ok = segmentOf(p, frame[etherLen:], s.tail.AsSlice()[:size-len(frame)], v)
	r.seg.slot = s
	return ok
}

// filterIn asks the filters about a received packet, which is r.seg if that is one.
func (r *receiver) filterIn(p packet, ip []byte, isSegment bool) action {
	switch {
	case len(r.filters) == 0:
		return pass
	case p.transport != uint8(header.TCPProtocolNumber):
		return r.filterError(p, ip)
	case !isSegment:
		return swallow
	}
	for _, f := range r.filters {
		if a := f.inbound(&r.seg); a != pass {
			return a
		}
	}
	return pass
}

// filterError asks the filters that want to know about an ICMP error.
func (r *receiver) filterError(p packet, ip []byte) action {
	for _, f := range r.filters {
		e, ok := f.(errorFilter)
		if !ok {
			continue
		}
		if a := e.inboundError(ip[:min(len(ip), p.end)], p.start, p.end); a != pass {
			return a
		}
	}
	return pass
}

// replace puts headers in place of the segment's first skip bytes, which are
// its own headers and at most frontRoom bytes shorter. The segment is to be
// forwarded then, and not to be looked at again.
func (s *segment) replace(headers []byte, skip int) {
	s.slot.grown = len(headers) - skip
	frame := s.slot.room[frontRoom-s.slot.grown:]
	copy(frame[12:etherLen], s.slot.head[12:etherLen])
	copy(frame[etherLen:], headers)
}

// offload says what the kernel is left to do with a segment that is to be
// forwarded: with mss > 0 cut it to segments of that many bytes of payload;
// with partial complete the checksum. headers is the length of all headers from
// the IP header on, in bytes.
func (s *segment) offload(mss int, partial bool, headers int) {
	h := vnetHeader{headerLen: uint16(etherLen + headers)}
	if partial {
		h.flags, h.csumStart, h.csumOffset = vnetNeedsCsum, uint16(etherLen+s.start), header.TCPChecksumOffset
	}
	if mss > 0 {
		h.gsoSize, h.gsoType = uint16(mss), vnetGSOTCPv4
		if s.v6 {
			h.gsoType = vnetGSOTCPv6
		}
	}
	h.put(s.slot.vnet[:])
}

// mss is the payload per segment of a segment that the kernel will cut, else 0.
func (s *segment) mss() int {
	if !s.gso {
		return 0
	}
	return int(binary.LittleEndian.Uint16(s.slot.vnet[4:]))
}

// filterOut asks the first n filters about a packet of netstack's.
func (o *outbox) filterOut(pkt *stack.PacketBuffer, n int) bool {
	for i := n - 1; i >= 0; i-- {
		if !o.filters[i].outbound(pkt) {
			return false
		}
	}
	return true
}

// forwarder sends frames of receive slots back out of the hub.
type forwarder struct {
	macs  [12]byte // destination and source of what goes out
	slots []*slot
	msgs  [slots]mmsghdr
	next  int
	errno unix.Errno
	write func(fd uintptr) bool
}

// add makes a slot's frame, size bytes long, wait for flush.
func (w *forwarder) add(s *slot, size int) {
	frame := s.room[frontRoom-s.grown:]
	copy(frame, w.macs[:])
	s.vnet[0] &= vnetNeedsCsum // DATA_VALID says nothing on the way out
	head := min(size, headRoom)
	s.iovs[1] = iovec(frame[:head+s.grown])
	s.iovs[2].SetLen(size - head)
	m := &w.msgs[len(w.slots)]
	m.point(s.iovs[:])
	w.slots = append(w.slots, s)
}

// flush sends what waits and makes the slots fit to receive again.
func (r *receiver) flush() {
	w := &r.onward
	if len(w.slots) == 0 {
		return
	}
	w.next = 0
	for w.next < len(w.slots) {
		if err := r.raw.Write(w.write); err != nil {
			break // the socket is closing
		}
		if w.errno != 0 {
			r.count.sendErrors.Add(1)
			w.next++
		}
	}
	r.count.forwarded.Add(uint64(len(w.slots)))
	for i, s := range w.slots {
		s.iovs[1] = iovec(s.head)
		s.grown = 0
		s.iovs[2].SetLen(tailRoom)
		w.slots[i] = nil
	}
	w.slots = w.slots[:0]
}

// attempt sends from next on; false makes the caller park until there is room.
func (w *forwarder) attempt(fd uintptr) bool {
	for w.next < len(w.slots) {
		n, errno := sendmmsg(fd, w.msgs[w.next:len(w.slots)])
		w.errno = errno
		if errno != 0 {
			return errno != unix.EAGAIN
		}
		w.next += n
	}
	return true
}
