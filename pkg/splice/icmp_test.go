package splice

import (
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// icmp gives the table a router's error about a packet of ours with a number.
// kind and code are ICMPv4's; those of ICMPv6 follow from them.
func (w *world) icmp(kind, code byte, seq uint32) {
	w.icmpAbout(tcp{src: w.hub, dst: w.s, seq: seq, flags: flagACK}, kind, code)
}

// icmpAbout is icmp for any packet.
func (w *world) icmpAbout(s tcp, kind, code byte) {
	quoted := s.packet()
	proto, router := byte(protoICMP), hub4
	if s.src.Addr().Is6() {
		proto, router = protoIP6I, hub6
		if kind = icmp6Unreach; code == icmpTooBig {
			kind = icmp6TooBig
		}
		code = 0
	}
	b := appendIP(nil, router, s.src.Addr(), proto)
	at := len(b)
	b = append(b, kind, code, 0xbe, 0xef, 0, 0, byte(w.mtu>>8), byte(w.mtu)) // a checksum, which the kernel has seen to
	b = append(b, quoted[:len(quoted)-tcpMin+icmpQuote]...)
	setSize(b, len(b))
	p := &Packet{Header: b, Start: at, Size: len(b)}
	if v := w.table.HandleError(w.now, p); v != Took {
		w.Errorf("verdict %d", v)
	}
}

// TestTooBig: a router's word about a packet reaches the client that sent it,
// about its own packet; a forged one does not.
func TestTooBig(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	w.forward(w.fromClient(0, u.iss+1, u.isn+1, "hello"))
	w.icmp(icmpUnreachable, icmpTooBig, u.iss+500)
	w.icmp(icmpUnreachable, 1, u.iss+1)
	if len(w.raw) != 0 || len(w.took()) != 0 {
		t.Fatalf("a forged error was passed on: % x", w.raw)
	}
	w.icmp(icmpUnreachable, icmpTooBig, u.iss+1)
	if len(w.raw) != 1 {
		t.Fatalf("%d errors passed on", len(w.raw))
	}
	b := w.raw[0]
	q, ok := parseQuote(&Packet{Header: b, Start: ip4Len, Size: len(b)})
	if !ok || q.src != w.c || q.dst != w.s || q.seq != u.iss+1 || binary.BigEndian.Uint16(q.message[6:]) != 1300 {
		t.Errorf("the client gets %+v", q)
	}
	if checksum.Checksum(b[ip4Len:], 0) != 0xffff || checksum.Checksum(q.ip[:ip4Len], 0) != 0xffff || checksum.Checksum(b[:ip4Len], 0) != 0xffff {
		t.Error("a checksum is wrong")
	}
}

// TestTooBigForClient: a packet of the server's that is too big for the client's
// way is the server's matter, which learns it about its own packet.
func TestTooBigForClient(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		w := spliced(t, u)
		w.forward(w.fromServer(0, u.srv+1, u.iss+1, "hello"))
		about := func(seq uint32) { w.icmpAbout(tcp{src: w.s, dst: w.c, seq: seq}, icmpUnreachable, icmpTooBig) }
		about(u.isn + 6)
		about(u.isn)
		if len(w.raw) != 0 {
			t.Fatalf("a forged error was passed on: % x", w.raw)
		}
		about(u.isn + 1)
		if len(w.raw) != 1 {
			t.Fatalf("%d errors passed on", len(w.raw))
		}
		p := packetOf(w.raw[0])
		src, dst := p.ends()
		q, ok := parseQuote(p)
		if !ok || src.Addr() != w.hub.Addr() || dst.Addr() != w.s.Addr() || q.src != w.s || q.dst != w.hub || q.seq != u.srv+1 || binary.BigEndian.Uint16(q.message[6:]) != 1300 {
			t.Errorf("the server gets %v to %v: %+v, %v", src, dst, q, ok)
		}
	})
}

// TestTooBigWithStamps: a server without timestamps is told to leave room for those that
// its packets are given, or they would be too big for ever. Where it may not send as little
// as that, they are cut.
func TestTooBigWithStamps(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		u.answers.Stamps = false
		w := spliced(t, u)
		least, headers := uint16(552), 20+20
		if u.six {
			least, headers = 1280, 40+20
		}
		seq := u.srv + 1
		for _, c := range []struct{ mtu, told, takes uint16 }{
			{1300, 1288, 1300}, {1400, 1388, 1300}, {least + 12, least, least + 12}, {least + 5, least, least + 5},
			{least, least, least}, {0, 0, least}, {100, 100, least},
		} {
			w.mtu, w.raw = c.mtu, nil
			w.forward(w.fromServer(0, seq, u.iss+1, "hello"))
			w.icmpAbout(tcp{src: w.s, dst: w.c, seq: u.isn + seq - u.srv}, icmpUnreachable, icmpTooBig)
			w.expectMTU(u.six, c.told)
			payload := int(c.told) - headers // without options
			if c.told < least {
				payload = int(least) - headers
			}
			v, p := w.handle(w.fromServer(0, seq, u.iss+1, string(make([]byte, payload))))
			segment := int(c.takes) - headers - stampsSpace
			if cut := payload > segment; v != Forward || cut != (p.Segment == segment) || cut != p.Partial {
				t.Errorf("a router takes %d bytes: verdict %d, segments of %d bytes, want them of %d: %v", c.mtu, v, p.Segment, segment, cut)
			}
			seq += uint32(payload)
		}
		w.mtu, w.raw = 1300, nil
		w.forward(w.fromClient(0, u.iss+1, u.isn+1, "hello"))
		w.icmpAbout(tcp{src: w.hub, dst: w.s, seq: u.iss + 1}, icmpUnreachable, icmpTooBig)
		w.expectMTU(u.six, 1300) // what the client sends does not grow
	})
}

// expectMTU expects one error to have been passed on that says an MTU.
func (w *world) expectMTU(six bool, want uint16) {
	w.Helper()
	if len(w.raw) != 1 {
		w.Fatalf("a router takes %d bytes: %d errors passed on", w.mtu, len(w.raw))
	}
	p := packetOf(w.raw[0])
	message := p.Header[p.Start:]
	sum := checksum.Checksum(message, 0)
	if six {
		sum = checksum.Combine(sum, pseudoSum(p.Header, protoIP6I, len(message)))
	}
	if got := binary.BigEndian.Uint16(message[6:]); got != want || sum != 0xffff {
		w.Errorf("a router takes %d bytes: the end is told %d, want %d; checksum %x", w.mtu, got, want, sum)
	}
}

// TestForeignError: errors about other packets are not for the table.
func TestForeignError(t *testing.T) {
	w := spliced(t, modern())
	for _, b := range [][]byte{nil, make([]byte, 60), append([]byte{0x45}, make([]byte, 80)...)} {
		if v := w.table.HandleError(w.now, &Packet{Header: b, Start: ip4Len, Size: len(b)}); v != Foreign {
			t.Errorf("verdict %d for % x", v, b)
		}
	}
}
