package splice

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// The ends of the flows in tests.
var (
	client4 = netip.MustParseAddrPort("10.1.0.7:40000")
	server4 = netip.MustParseAddrPort("198.51.100.9:443")
	client6 = netip.MustParseAddrPort("[fd01::7]:40000")
	server6 = netip.MustParseAddrPort("[2001:db8::9]:443")
	hub4    = netip.MustParseAddr("198.19.255.2")
	hub6    = netip.MustParseAddr("fd68:6177:7365::2")
)

// tcp is a segment in words of the tests.
type tcp struct {
	src, dst netip.AddrPort
	flags    byte
	seq, ack uint32
	window   uint16
	opts     []byte
	data     []byte
}

// packet builds the whole IP packet.
func (s tcp) packet() []byte {
	b := appendIP(nil, s.src.Addr(), s.dst.Addr(), protoTCP)
	at := len(b)
	b = append(b, make([]byte, tcpMin)...)
	for len(s.opts)%4 != 0 {
		s.opts = append(s.opts[:len(s.opts):len(s.opts)], optEnd)
	}
	b = append(append(b, s.opts...), s.data...)
	h := b[at:]
	binary.BigEndian.PutUint16(h, s.src.Port())
	binary.BigEndian.PutUint16(h[2:], s.dst.Port())
	binary.BigEndian.PutUint32(h[offSeq:], s.seq)
	binary.BigEndian.PutUint32(h[offAck:], s.ack)
	h[offLength], h[offFlags] = byte(tcpMin+len(s.opts))/4<<4, s.flags
	binary.BigEndian.PutUint16(h[offWindow:], s.window)
	setSize(b, len(b))
	binary.BigEndian.PutUint16(h[offSum:], ^sumTCP(b, at))
	return b
}

// sumTCP is the checksum of a packet by gVisor's code, which is not the code
// under test: 0xffff when the checksum field is right.
func sumTCP(b []byte, at int) uint16 {
	src, dst := b[ip4Src:ip4Dst], b[ip4Dst:ip4Dst+4]
	if b[0]>>4 == 6 {
		src, dst = b[ip6Src:ip6Dst], b[ip6Dst:ip6Dst+16]
	}
	s := checksum.Checksum(src, 0)
	s = checksum.Checksum(dst, s)
	s = checksum.Combine(s, uint16(protoTCP))
	s = checksum.Combine(s, uint16((len(b)-at)>>16))
	s = checksum.Combine(s, uint16(len(b)-at))
	return checksum.Checksum(b[at:], s)
}

// parse reads a packet back and fails the test when a checksum or length is wrong.
func parse(t testing.TB, b []byte) tcp {
	t.Helper()
	at := ip6Len
	if b[0]>>4 == 4 {
		at = int(b[0]&0x0f) * 4
		if checksum.Checksum(b[:at], 0) != 0xffff {
			t.Fatalf("IP checksum is wrong: % x", b)
		}
		if got := int(header.IPv4(b).TotalLength()); got != len(b) {
			t.Fatalf("IP length %d of %d bytes", got, len(b))
		}
	} else if got := int(header.IPv6(b).PayloadLength()); got != len(b)-ip6Len {
		t.Fatalf("IPv6 payload length %d of %d bytes", got, len(b))
	}
	if got := sumTCP(b, at); got != 0xffff {
		t.Fatalf("TCP checksum is wrong (%#x): % x", got, b)
	}
	p := Packet{Header: b, Start: at, Size: len(b)}
	h := header.TCP(b[at:])
	s := tcp{flags: byte(h.Flags()), seq: h.SequenceNumber(), ack: h.AckNumber(), window: h.WindowSize()}
	s.src, s.dst = p.ends()
	s.opts, s.data = h.Options(), h.Payload()
	return s
}

// world is a table with both ends played by the test.
type world struct {
	testing.TB
	table  *Table
	now    time.Duration
	sent   []tcp    // segments that the table has made
	raw    [][]byte // and its other packets
	c, s   netip.AddrPort
	hub    netip.AddrPort // the server's peer, once the table has called
	random uint32
	mtu    uint16  // of routers' errors
	door   *ledger // of the last table
}

func newWorld(t testing.TB, six bool) *world {
	w := &world{TB: t, now: time.Hour, c: client4, s: server4, mtu: 1300}
	if six {
		w.c, w.s = client6, server6
	}
	w.table = w.tableWith(Config{})
	return w
}

// ledger is a door that lets everybody in, unless it is shut, and sees that all
// it is told fits.
type ledger struct {
	testing.TB
	shut          bool
	pending, open map[[16]byte]int
}

func (l *ledger) Admit(c [16]byte) bool {
	if !l.shut {
		l.pending[c]++
	}
	return !l.shut
}

func (l *ledger) Connected(c [16]byte) {
	l.leave(l.pending, c)
	l.open[c]++
}

func (l *ledger) Refused(c [16]byte) { l.leave(l.pending, c) }
func (l *ledger) Closed(c [16]byte)  { l.leave(l.open, c) }

func (l *ledger) leave(m map[[16]byte]int, c [16]byte) {
	if m[c]--; m[c] < 0 {
		l.Errorf("the door is told of %d flows of % x", m[c], c)
	}
}

// counts are all flows that the door knows of.
func (l *ledger) counts() (pending, open int) {
	for _, n := range l.pending {
		pending += n
	}
	for _, n := range l.open {
		open += n
	}
	return pending, open
}

func (w *world) tableWith(cfg Config) *Table {
	if cfg.Door == nil {
		w.door = &ledger{TB: w, pending: map[[16]byte]int{}, open: map[[16]byte]int{}}
		cfg.Door = w.door
	}
	cfg.Hub4, cfg.Hub6, cfg.MSS, cfg.Scale = hub4, hub6, 1460, 7
	if cfg.Workers == 0 {
		cfg.Workers = 1
	}
	cfg.Emit = w.emit
	cfg.Random = func() uint32 { w.random = w.random*1664525 + 1013904223; return w.random }
	t, err := New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	if door := w.door; cfg.Door == door {
		w.Cleanup(func() {
			t.Reset(w.now)
			if pending, open := door.counts(); pending != 0 || open != 0 {
				w.Errorf("at the end the door knows of %d pending and %d open flows", pending, open)
			}
		})
	}
	return t
}

func (w *world) emit(b []byte) {
	b = append([]byte(nil), b...)
	if next := b[ip4Proto]; b[0]>>4 == 4 && next != protoTCP || b[0]>>4 == 6 && b[ip6Next] != protoTCP {
		w.raw = append(w.raw, b)
		return
	}
	s := parse(w, b)
	if s.dst == w.s {
		w.hub = s.src
	}
	w.sent = append(w.sent, s)
}

// took returns what the table has made since the last call.
func (w *world) took() []tcp {
	s := w.sent
	w.sent = nil
	return s
}

// one expects exactly one segment of the table's.
func (w *world) one() tcp {
	w.Helper()
	s := w.took()
	if len(s) != 1 {
		w.Fatalf("%d segments made, want 1: %+v", len(s), s)
	}
	return s[0]
}

func packetOf(b []byte) *Packet {
	p := &Packet{Header: b, Start: ip6Len, Size: len(b)}
	if b[0]>>4 == 4 {
		p.Start = ip4Len
	}
	return p
}

// handle gives a segment to the table.
func (w *world) handle(s tcp) (Verdict, *Packet) {
	p := packetOf(s.packet())
	return w.table.Handle(w.now, p), p
}

// forward expects that a segment goes on and returns how.
func (w *world) forward(s tcp) tcp {
	w.Helper()
	v, p := w.handle(s)
	if v != Forward {
		w.Fatalf("verdict %d for %+v, want Forward", v, s)
	}
	if p.Partial {
		w.Fatal("a checksum was left open")
	}
	return parse(w, rewritten(p))
}

func rewritten(p *Packet) []byte {
	return append(append([]byte(nil), p.Out...), p.Header[p.Skip:]...)
}

// swallow expects that a segment goes no further.
func (w *world) swallow(s tcp) {
	w.Helper()
	if v, _ := w.handle(s); v != Took {
		w.Fatalf("verdict %d for %+v, want Took", v, s)
	}
}

// fromClient and fromServer make segments; flags besides ACK are given.
func (w *world) fromClient(flags byte, seq, ack uint32, data string, opts ...byte) tcp {
	return tcp{src: w.c, dst: w.s, flags: flags | flagACK, seq: seq, ack: ack, window: 1000, data: []byte(data), opts: opts}
}

func (w *world) fromServer(flags byte, seq, ack uint32, data string, opts ...byte) tcp {
	return tcp{src: w.s, dst: w.hub, flags: flags | flagACK, seq: seq, ack: ack, window: 2000, data: []byte(data), opts: opts}
}

// setup says how a flow comes to be.
type setup struct {
	six             bool
	iss, isn, srv   uint32  // initial numbers: client's, ours, server's
	offers, answers Options // of client and server
}

// full are options of a modern end.
func full(val uint32) Options {
	return Options{MSS: 1460, Scale: 9, SACK: true, Stamps: true, Val: val}
}

// greet makes a flow up to the SYN-ACK.
func greet(t testing.TB, u setup) (*world, tcp) {
	w := newWorld(t, u.six)
	syn := tcp{src: w.c, dst: w.s, flags: flagSYN, seq: u.iss, window: 64000, opts: u.offers.appendTo(nil)}
	if v, _ := w.handle(syn); v != Foreign {
		t.Fatalf("verdict %d for a new SYN", v)
	}
	w.table.Greet(w.now, packetOf(syn.packet()), u.isn)
	return w, w.one()
}

// call makes a flow up to the SYN to the server.
func call(t testing.TB, u setup) (*world, tcp) {
	w, answer := greet(t, u)
	ack := w.fromClient(0, u.iss+1, u.isn+1, "")
	if u.offers.Stamps {
		ack.opts = appendStamps(nil, u.offers.Val+1, parseOptions(answer.opts).Val)
	}
	w.swallow(ack)
	return w, w.one()
}

// splice makes an open flow.
func spliced(t testing.TB, u setup) *world {
	w, _ := call(t, u)
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
	if s := w.took(); len(s) != 2 {
		t.Fatalf("%d segments after the server's answer, want 2: %+v", len(s), s)
	}
	return w
}
