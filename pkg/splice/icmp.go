package splice

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// ICMP messages (RFC 792, RFC 1191, RFC 4443), lengths in bytes.
const (
	icmpHeader      = 8
	icmpQuote       = 8 // of TCP: ports and sequence number
	icmpUnreachable = 3
	icmpTooBig      = 4 // code of icmpUnreachable
	icmp6Unreach    = 1
	icmp6TooBig     = 2
)

// The least path MTU that ends believe, in bytes: Linux's net.ipv4.route.min_pmtu, and
// RFC 8200 section 5.
const (
	leastMTU4 = 552
	leastMTU6 = 1280
)

// quote is what an ICMP error says about a packet that was sent.
type quote struct {
	message  []byte // ICMP header
	ip       []byte // quoted IP header and the start of its TCP header
	start    int    // of TCP in ip
	src, dst netip.AddrPort
	seq      uint32
}

// HandleError takes a packet with an ICMP error, which p.Start is the offset
// of. One about a SYN of ours ends the attempt; that a packet was too big is
// passed on to the end that sent it; others are ignored. Errors about
// packets that are not under way are thought to be forged (RFC 5927).
func (t *Table) HandleError(now time.Duration, p *Packet) Verdict {
	t.now = now
	q, ok := parseQuote(p)
	if !ok {
		return Foreign
	}
	var from side
	var i int32
	if t.isHub(q.src.Addr()) {
		from, i = client, t.byServer(keyOf(q.dst, q.src))
	} else {
		from, i = server, t.byClient(keyOf(q.dst, q.src))
	}
	if i == none {
		return Foreign
	}
	f := t.at(i)
	t.catchUp(f)
	switch {
	case from == client && (f.state == calling || f.state == asking) && q.seq == f.acked[server]-1 && !q.tooBig():
		t.count.Unreachable++
		t.resetClient(f)
		t.drop(i)
	case f.state == open && q.tooBig() && f.underWay(from, q.seq):
		t.tellTooBig(f, from, &q)
	}
	return Took
}

// underWay says that a number of an end's, as the other end sees it, is not
// acknowledged yet.
func (f *flow) underWay(from side, n uint32) bool {
	next := f.toServer(f.next[client])
	if from == server {
		next = f.toClient(f.next[server])
	}
	return !before(n, f.acked[from.other()]) && before(n, next)
}

func (q *quote) v4() bool { return q.ip[0]>>4 == 4 }

// tooBig says that a packet was longer than the path takes.
func (q *quote) tooBig() bool {
	if q.v4() {
		return q.message[0] == icmpUnreachable && q.message[1] == icmpTooBig
	}
	return q.message[0] == icmp6TooBig
}

// parseQuote finds the TCP packet that an ICMP error is about.
func parseQuote(p *Packet) (q quote, ok bool) {
	h := p.Header
	if len(h) < 1 || p.Start < ip4Len || len(h) < p.Start+icmpHeader+ip4Len+icmpQuote {
		return q, false
	}
	q.message, q.ip = h[p.Start:p.Start+icmpHeader], h[p.Start+icmpHeader:]
	if q.ip[0]>>4 != h[0]>>4 {
		return q, false
	}
	switch kind := q.message[0]; {
	case q.v4() && kind == icmpUnreachable && q.ip[ip4Proto] == protoTCP:
		q.start = int(q.ip[0]&0x0f) * 4
	case !q.v4() && (kind == icmp6Unreach || kind == icmp6TooBig) && q.ip[ip6Next] == protoTCP:
		q.start = ip6Len
	}
	if q.start < ip4Len || len(q.ip) < q.start+icmpQuote {
		return q, false
	}
	q.ip = q.ip[:q.start+icmpQuote]
	quoted := Packet{Header: q.ip, Start: q.start}
	q.src, q.dst = quoted.ends()
	q.seq = binary.BigEndian.Uint32(q.ip[q.start+offSeq:])
	return q, true
}

// tellTooBig passes on a router's word about a packet that an end has sent, as
// that end has sent it. It comes from the other end, whose address is sure to
// be let in by the hub; a server is told by the hub, as always.
func (t *Table) tellTooBig(f *flow, from side, q *quote) {
	proto := byte(protoICMP)
	if !q.v4() {
		proto = protoIP6I
	}
	src, dst := f.server(), f.client()
	mine, put, port, shift := dst, setSource, offSource, -f.up
	if from == server {
		src, dst = t.hubEnd(f), f.server()
		mine, put, port, shift = src, setDestination, offDest, -f.down
	}
	b := appendIP(t.scratch[:0], src.Addr(), dst.Addr(), proto)
	start := len(b)
	b = append(append(b, q.message...), q.ip...)
	quoted := b[start+icmpHeader:]
	put(quoted, mine.Addr())
	if q.v4() {
		quoted[ip4Sum], quoted[ip4Sum+1] = 0, 0
		binary.BigEndian.PutUint16(quoted[ip4Sum:], ^sum(quoted[:q.start]))
	}
	binary.BigEndian.PutUint16(quoted[q.start+port:], mine.Port())
	add32(quoted[q.start+offSeq:], shift)
	setSize(b, len(b))
	message := b[start:]
	if from == server && f.stamped() {
		f.shrink(message, q.v4())
	}
	message[2], message[3] = 0, 0
	total := sum(message)
	if !q.v4() {
		total = fold(uint32(total) + uint32(pseudoSum(b, proto, len(message))))
	}
	binary.BigEndian.PutUint16(message[2:], ^total)
	t.scratch = b
	t.cfg.Emit(b)
}

// shrink sees to a router's word about what a server has sent that has been given
// timestamps: with packets as long as the router takes, ours would be too long for it again
// and again. The server is told to leave room for them. As it may not send as little
// (leastMTU), what is longer yet is cut here (divide). A router that does not say how
// long packets may be (RFC 1191 section 5) is not mended.
func (f *flow) shrink(message []byte, v4 bool) {
	const at4, at6 = 6, 4 // of the path's MTU
	mtu, least, headers := binary.BigEndian.Uint32(message[at6:]), uint32(leastMTU6), uint32(ip6Len+tcpMin)
	if v4 {
		mtu, least, headers = uint32(binary.BigEndian.Uint16(message[at4:])), leastMTU4, ip4Len+tcpMin
	}
	if mtu == 0 {
		return
	}
	f.mss[client] = min(f.mss[client], uint16(min(max(mtu, least), maxPacket)-headers))
	if told := max(mtu, least+stampsSpace) - stampsSpace; told < mtu && v4 {
		binary.BigEndian.PutUint16(message[at4:], uint16(told))
	} else if told < mtu {
		binary.BigEndian.PutUint32(message[at6:], told)
	}
}
