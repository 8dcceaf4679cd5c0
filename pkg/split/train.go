package split

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// trainFlows is how many connections' trains wait at once.
	trainFlows = 4
	// trainMax is the longest payload of a train in bytes: with its headers it is to fit an
	// IP packet.
	trainMax = 60 << 10
	// trainView is how much of it goes to one view, in bytes. Views are powers of two, and
	// one for all would be half empty at worst.
	trainView = 16 << 10
	// bulky is the payload in bytes from which on a segment without PSH says that its sender
	// has more, and waits to be allowed to send it.
	bulky = 1000
)

// trains joins segments of one connection that follow each other in a received batch, so
// that netstack sees one long segment: 20 KB cost it hardly more than 1 KB, and it is
// answered once. Frames that the kernel or a card has joined before have little left to
// join; those of a software bridge, a veth or some cards come one by one.
//
// Segments join that differ in sequence number, PSH and timestamps only. netstack sees the
// first one's headers. Of the timestamps it would keep the first one's in any case: it notes
// those of what begins where it last acknowledged (RFC 7323 section 4.3). Filters see every
// segment, before. All trains leave with their batch.
//
// They point into receive slots, which do not change within a batch.
type trains struct {
	held [trainFlows]train
	next int // is handed over to make room
}

// train is consecutive segments of one connection.
type train struct {
	p     packet // of the first
	first segment
	size  int    // payload of all, in bytes
	after uint32 // sequence number of what may join
	cars  [slots - 1]car
	more  int // of cars
}

// car is the payload of one further segment, in two parts.
type car struct{ head, tail []byte }

// joins says whether a segment may be part of a train.
func (s *segment) joins() bool {
	least := header.IPv4MinimumSize
	if s.v6 {
		least = header.IPv6MinimumSize
	}
	return s.start == least && s.payload() > 0 && s.end <= copyMax &&
		s.tcp().Flags()&^header.TCPFlagPsh == header.TCPFlagAck
}

// board makes a packet, which is r.seg if that is one, wait for what follows it in its
// connection, or hands it over. What came before it in its connection has been handed over
// first.
func (r *receiver) board(s *slot, p packet, ip []byte, isSegment bool) {
	if !isSegment {
		r.depart() // rare, and whose it is need not be known
		r.hand(p, r.build(s, p, ip))
		return
	}
	seg := &r.seg
	ok := seg.joins()
	if ok && seg.payload() >= bulky && !seg.tcp().Flags().Contains(header.TCPFlagPsh) {
		r.bulk = true
	}
	t := r.trains.find(seg)
	switch {
	case t != nil && ok && t.takes(seg):
		t.append(seg)
		r.count.joined.Add(1)
		return
	case t != nil:
		r.leave(t)
	case ok:
		t = r.room()
	}
	if ok {
		t.begin(p, seg)
		return
	}
	r.hand(p, r.build(s, p, ip))
}

// find returns the train of s's connection; nil if there is none.
func (t *trains) find(s *segment) *train {
	for i := range t.held {
		if one := &t.held[i]; one.first.slot != nil && one.first.sameFlow(s) {
			return one
		}
	}
	return nil
}

// sameFlow compares addresses and ports.
func (s *segment) sameFlow(o *segment) bool {
	return s.v6 == o.v6 && bytes.Equal(s.ip[s.start:s.start+4], o.ip[o.start:o.start+4]) &&
		bytes.Equal(s.source(), o.source()) && bytes.Equal(s.destination(), o.destination())
}

// room returns a train that is empty, or has just left.
func (r *receiver) room() *train {
	for i := range r.trains.held {
		if t := &r.trains.held[i]; t.first.slot == nil {
			return t
		}
	}
	t := &r.trains.held[r.trains.next]
	r.trains.next = (r.trains.next + 1) % trainFlows
	r.leave(t)
	return t
}

// takes says whether s, of t's connection, can join it. The second byte of IP is the class
// of service, or a part of it and of the flow's label.
func (t *train) takes(s *segment) bool {
	f := &t.first
	if t.more == len(t.cars) || t.size+s.payload() > trainMax || s.data != f.data || s.ip[1] != f.ip[1] {
		return false
	}
	a, b := f.tcp(), s.tcp()
	return b.SequenceNumber() == t.after && a.AckNumber() == b.AckNumber() && a.WindowSize() == b.WindowSize() &&
		alike(a[header.TCPMinimumSize:f.data-f.start], b[header.TCPMinimumSize:s.data-s.start])
}

// onlyTimestamps is how options begin that are a timestamps option and nothing else.
var onlyTimestamps = []byte{header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionTS, header.TCPOptionTSLength}

// alike says whether options differ in timestamps at most, of which b's must not be older.
func alike(a, b []byte) bool {
	if len(a) == 12 && bytes.HasPrefix(a, onlyTimestamps) && bytes.HasPrefix(b, onlyTimestamps) {
		return int32(binary.BigEndian.Uint32(b[4:])-binary.BigEndian.Uint32(a[4:])) >= 0
	}
	return bytes.Equal(a, b)
}

// begin makes s the first of t.
func (t *train) begin(p packet, s *segment) {
	t.p, t.first, t.size, t.more = p, *s, s.payload(), 0
	t.after = s.tcp().SequenceNumber() + uint32(t.size)
}

// append makes s the last of t.
func (t *train) append(s *segment) {
	t.cars[t.more] = car{head: s.ip[s.data:], tail: s.tail}
	t.more++
	t.size += s.payload()
	t.after += uint32(s.payload())
}

// leave hands a train over, after which it is empty.
func (r *receiver) leave(t *train) {
	s := t.first.slot
	t.first.slot = nil
	if t.more == 0 {
		r.hand(t.p, r.build(s, t.p, t.first.ip))
		return
	}
	r.hand(t.p, t.build())
}

// depart hands all trains over.
func (r *receiver) depart() {
	for i := range r.trains.held {
		if t := &r.trains.held[i]; t.first.slot != nil {
			r.leave(t)
		}
	}
}

// build makes netstack's packet of several segments. Its checksums are not set: those of the
// parts have been verified.
func (t *train) build() *stack.PacketBuffer {
	f := &t.first
	var buf buffer.Buffer
	head := buffer.NewView(len(f.ip))
	_, _ = head.Write(f.ip) // cannot fail: the view has room
	if ip := head.AsSlice(); f.v6 {
		header.IPv6(ip).SetPayloadLength(uint16(f.data + t.size - header.IPv6MinimumSize))
	} else {
		header.IPv4(ip).SetTotalLength(uint16(f.data + t.size))
	}
	_ = buf.Append(head)
	w := viewer{buf: &buf, left: f.data + t.size - len(f.ip)}
	w.write(f.tail)
	for _, c := range t.cars[:t.more] {
		w.write(c.head)
		w.write(c.tail)
	}
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buf})
}

// viewer copies bytes to views of its own.
type viewer struct {
	buf  *buffer.Buffer
	view *buffer.View // not in buf yet
	left int          // bytes that are still to be written
}

// write copies b. When nothing is left all views are in buf.
func (w *viewer) write(b []byte) {
	for len(b) > 0 {
		if w.view == nil {
			w.view = buffer.NewView(min(w.left, trainView))
		}
		n, _ := w.view.Write(b[:min(len(b), w.view.AvailableSize())])
		b, w.left = b[n:], w.left-n
		if w.left == 0 || w.view.AvailableSize() == 0 {
			_ = w.buf.Append(w.view)
			w.view = nil
		}
	}
}
