package split

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/link"

	"hawser/pkg/splice"
)

// pairing is a table whose open flows the program in the kernel carries, and one
// that carries its flows alone. Both have the same flows and are given the same
// packets, the first one those that the program leaves.
type pairing struct {
	t           testing.TB
	lab         *lab
	with, alone *splice.Table
	sent        [2][][]byte // what the tables have made
	turned      map[string]int
	left        int
}

func newPairing(t testing.TB) *pairing {
	p := &pairing{t: t, lab: newLab(t, true), turned: map[string]int{}}
	p.lab.shunted()
	table := func(i int, s splice.Shunt) *splice.Table {
		made, err := splice.New(splice.Config{
			Hub4: hub4, Hub6: hub6, Workers: 1, MSS: 1460, Scale: 7, Shunt: s,
			Random: rand.New(rand.NewPCG(3, 4)).Uint32,
			Emit:   func(b []byte) { p.sent[i] = append(p.sent[i], slices.Clone(b)) },
		})
		must(t, err)
		return made
	}
	p.with, p.alone = table(0, p.lab.shunt.Worker(0)), table(1, nil)
	return p
}

// same compares what the tables have made, and returns it.
func (p *pairing) same(name string) [][]byte {
	p.t.Helper()
	made := p.sent[0]
	if !slices.EqualFunc(made, p.sent[1], bytes.Equal) {
		p.t.Fatalf("%s: the table with the program makes % x\nthe other one % x", name, made, p.sent[1])
	}
	p.sent = [2][][]byte{}
	return made
}

// twin is a flow of both tables. Of a pair the first is the client's.
type twin struct {
	from, to [2]netip.AddrPort // of what the end sends
	seq, ack [2]uint32         // of the next segment
	next     [2]uint32         // the end's first number that it has not used yet
	shift    [2]uint32         // the end's numbers + shift = what the other end sees
	stamp    [2]uint32
	window   [2]uint16
	speaks   [2]splice.Options
}

// open makes a flow with random numbers and abilities of its ends.
func (p *pairing) open(r *rand.Rand, v6 bool) *twin {
	p.t.Helper()
	c, s := netip.MustParseAddrPort("198.18.1.2:4000"), netip.AddrPortFrom(server4, 80)
	if v6 {
		c, s = netip.MustParseAddrPort("[fd00:1::2]:4000"), netip.AddrPortFrom(server6, 80)
	}
	f := &twin{seq: [2]uint32{r.Uint32(), r.Uint32()}, stamp: [2]uint32{r.Uint32(), r.Uint32()}}
	stamps, sack := r.IntN(4) > 0, r.IntN(4) > 0
	for i := range f.speaks {
		f.speaks[i] = splice.Options{MSS: uint16(700 + r.IntN(761)), Scale: int8(r.IntN(16) - 1), SACK: sack, Stamps: stamps, Val: f.stamp[i]}
	}
	if r.IntN(8) == 0 { // a poor server
		f.speaks[1].SACK, f.speaks[1].Stamps = false, false
	}
	told := splice.Options{Scale: 7, SACK: sack, Stamps: stamps, Val: r.Uint32()}
	call := splice.Client{Addr: c, Server: s, ISS: f.seq[0], Ours: r.Uint32(), Window: 500, Offered: f.speaks[0], Told: told}
	for _, t := range []*splice.Table{p.with, p.alone} {
		if !t.Open(time.Hour, call) {
			p.t.Fatal("no room for a flow")
		}
	}
	syn := p.same("the call")[0]
	src, _ := partiesOf(syn)
	f.from, f.to = [2]netip.AddrPort{c, s}, [2]netip.AddrPort{s, src}
	f.ack = [2]uint32{call.Ours + 1, f.seq[0] + 1}
	f.speaks[1].Ecr = f.stamp[0]
	p.compare("SYN-ACK", f.frame(1, 0x12, 4000, f.speaks[1], nil), 0)
	p.same("the greeting")
	f.seq[0]++
	f.seq[1]++
	f.next, f.shift = f.seq, [2]uint32{f.ack[1] - f.seq[0], f.ack[0] - f.seq[1]}
	return f
}

func partiesOf(ip []byte) (src, dst netip.AddrPort) {
	g := segment{ip: ip, v6: ip[0]>>4 == 6, start: 20}
	if g.v6 {
		g.start = 40
	}
	return g.ends()
}

// frame is one from an end, as the host sends it to the hub; options are either
// a SYN's or bytes.
func (f *twin) frame(end int, flags byte, window uint16, options any, payload []byte) []byte {
	b := append(hexMAC(hub1MAC), hexMAC(hub0MAC)...)
	var opts []byte
	switch o := options.(type) {
	case splice.Options:
		opts = []byte{2, 4, byte(o.MSS >> 8), byte(o.MSS)}
		if o.SACK {
			opts = append(opts, 4, 2, 1, 1)
		}
		if o.Stamps {
			opts = append(opts, stampsOption(o.Val, o.Ecr)...)
		}
		if o.Scale >= 0 {
			opts = append(opts, 1, 3, 3, byte(o.Scale))
		}
	case []byte:
		opts = o
	}
	src, dst := f.from[end], f.to[end]
	size := 20 + len(opts) + len(payload)
	if src.Addr().Is4() {
		b = append(b, 8, 0, 0x45, 0, byte((size+20)>>8), byte(size+20), 7, 7, 0x40, 0, 63, 6, 0, 0)
	} else {
		b = append(b, 0x86, 0xdd, 0x60, 1, 2, 3, byte(size>>8), byte(size), 6, 63)
	}
	b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, src.Port()), dst.Port())
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, f.seq[end]), f.ack[end])
	b = append(b, byte(20+len(opts))<<2, flags, byte(window>>8), byte(window), 0, 0, 0, 0)
	b = append(append(b, opts...), payload...)
	sum(b)
	return b
}

func hexMAC(s string) []byte {
	var b [6]byte
	fmt.Sscanf(s, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5])
	return b[:]
}

func stampsOption(val, ecr uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, val), ecr)
}

// compare gives a frame to the program and to the tables and complains where
// the results differ. It returns whether the program has taken it.
func (p *pairing) compare(name string, frame []byte, size int) bool {
	p.t.Helper()
	out, turned, err := p.lab.shunt.Try(frame, size)
	must(p.t, err)
	start := tcpAt(frame) - etherLen
	handle := func(t *splice.Table) (splice.Verdict, []byte, splice.Packet) {
		q := splice.Packet{Header: frame[etherLen:], Start: start, Size: len(frame) - etherLen, Segment: size}
		v := t.Handle(time.Hour, &q)
		if v != splice.Forward {
			return v, nil, q
		}
		b := append(append(slices.Clone(frame[6:12]), frame[:6]...), frame[12:14]...)
		return v, append(append(b, q.Out...), q.Header[q.Skip:]...), q
	}
	v, want, q := handle(p.alone)
	if turned {
		if v != splice.Forward || q.Segment != size || q.Partial || !bytes.Equal(out, want) {
			p.t.Fatalf("%s: of % x\nthe program makes   % x\nthe table, verdict %d, % x", name, frame, out, v, want)
		}
		return true
	}
	p.left++
	if !bytes.Equal(out, frame) {
		p.t.Fatalf("%s: the program has changed what it leaves: % x, now % x", name, frame, out)
	}
	if v2, b, _ := handle(p.with); v2 != v || !bytes.Equal(b, want) {
		p.t.Fatalf("%s: of % x\nthe table with the program makes, verdict %d, % x\nthe other one, verdict %d, % x", name, frame, v2, b, v, want)
	}
	return false
}

// everyday sends a segment that real ends send, and counts what kind the program
// has taken.
func (p *pairing) everyday(r *rand.Rand, f *twin, end int) {
	p.t.Helper()
	var opts []byte
	kind := fmt.Sprintf("v6 %v, end %d", f.from[0].Addr().Is6(), end)
	if f.speaks[end].Stamps {
		f.stamp[end] += r.Uint32N(5)
		opts = stampsOption(f.stamp[end], r.Uint32())
		kind += ", timestamps"
	}
	if blocks := r.IntN((40-len(opts)-4)/8 + 1); f.speaks[end].SACK && blocks > 0 {
		opts = append(opts, 1, 1, 5, byte(2+8*blocks))
		for range 2 * blocks {
			opts = binary.BigEndian.AppendUint32(opts, f.ack[end]+r.Uint32N(1e6))
		}
		kind += fmt.Sprintf(", %d blocks", blocks)
	}
	size, payload := 0, random(r.IntN(2)*r.IntN(1448))
	if r.IntN(4) == 0 {
		size, payload = 500+r.IntN(900), random(1500+r.IntN(1500))
	}
	f.window[end] = uint16(r.Uint32())
	frame := f.frame(end, 0x10|byte(r.Uint32())&0xe8, f.window[end], opts, payload)
	if at := tcpAt(frame); r.IntN(4) == 0 {
		frame[at+16], frame[at+17] = byte(r.Uint32()), byte(r.Uint32()) // nobody here minds
	}
	if p.compare(kind, frame, size) {
		p.turned[kind]++
	}
	f.seq[end] += uint32(len(payload))
	if int32(f.seq[end]-f.next[end]) > 0 {
		f.next[end] = f.seq[end]
	}
	f.seq[end] -= r.Uint32N(100) // some comes again
	f.ack[end] += r.Uint32N(f.next[1-end] + f.shift[1-end] - f.ack[end] + 1)
}

// forged sends an everyday segment with numbers that no window allows, where there
// are such numbers ahead.
func (p *pairing) forged(r *rand.Rand, f *twin, end int) {
	p.t.Helper()
	reach := uint32(2*math.MaxUint16) << max(f.speaks[1-end].Scale, 0)
	if reach > 1<<30 {
		return
	}
	far := reach + 1<<20 + r.Uint32N(1<<29) // 1 MB is more than is under way
	other := *f
	other.seq[end] += far
	other.ack[end] += far
	p.compare("forged", other.frame(end, 0x10, uint16(r.Uint32()), nil, random(r.IntN(2))), 0)
}

// odd sends what is left to the table; nothing of it ends the flow.
func (p *pairing) odd(r *rand.Rand, f *twin, end int) {
	p.t.Helper()
	stamps := stampsOption(f.stamp[end], 9)
	for _, opts := range [][]byte{
		append(stamps[2:12:12], 1, 1), {1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 9}, {1, 1, 1, 1}, {0, 0, 0, 0}, {253, 4, 1, 2},
		{1, 1, 5, 12, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0}, {8, 0, 0, 0}, {1, 1, 1, 5}, append(stamps[:12:12], 1, 1, 1, 1),
	} {
		if p.compare(fmt.Sprintf("options % x", opts), f.frame(end, 0x18, f.window[end], opts, random(r.IntN(20))), 0) {
			p.t.Fatalf("the program has taken a segment with options % x", opts)
		}
	}
	long := f.frame(end, 0x10, f.window[end], nil, random(1461))
	if p.compare("too long", long, 0) || p.compare("too long", long, 1461) {
		p.t.Fatal("the program has taken a segment longer than the receiver takes")
	}
}

// strangers are frames of a flow that the program must leave, whatever the table
// would do with them: a router would have dropped them, or they are not whole.
func (p *pairing) strangers(f *twin, end int) {
	p.t.Helper()
	good := f.frame(end, 0x10, 1, nil, []byte("data"))
	for name, change := range map[string]func(b []byte) []byte{
		"padded":      func(b []byte) []byte { return append(b, 0, 0, 0, 0) },
		"cut":         func(b []byte) []byte { return b[:len(b)-1] },
		"version":     func(b []byte) []byte { b[14] ^= 0x10; return b },
		"protocol":    func(b []byte) []byte { b[14+9], b[14+6] = 17, 17; return b },
		"header":      func(b []byte) []byte { b[tcpAt(good)+12] = 0x40; return b },
		"long header": func(b []byte) []byte { b[tcpAt(good)+12] = 0xf0; return b },
		"port":        func(b []byte) []byte { b[tcpAt(good)+1]++; return b },
		"other port":  func(b []byte) []byte { b[tcpAt(good)+3]++; return b },
		"address":     func(b []byte) []byte { b[tcpAt(good)-6]++; return b },
		"no ACK":      func(b []byte) []byte { b[tcpAt(good)+13] = 8; return b },
	} {
		b := change(slices.Clone(good))
		if good[12] == 8 && b[14]&15 == 5 { // not for its checksum
			b[24], b[25] = 0, 0
			sum(b[:34:34])
		}
		if out, turned, err := p.lab.shunt.Try(b, 0); err != nil || turned || !bytes.Equal(out, b) {
			p.t.Fatalf("%s: the program has taken % x, %v", name, b, err)
		}
	}
	if good[12] != 8 {
		return
	}
	for at, bit := range map[int]byte{24: 1, 20: 0x20, 21: 1, 22: 1} { // checksum, more fragments, offset, TTL without the checksum's
		b := slices.Clone(good)
		b[at] ^= bit
		if at != 24 && at != 22 {
			b[24], b[25] = 0, 0
			sum(b[:34:34])
		}
		if _, turned, err := p.lab.shunt.Try(b, 0); err != nil || turned {
			p.t.Fatalf("byte %d: the program has taken % x, %v", at, b, err)
		}
	}
}

// TestShuntTranslates: what the program makes of a segment is what the table
// makes of it, byte for byte, and what it tells the table of the segments that
// it took is all that the table would know. In the end it carries no flow.
func TestShuntTranslates(t *testing.T) {
	p := newPairing(t)
	r := rand.New(rand.NewPCG(1, 8))
	in(t, p.lab.host, func() {
		for i := range 150 {
			f := p.open(r, i%2 == 1)
			for j := range 40 {
				p.everyday(r, f, r.IntN(2))
				if j%10 == 5 {
					p.forged(r, f, r.IntN(2))
					p.odd(r, f, r.IntN(2))
					p.strangers(f, r.IntN(2))
				}
			}
			p.end(r, f, i)
		}
	})
	total := 0
	for _, v6 := range []bool{false, true} {
		for end := range 2 {
			for blocks := range 5 {
				for _, stamps := range []string{"", ", timestamps"} {
					kind := fmt.Sprintf("v6 %v, end %d%s", v6, end, stamps)
					if blocks > 0 {
						kind += fmt.Sprintf(", %d blocks", blocks)
					}
					total += p.turned[kind]
					if p.turned[kind] == 0 && (blocks < 4 || stamps == "") {
						t.Errorf("%s: the program has taken none", kind)
					}
				}
			}
		}
	}
	c := p.with.Counters()
	if alone := p.alone.Counters(); c.Up != alone.Up || c.Down != alone.Down || c.BytesUp != alone.BytesUp || c.BytesDown != alone.BytesDown || c.Malformed != alone.Malformed {
		t.Errorf("with the program %+v, alone %+v", c, alone)
	}
	if total < 3000 || p.with.Shunted() != 0 || c.Shunted < 100 {
		t.Errorf("%d segments taken and %d left, %d flows, %d still", total, p.left, c.Shunted, p.with.Shunted())
	}
}

// TestShuntLeaves: the program is on the hub until Close, and nothing stays.
func TestShuntLeaves(t *testing.T) {
	l := newLab(t, false)
	programs := func() (n int) {
		in(t, l.host, func() {
			got, err := bpf.QueryPrograms(bpf.QueryOptions{Target: l.index(l.host, "hub0"), Attach: ebpf.AttachTCXEgress})
			must(t, err)
			n = len(got.Programs)
		})
		return n
	}
	t.Run("at work", func(t *testing.T) {
		within := *l
		within.t = t
		within.shunted()
		if n := programs(); n != 1 {
			t.Errorf("%d programs on the hub, want 1", n)
		}
	})
	if n := programs(); n != 0 {
		t.Errorf("%d programs are left on the hub", n)
	}
}

// end asks both tables for all they know of a flow and ends it, one way or
// another.
func (p *pairing) end(r *rand.Rand, f *twin, i int) {
	p.t.Helper()
	f.seq[0], f.seq[1] = 0, 0 // both are answered with what is known
	p.compare("another SYN", f.frame(0, 2, 1, f.speaks[0], nil), 0)
	p.compare("another SYN-ACK", f.frame(1, 0x12, 1, f.speaks[1], nil), 0)
	if len(p.same("what is known")) != 2 {
		p.t.Fatal("the tables do not answer")
	}
	f.seq = f.next
	switch i % 3 {
	case 1:
		p.compare("reset", f.frame(i/3%2, 0x14, 1, nil, nil), 0)
		if p.with.Shunted() != 0 {
			p.t.Fatal("the program has a flow that was reset")
		}
		if r.IntN(2) == 0 { // it was a forged one
			p.everyday(r, f, 0)
			p.everyday(r, f, 1)
		}
	case 2:
		first, before := i/3%2, p.with.Shunted()
		p.compare("end", f.frame(first, 0x11, 1, nil, []byte("bye")), 0)
		if p.with.Shunted() != before {
			p.t.Fatal("the program has lost a flow that one end has closed")
		}
		for range 6 {
			p.everyday(r, f, r.IntN(2))
		}
		if p.compare("acknowledgement", f.frame(1-first, 0x10, 1, nil, nil), 0) {
			p.t.Fatal("the program has taken what may acknowledge a FIN")
		}
		f.seq = f.next
		p.compare("other end", f.frame(1-first, 0x11, 1, nil, nil), 0)
		if p.with.Shunted() != 0 {
			p.t.Fatal("the program has a flow that both ends have closed")
		}
		p.everyday(r, f, 0)
		p.everyday(r, f, 1)
	}
	p.with.Reset(time.Hour)
	p.alone.Reset(time.Hour)
	p.same("the resets")
}
