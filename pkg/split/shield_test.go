package split

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"hawser/pkg/guard"
	"hawser/pkg/shield"
)

// The mark of the product and its bits (netns).
const (
	steerMark = 0x20000000
	markMask  = 0x60000000
)

// twins are the two that answer SYNs: the program in the kernel and the loop of
// a guard, with the same cookies.
type twins struct {
	t      testing.TB
	lab    *lab
	shield *shield.Shield
	loop   *synLoop
	gate   *Gate
	lan    int // index of the clients' interface
	ether  []byte
}

func newTwins(t testing.TB, leave ...netip.Prefix) *twins {
	w := &twins{t: t, lab: newLab(t, true), gate: NewGate(guard.ZeroWindow, guard.Limits{})}
	offer4, offer6 := Options{}.Offers()
	w.ether = w.lab.mac(w.lab.host, "lan0")
	w.lan = w.lab.index(w.lab.host, "lan0")
	var err error
	w.shield, err = shield.New(shield.Options{
		Interfaces: []string{"lan0"}, Hub: w.lab.index(w.lab.host, "hub0"), Mark: steerMark, Mask: markMask,
		Ports: []shield.Ports{{First: 80, Last: 443}}, Leave: leave, Offer4: offer4, Offer6: offer6,
	})
	if err != nil {
		t.Skipf("this kernel cannot run the program: %v", err)
	}
	t.Cleanup(func() { must(t, w.shield.Close()) })
	jar, clock := w.gate.Cookies(time.Now())
	must(t, w.shield.Do(shield.Duty{Answer: true, Recognise: true, Jar: jar, Clock: clock}))
	st := &Stack{opts: Options{}.withDefaults(), link: &link{hub: tcpip.LinkAddress(w.ether), host: tcpip.LinkAddress(lanClient)}}
	w.loop = &synLoop{k: newKeeper(st, GuardOptions{Gate: w.gate}), recent: guard.NewRecent()}
	in(t, w.lab.host, func() {
		_, _, _, err = w.shield.Try(w.syn(false, 1, nil, nil), w.lan)
		must(t, err)
	})
	if w.shield.Counts().Failed > 0 {
		t.Skip("this kernel cannot look up routes by marks for BPF (Linux 6.10)")
	}
	return w
}

// lanClient is where the frames of the tests come from.
const lanClient = "\x02\x00\x00\x00\x00\x09"

// guard is what the loop answers to a frame at the time clock; nil: nothing.
// open says that the kernel vouches for the checksum.
func (w *twins) guard(frame []byte, open bool, clock uint32) []byte {
	l := w.loop
	l.tx.count, l.got = 0, synBatch
	l.vnets[0] = [vnetLen]byte{}
	if open {
		l.vnets[0][0] = vnetNeedsCsum
	}
	l.msgs[0].len = uint32(vnetLen + copy(l.frame[0][:], frame))
	turn := synTurn{now: time.Now(), jar: w.gate.cookies.jar.Load(), clock: clock, auto: guard.ZeroWindow}
	l.one(&turn, 0)
	if l.tx.count == 0 {
		return nil
	}
	return slices.Clone(unsafe.Slice(l.tx.iovs[0][0].Base, l.tx.iovs[0][0].Len))[vnetLen:]
}

// compare runs both on a frame and complains where they differ. strict says
// that the program has to answer when the loop does.
func (w *twins) compare(name string, frame []byte, strict bool) shield.Verdict {
	w.t.Helper()
	open := openChecksum(frame)
	before := w.gate.cookies.clock() - 2
	verdict, out, _, err := w.shield.Try(frame, w.lan)
	must(w.t, err)
	after := w.gate.cookies.clock()
	var want []byte
	for clock := before; clock != after+1; clock++ {
		want = w.guard(frame, open, clock)
		if want != nil && open { // the rest of the sum is left to the interface, here as there
			seal(want)
		}
		if want == nil || bytes.Equal(want, out) {
			break
		}
	}
	switch {
	case want == nil && verdict == shield.Replied:
		w.t.Errorf("%s: the program answers % x, the guard does not: % x", name, frame, out)
	case want != nil && verdict == shield.Replied && !bytes.Equal(want, out):
		w.t.Errorf("%s: to % x\nthe program answers % x\nthe guard          % x", name, frame, out, want)
	case want != nil && verdict != shield.Replied && strict:
		w.t.Errorf("%s: the program's verdict is %d, the guard answers: % x", name, verdict, frame)
	case verdict != shield.Replied && !bytes.Equal(out, frame):
		w.t.Errorf("%s: the program has changed a frame that it leaves: % x, now % x", name, frame, out)
	}
	return verdict
}

// tcpAt is where a frame's TCP header is; 0 is nowhere.
func tcpAt(frame []byte) int {
	p, v := parseFrame(frame, len(frame), "")
	if v != verdictPass || p.transport != 6 {
		return 0
	}
	return etherLen + p.start
}

// partialSum is the pseudo header's sum of a frame.
func partialSum(frame []byte) uint16 {
	p, _ := parseFrame(frame, len(frame), "")
	return checksum.Combine(checksum.Combine(p.pseudo, 6), uint16(p.end-p.start))
}

// openChecksum says that a frame's checksum is one that the sender has left to
// the interface.
func openChecksum(frame []byte) bool {
	at := tcpAt(frame)
	return at > 0 && binary.BigEndian.Uint16(frame[at+16:]) == partialSum(frame)
}

// seal leaves a frame's checksum to the interface.
func seal(frame []byte) { binary.BigEndian.PutUint16(frame[tcpAt(frame)+16:], partialSum(frame)) }

// sum puts the right checksums into a frame, as far as it has headers.
func sum(frame []byte) {
	if frame[12] == 8 && len(frame) >= 34 {
		binary.BigEndian.PutUint16(frame[24:], 0)
		n := min(max(int(frame[14]&15)*4, 20), len(frame)-14)
		binary.BigEndian.PutUint16(frame[24:], ^checksum.Checksum(frame[14:14+n], 0))
	}
	at := tcpAt(frame)
	if at == 0 {
		return
	}
	p, _ := parseFrame(frame, len(frame), "")
	binary.BigEndian.PutUint16(frame[at+16:], 0)
	binary.BigEndian.PutUint16(frame[at+16:], ^checksum.Checksum(frame[at:etherLen+p.end], partialSum(frame)))
}

// syn makes a SYN from a client of the lab with options and payload.
func (w *twins) syn(v6 bool, isn uint32, options, payload []byte) []byte {
	segment := binary.BigEndian.AppendUint16(nil, 40000+uint16(isn%20000))
	segment = binary.BigEndian.AppendUint16(segment, 80)
	segment = binary.BigEndian.AppendUint32(segment, isn)
	segment = append(segment, 0, 0, 0, 0, byte(20+len(options))<<2, guard.FlagSYN, 0xfa, 0xf0, 0, 0, 0, 0)
	segment = append(append(segment, options...), payload...)
	frame := append(slices.Clone(w.ether), lanClient...)
	if v6 {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, byte(len(segment)>>8), byte(len(segment)), 6, 64)
		frame = append(append(frame, a16("fd00:1::2")...), a16("fd00:c8::7")...)
	} else {
		n := 20 + len(segment)
		frame = append(frame, 8, 0, 0x45, 0, byte(n>>8), byte(n), 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 1, 2, 198, 18, 200, 7)
	}
	frame = append(frame, segment...)
	sum(frame)
	return frame
}

func a16(s string) []byte { a := netip.MustParseAddr(s).As16(); return a[:] }

// optionSets are what clients send, and what no client does.
var optionSets = [][]byte{
	{},
	{2, 4, 5, 180},
	{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7},
	{2, 4, 5, 160, 1, 1, 4, 2, 1, 3, 3, 8},
	{2, 4, 5, 180, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 0},
	{1, 3, 3, 200, 2, 4, 2, 24},
	{2, 4, 0, 215}, {2, 4, 0, 216}, {2, 4, 4, 195}, {2, 4, 4, 196}, {2, 4, 0xff, 0xff},
	{8, 10, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0}, {3, 3, 14, 3, 3, 2, 0, 0},
	{2, 4, 5, 180, 2, 4, 2, 28}, {30, 8, 1, 2, 3, 4, 5, 6}, {34, 4, 1, 2, 2, 4, 5, 180},
	{0, 3, 3, 7}, {1, 1, 1, 0}, {2, 4, 5, 180, 0, 99, 99, 99},
	// Absurd: lengths that contradict each other.
	{2, 3, 5, 180}, {2, 5, 5, 180}, {3, 4, 7, 0}, {4, 3, 0, 0}, {4, 4, 0, 0}, {8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {8, 0, 0, 0},
	{2, 0, 0, 0}, {2, 1, 0, 0}, {2, 255, 0, 0}, {1, 1, 1, 2}, {1, 1, 2, 4}, {253, 41, 1, 1}, {99, 40, 1, 1},
	slices.Repeat([]byte{1}, 40), slices.Repeat([]byte{4, 2}, 20), slices.Repeat([]byte{2, 4, 5, 180}, 10),
	append(slices.Repeat([]byte{1}, 39), 2), append(slices.Repeat([]byte{1}, 38), 2, 4), append(slices.Repeat([]byte{1}, 36), 2, 4, 5, 180),
	append(slices.Repeat([]byte{1}, 37), 3, 3, 200),
}

// The program in the kernel answers as the guard does, byte for byte, or
// neither does.
func TestShieldAnswers(t *testing.T) {
	w := newTwins(t)
	in(t, w.lab.host, func() {
		for _, v6 := range []bool{false, true} {
			for i, o := range optionSets {
				for _, payload := range [][]byte{nil, {1}, []byte("odd"), random(1), random(63), random(64), random(1300)} {
					name := fmt.Sprintf("v6 %v, options %x, payload %d", v6, o, len(payload))
					frame := w.syn(v6, uint32(i)<<24|12345, o, payload)
					w.compare(name, frame, true)
					w.compare(name+", padded", append(frame, make([]byte, 6)...), true)
					bad := slices.Clone(frame)
					bad[len(bad)-1] ^= 0x40
					if v := w.compare(name+", spoilt", bad, true); v != shield.Dropped {
						t.Errorf("%s: spoilt: verdict %d, want it dropped", name, v)
					}
					seal(frame)
					w.compare(name+", left to the interface", frame, true)
				}
			}
		}
	})
	c := w.shield.Counts()
	if c.Answered == 0 || c.Bad == 0 {
		t.Errorf("counted %+v", c)
	}
}

// Whatever comes, nothing is answered that the guard does not answer, and
// nothing otherwise.
func TestShieldFuzz(t *testing.T) {
	w := newTwins(t)
	r := rand.New(rand.NewPCG(7, 5))
	verdicts := map[shield.Verdict]int{}
	in(t, w.lab.host, func() {
		for i := range 20000 {
			frame := w.syn(i%2 == 0, r.Uint32(), optionSets[r.IntN(len(optionSets))], random(r.IntN(2)*r.IntN(1200)))
			strict := true
			for range 1 + r.IntN(4) {
				from := tcpAt(w.syn(i%2 == 0, 1, nil, nil))
				if r.IntN(4) == 0 {
					from, strict = 14, false // what the IP header says, too
				}
				at := from + r.IntN(min(60, len(frame)-from))
				if at >= from+2 && at < from+4 && strict {
					continue // the port: another is not wanted
				}
				frame[at] = byte(r.Uint32())
			}
			if r.IntN(3) > 0 {
				sum(frame)
			}
			if !strict && r.IntN(4) == 0 {
				frame = frame[:54+r.IntN(len(frame)-53)] // the kernel tries nothing shorter
			}
			at := tcpAt(frame)
			strict = strict && at > 0 && frame[at+13]&0x17 == guard.FlagSYN
			verdicts[w.compare(fmt.Sprint("frame ", i), frame, strict)]++
			if t.Failed() {
				return
			}
		}
	})
	t.Log(verdicts)
	for _, v := range []shield.Verdict{shield.Passed, shield.Dropped, shield.Replied} {
		if verdicts[v] < 500 {
			t.Errorf("verdict %d came %d times of 20000: the corpus is poor", v, verdicts[v])
		}
	}
}

// What is not to be answered goes its way.
func TestShieldLeaves(t *testing.T) {
	w := newTwins(t, netip.MustParsePrefix("198.18.200.64/26"), netip.MustParsePrefix("fd00:c8::8000/113"))
	linux := optionSets[2]
	change := func(v6 bool, f func(frame []byte)) []byte {
		frame := w.syn(v6, 1, linux, nil)
		f(frame)
		sum(frame)
		return frame
	}
	in(t, w.lab.host, func() {
		for _, c := range []struct {
			name  string
			frame []byte
			want  shield.Verdict
		}{
			{"wanted", change(false, func([]byte) {}), shield.Replied},
			{"another port", change(false, func(f []byte) { f[37] = 79 }), shield.Passed},
			{"last port", change(false, func(f []byte) { f[36], f[37] = 443>>8, 443&0xff }), shield.Replied},
			{"port behind it", change(false, func(f []byte) { f[36], f[37] = 444>>8, 444&0xff }), shield.Passed},
			{"excluded", change(false, func(f []byte) { f[33] = 65 }), shield.Passed},
			{"excluded v6", change(true, func(f []byte) { f[52] = 0x80 }), shield.Passed},
			{"the host's own address", change(false, func(f []byte) { copy(f[30:], []byte{198, 18, 1, 1}) }), shield.Passed},
			{"the host's own v6 address", change(true, func(f []byte) { copy(f[38:], a16("fd00:1::1")) }), shield.Passed},
			{"broadcast", change(false, func(f []byte) { copy(f[30:], []byte{198, 18, 1, 255}) }), shield.Passed},
			{"multicast", change(false, func(f []byte) { f[30] = 224 }), shield.Passed},
			{"link-local", change(true, func(f []byte) { f[38], f[39] = 0xfe, 0x80 }), shield.Passed},
			{"from itself", change(false, func(f []byte) { f[26] = 127 }), shield.Passed},
			{"for somebody else", change(false, func(f []byte) { f[5] ^= 1 }), shield.Passed},
			{"SYN-ACK", change(false, func(f []byte) { f[47] |= guard.FlagACK }), shield.Passed},
			{"ECN", change(false, func(f []byte) { f[47] |= 0xc0 }), shield.Replied},
			{"first fragment", change(false, func(f []byte) { f[20] = 0x20 }), shield.Dropped},
			{"later fragment", change(false, func(f []byte) { f[21] = 1 }), shield.Passed},
			{"udp", change(false, func(f []byte) { f[23] = 17 }), shield.Passed},
		} {
			if v := w.compare(c.name, c.frame, c.want == shield.Replied); v != c.want {
				t.Errorf("%s: verdict %d, want %d", c.name, v, c.want)
			}
		}
	})
}

// index and mac are those of an interface of the lab.
func (l *lab) index(ns netns.NsHandle, dev string) (index int) {
	l.with(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(dev)
		if err == nil {
			index = link.Attrs().Index
		}
		return err
	})
	return index
}

func (l *lab) mac(ns netns.NsHandle, dev string) (mac []byte) {
	l.with(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(dev)
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// ack makes the client's ACK of a SYN-ACK, with payload.
func (w *twins) ack(syn, answer, payload []byte) []byte {
	at := tcpAt(syn)
	options := []byte{}
	if _, _, ok := guard.Stamps(answer[at:]); ok {
		options = []byte{1, 1, 8, 10, 0, 0, 0, 9}
		val, _, _ := guard.Stamps(answer[at:])
		options = binary.BigEndian.AppendUint32(options, val)
	}
	frame := w.syn(syn[12] != 8, binary.BigEndian.Uint32(syn[at+4:]), options, payload)
	binary.BigEndian.PutUint32(frame[at+4:], binary.BigEndian.Uint32(syn[at+4:])+1)
	binary.BigEndian.PutUint32(frame[at+8:], binary.BigEndian.Uint32(answer[at+4:])+1)
	frame[at+13] = guard.FlagACK
	sum(frame)
	return frame
}

// The program marks a segment that brings a cookie, its own or the guard's, for
// as long as the guard takes it; no other.
func TestShieldRecognises(t *testing.T) {
	w := newTwins(t)
	now := time.Now()
	mark := func(frame []byte) uint32 {
		v, out, mark, err := w.shield.Try(frame, w.lan)
		must(t, err)
		if v != shield.Passed || !bytes.Equal(out, frame) {
			t.Errorf("verdict %d for % x, now % x", v, frame, out)
		}
		if mark != 0 && mark != steerMark {
			t.Errorf("mark %#x", mark)
		}
		return mark
	}
	// takes says what the guard makes of a segment.
	takes := func(frame []byte) bool {
		p, _ := parseFrame(frame, len(frame), "")
		s, _ := segmentOf(p, frame[etherLen:], nil, vnetHeader{})
		ends := endsOf(&s)
		_, _, ok := w.loop.k.check(&ends, s.tcp(), s.payload())
		return ok
	}
	turn := func(slots int) {
		now = now.Add(time.Duration(slots) * guard.SlotTime)
		jar := w.gate.cookies.turn(now)
		must(t, w.shield.Do(shield.Duty{Answer: true, Recognise: true, Jar: jar}))
	}
	in(t, w.lab.host, func() {
		for i, o := range optionSets[:6] {
			for _, v6 := range []bool{false, true} {
				now = time.Now()
				turn(0) // check renews the keys when it is time
				syn := w.syn(v6, uint32(i)*7919+3, o, nil)
				_, answer, _, err := w.shield.Try(syn, w.lan)
				must(t, err)
				ack, data := w.ack(syn, answer, nil), w.ack(syn, answer, []byte("hello"))
				probe := slices.Clone(ack)
				at := tcpAt(probe)
				binary.BigEndian.PutUint32(probe[at+4:], binary.BigEndian.Uint32(probe[at+4:])-1)
				sum(probe)
				for what, frame := range map[string][]byte{"ACK": ack, "data": data, "probe": probe, "an ACK of the guard's": w.ack(syn, w.guard(syn, false, 77), nil)} {
					if mark(frame) == 0 || !takes(frame) {
						t.Errorf("v6 %v, options %x: %s: mark %#x, the guard takes it: %v", v6, o, what, mark(frame), takes(frame))
					}
				}
				for what, change := range map[string]func(f []byte){
					"another number": func(f []byte) { f[at+11] ^= 1 },
					"another client": func(f []byte) { f[29] ^= 1 },
					"another port":   func(f []byte) { f[at+1] ^= 1 },
					"too far":        func(f []byte) { f[at+7] += 3 },
					"reset":          func(f []byte) { f[at+13] |= guard.FlagRST },
				} {
					frame := slices.Clone(ack)
					change(frame)
					sum(frame)
					if mark(frame) != 0 {
						t.Errorf("v6 %v, options %x: %s is marked", v6, o, what)
					}
				}
			}
		}
		syn := w.syn(false, 99, optionSets[2], nil)
		_, answer, _, err := w.shield.Try(syn, w.lan)
		must(t, err)
		ack := w.ack(syn, answer, nil)
		turn(1)
		if mark(ack) == 0 {
			t.Error("a cookie of the last slot is not marked")
		}
		w.compare("in the next slot", syn, true)
		turn(1)
		if mark(ack) != 0 {
			t.Error("a cookie of two slots ago is marked")
		}
	})
}
