package guard

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"hawser/pkg/simlink"
)

// random is a fixed stream of key bytes.
func random(seed byte) func([]byte) {
	r := rand.NewChaCha8([32]byte{seed})
	return func(p []byte) { _, _ = r.Read(p) }
}

var t0 = time.Unix(1_000_000_000, 0)

func ends4() *Ends {
	e := &Ends{ClientPort: 40000, ServerPort: 443}
	copy(e.Client[:], []byte{10: 0xff, 0xff, 10, 1, 2, 3})
	copy(e.Server[:], []byte{10: 0xff, 0xff, 192, 0, 2, 7})
	return e
}

func ends6() *Ends {
	e := ends4()
	copy(e.Client[:], []byte{0xfd, 1, 2})
	copy(e.Server[:], []byte{0xfd, 1, 3})
	return e
}

// TestCookie: what a SYN said comes back from the ACK, rounded down.
func TestCookie(t *testing.T) {
	j := (*Jar)(nil).Turn(t0, random(1))
	for _, e := range []*Ends{ends4(), ends6()} {
		for mss := uint16(LeastMSS); mss < 1600; mss += 7 {
			for scale := int8(NoScale); scale <= maxScale; scale++ {
				for bits := range 8 {
					h := Hello{ISN: uint32(mss) * 77777, MSS: mss, Scale: scale, SACK: bits&1 > 0, Stamps: bits&2 > 0}
					offered, clock := bits&4 > 0, uint32(mss)*uint32(scale+3)
					isn, stamp := j.Bake(e, h, offered, clock)
					if d := int32(clock - stamp); h.Stamps && (d < 0 || d >= 32) {
						t.Fatalf("%+v: timestamp is %d behind the clock", h, d)
					}
					got, window, ok := j.Check(e, h.ISN, isn, h.Stamps, stamp)
					if !ok || window != offered || got.ISN != h.ISN || got.SACK != h.SACK || got.Stamps != h.Stamps {
						t.Fatalf("%+v came back as %+v, %v, %v", h, got, window, ok)
					}
					if got.MSS > mss || mss >= 1460 && got.MSS != 1460 || mss >= 1220 && got.MSS < 1220 || mss >= 536 && got.MSS < 536 {
						t.Fatalf("segment size %d came back as %d", mss, got.MSS)
					}
					if h.Stamps && got.Scale != scale || got.Scale > scale || (got.Scale < 0) != (scale < 0) {
						t.Fatalf("%+v: scale came back as %d", h, got.Scale)
					}
				}
			}
		}
	}
}

// TestCookieForged: no field of the connection can be exchanged, and a random
// number is a cookie as rarely as Jar says.
func TestCookieForged(t *testing.T) {
	j := (*Jar)(nil).Turn(t0, random(2))
	h := Hello{ISN: 7, MSS: 1460, Scale: 7, SACK: true, Stamps: true}
	isn, _ := j.Bake(ends4(), h, true, 99)
	for name, change := range map[string]func(e *Ends, isn, cookie *uint32){
		"client":      func(e *Ends, _, _ *uint32) { e.Client[15]++ },
		"server":      func(e *Ends, _, _ *uint32) { e.Server[12]++ },
		"client port": func(e *Ends, _, _ *uint32) { e.ClientPort++ },
		"server port": func(e *Ends, _, _ *uint32) { e.ServerPort++ },
		"number":      func(_ *Ends, n, _ *uint32) { *n++ },
		"size":        func(_ *Ends, _, c *uint32) { *c ^= 1 << sizeShift },
		"window":      func(_ *Ends, _, c *uint32) { *c ^= 1 << offeredBit },
		"slot":        func(_ *Ends, _, c *uint32) { *c ^= 1 << paritySlot },
		"mac":         func(_ *Ends, _, c *uint32) { *c ^= 1 },
	} {
		e, n, c := ends4(), h.ISN, isn
		change(e, &n, &c)
		if _, _, ok := j.Check(e, n, c, true, 0); ok {
			t.Errorf("with another %s the cookie is still good", name)
		}
	}
	if _, _, ok := j.Check(ends4(), h.ISN, isn, false, 0); ok {
		t.Error("without the timestamp the cookie is still good")
	}
	r, hits := rand.New(rand.NewPCG(1, 2)), 0
	for range 1 << 20 {
		if _, _, ok := j.Check(ends4(), h.ISN, r.Uint32(), false, 0); ok {
			hits++
		}
	}
	if hits > 3 { // 0.125 expected
		t.Errorf("%d of 2^20 random numbers were cookies", hits)
	}
}

// TestCookieAge: a cookie lives for one slot at least and two at most.
func TestCookieAge(t *testing.T) {
	for _, age := range []struct {
		turns []time.Duration
		good  bool
	}{
		{[]time.Duration{SlotTime / 2}, true},
		{[]time.Duration{SlotTime}, true},
		{[]time.Duration{SlotTime, 2*SlotTime - 1}, true},
		{[]time.Duration{SlotTime, 2 * SlotTime}, false},
		{[]time.Duration{2 * SlotTime}, false}, // nothing came in between
		{[]time.Duration{1000 * SlotTime}, false},
	} {
		begin := t0.Truncate(SlotTime)
		rnd := random(3)
		j := (*Jar)(nil).Turn(begin, rnd)
		h := Hello{ISN: 5, MSS: 1460, Scale: NoScale}
		isn, _ := j.Bake(ends4(), h, false, 0)
		for _, d := range age.turns {
			j = j.Turn(begin.Add(d), rnd)
		}
		if _, _, ok := j.Check(ends4(), h.ISN, isn, false, 0); ok != age.good {
			t.Errorf("after turns at %v the cookie is good: %v", age.turns, ok)
		}
	}
}

// TestCookieAndClocks: cookies outlive a clock that is set, and a goroutine that has
// looked at the clock before keys were renewed and comes after who has renewed them.
func TestCookieAndClocks(t *testing.T) {
	begin, whole := time.Now(), t0.Truncate(SlotTime)
	for name, turns := range map[string][]time.Time{
		"a clock set back":       {begin, simlink.Stepped(begin.Add(time.Second), -86400)},
		"a clock set forward":    {begin, simlink.Stepped(begin.Add(time.Second), 86400)},
		"a late goroutine":       {whole, whole.Add(SlotTime), whole.Add(SlotTime - time.Microsecond)},
		"and one that has begun": {whole, whole.Add(SlotTime), whole.Add(SlotTime - time.Microsecond), whole.Add(SlotTime)},
	} {
		t.Run(name, func(t *testing.T) {
			rnd := random(5)
			j := (*Jar)(nil).Turn(turns[0], rnd)
			h := Hello{ISN: 5, MSS: 1460, Scale: NoScale}
			isn, _ := j.Bake(ends4(), h, false, 0)
			for i, now := range turns[1:] {
				j = j.Turn(now, rnd)
				if _, _, ok := j.Check(ends4(), h.ISN, isn, false, 0); !ok {
					t.Fatalf("after turn %d the cookie of a moment ago is refused", i)
				}
			}
		})
	}
	j := (*Jar)(nil).Turn(begin, random(6))
	if n := testing.AllocsPerRun(100, func() { j = j.Turn(begin.Add(time.Second), none) }); n != 0 {
		t.Errorf("%v allocations to look at the clock, want 0", n)
	}
}

func none([]byte) {}

// syn is a SYN's TCP header with options.
func syn(isn uint32, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, optEnd)
	}
	b := make([]byte, tcpMin, tcpMin+len(options))
	binary.BigEndian.PutUint32(b[4:], isn)
	b[12], b[13] = byte(tcpMin+len(options))/4<<4, FlagSYN
	return append(b, options...)
}

func TestParseSYN(t *testing.T) {
	for name, c := range map[string]struct {
		options []byte
		want    Hello
		bad     bool
	}{
		"none":             {nil, Hello{ISN: 9, MSS: 536, Scale: NoScale}, false},
		"Linux":            {[]byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7}, Hello{9, 1460, 7, true, true, 256}, false},
		"Windows":          {[]byte{2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2}, Hello{9, 1460, 8, true, false, 0}, false},
		"scale above 14":   {[]byte{3, 3, 200}, Hello{ISN: 9, MSS: 536, Scale: 14}, false},
		"unknown":          {[]byte{34, 2, 254, 4, 1, 2}, Hello{ISN: 9, MSS: 536, Scale: NoScale}, false},
		"end, then trash":  {[]byte{0, 2, 99, 1}, Hello{ISN: 9, MSS: 536, Scale: NoScale}, false},
		"length 0":         {[]byte{2, 0, 1, 1}, Hello{}, true},
		"length 1":         {[]byte{8, 1, 1, 1}, Hello{}, true},
		"length beyond":    {[]byte{8, 10, 1, 1}, Hello{}, true},
		"length 40":        {[]byte{4, 40}, Hello{}, true},
		"size too long":    {[]byte{2, 6, 5, 180, 0, 0}, Hello{}, true},
		"size 0":           {[]byte{2, 4, 0, 0}, Hello{}, true},
		"size 215":         {[]byte{2, 4, 0, 215}, Hello{}, true},
		"SACK with value":  {[]byte{4, 3, 1}, Hello{}, true},
		"scale of 2 bytes": {[]byte{3, 4, 1, 1}, Hello{}, true},
		"stamp of 4 bytes": {[]byte{8, 6, 1, 1, 1, 1}, Hello{}, true},
	} {
		got, err := ParseSYN(syn(9, c.options...), false)
		if (err != nil) != c.bad || !c.bad && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	if h, err := ParseSYN(syn(9), true); err != nil || h.MSS != 1220 {
		t.Errorf("IPv6 without options: %+v, %v", h, err)
	}
	if _, err := ParseSYN(syn(9)[:19], false); err == nil {
		t.Error("19 bytes are a header")
	}
	beyond := syn(9)
	beyond[12] = 0xf0
	if _, err := ParseSYN(beyond, false); err == nil {
		t.Error("options beyond the packet are taken")
	}
}

// right says that an IP packet's checksums hold.
func right(p []byte, v6 bool) bool {
	if v6 {
		sum := checksum.Combine(checksum.Checksum(p[8:40], protoTCP), uint16(len(p)-40))
		return checksum.Checksum(p[40:], sum) == 0xffff
	}
	sum := checksum.Combine(checksum.Checksum(p[12:20], protoTCP), uint16(len(p)-20))
	return checksum.Checksum(p[:20], 0) == 0xffff && checksum.Checksum(p[20:], sum) == 0xffff
}

// TestAnswer: SYN-ACKs are whole packets with right checksums and say no more
// than the client did.
func TestAnswer(t *testing.T) {
	j := (*Jar)(nil).Turn(t0, random(4))
	for bits := range 16 {
		v6 := bits&1 > 0
		e := ends4()
		if v6 {
			e = ends6()
		}
		h := Hello{ISN: 0xffffffff, MSS: 1460, Scale: NoScale, SACK: bits&2 > 0, Stamps: bits&4 > 0, TSVal: 55}
		if bits&8 > 0 {
			h.Scale = 3
		}
		s := j.Answer(e, h, Offer{Window: 0, MSS: 1400, Scale: 7}, 1234)
		p := s.Append(nil, e, v6, ToClient)
		if !right(p, v6) {
			t.Fatalf("%+v: wrong checksum: % x", h, p)
		}
		tcp := p[20:]
		if v6 {
			tcp = p[40:]
		}
		got, err := ParseSYN(tcp, v6)
		want := Hello{ISN: s.Seq, MSS: 1400, Scale: NoScale, SACK: h.SACK, Stamps: h.Stamps, TSVal: s.TSVal}
		if h.Scale >= 0 {
			want.Scale = 7
		}
		if err != nil || got != want || binary.BigEndian.Uint32(tcp[8:]) != 0 || tcp[13] != FlagSYN|FlagACK || tcp[14]|tcp[15] != 0 {
			t.Errorf("answer to %+v: %+v, %v: % x", h, got, err, tcp)
		}
	}
}
