package wire

import (
	"errors"
	"net/netip"
	"testing"
)

var (
	v4 = netip.MustParseAddrPort("198.51.100.7:443")
	v6 = netip.MustParseAddrPort("[2001:db8::7]:8443")
)

var terms = Terms{Policy: 700, Bits: 24, Class: ClassPrivileged, Weight: 64, Guarantee: 1 << 20, Limit: 1 << 40}

var linkTerms = LinkTerms{Link: 3, Serial: 9, Tier: 2, Weight: 7, Usable: true, Rate: 1 << 30, Valid: 5000}

// roundTrips lists one of each frame with the bytes it must have.
var roundTrips = []struct {
	name string
	b    []byte
	want Frame
}{
	{"ack", AppendAck(nil, 7, 1500), Frame{Kind: KindAck, Seq: 7, Delay: 1500}},
	{"urgent", AppendUrgent([]byte{}, 8, 1501), Frame{Kind: KindUrgent, Seq: 8, Delay: 1501}},
	{"twin", AppendTwin([]byte{}, 9, 1502), Frame{Kind: KindTwin, Seq: 9, Delay: 1502}},
	{"ping", AppendPing(nil), Frame{Kind: KindPing}},
	{"open4", AppendOpen(nil, 1, v4, v4, DefaultTerms()), Frame{Kind: KindOpen, Flow: 1, Dst: v4, Src: v4, Terms: DefaultTerms()}},
	{"open6", AppendOpen(nil, 1<<40, v6, v4, terms), Frame{Kind: KindOpen, Flow: 1 << 40, Dst: v6, Src: v4, Terms: terms}},
	{"accepted", AppendAccepted(nil, 9, 65160), Frame{Kind: KindAccepted, Flow: 9, Limit: 65160}},
	{"accepted, window 0", AppendAccepted(nil, 9, 0), Frame{Kind: KindAccepted, Flow: 9}},
	{"accepted, no window", AppendAccepted(nil, 9, -1), Frame{Kind: KindAccepted, Flow: 9, Limit: NoWindow}},
	{"data", AppendData(nil, 3, 1<<33, 16000, false), Frame{Kind: KindData, Flow: 3, Offset: 1 << 33, Length: 16000}},
	{"fin", AppendData(nil, 3, 12, 0, true), Frame{Kind: KindData, Flow: 3, Offset: 12, Flags: FlagFin}},
	{"credit of new flows", AppendCredit(nil, 0, 2, 4096), Frame{Kind: KindCredit, Offset: 2, Limit: 4096}},
	{"credit", AppendCredit(nil, 3, 5, 65536), Frame{Kind: KindCredit, Flow: 3, Offset: 5, Limit: 65536}},
	{"reset", AppendReset(nil, 3, 2), Frame{Kind: KindReset, Flow: 3, Code: 2}},
	{"resend", AppendResend(nil, 3, 99), Frame{Kind: KindResend, Flow: 3, Offset: 99}},
	{"link", AppendLink(nil, linkTerms), Frame{Kind: KindLink, Link: linkTerms}},
	{"stop", AppendStop(nil, 5), Frame{Kind: KindStop, Code: 5}},
}

func TestFramesRoundTrip(t *testing.T) {
	for _, c := range roundTrips {
		t.Run(c.name, func(t *testing.T) {
			block := append(AppendPad(nil, 3), c.b...)
			got, rest, err := Next(AppendPad(block, 2))
			if err != nil || got != c.want || len(rest) != 2 {
				t.Fatalf("Next = %+v, %d left, %v; want %+v", got, len(rest), err, c.want)
			}
			if end, rest, err := Next(rest); err != nil || rest != nil || end.Kind != KindPad {
				t.Fatalf("padding at the end: %+v, %v, %v", end, rest, err)
			}
		})
	}
}

func TestFramesCutShort(t *testing.T) {
	for _, c := range roundTrips {
		for n := 1; n < len(c.b); n++ {
			if _, _, err := Next(c.b[:n]); !errors.Is(err, ErrShort) && !errors.Is(err, ErrField) {
				t.Errorf("%s cut to %d bytes: %v", c.name, n, err)
			}
		}
	}
}

func TestFramesRejected(t *testing.T) {
	mapped := netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 1)
	open := AppendOpen(nil, 1, v6, v4, terms)
	with := func(change func(*Terms)) []byte {
		bad := terms
		change(&bad)
		return AppendOpen(nil, 1, v4, v4, bad)
	}
	copy(open[10:26], mapped.Addr().AsSlice())
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"unknown kind":        {[]byte{0x77}, ErrUnknown},
		"flow zero":           {AppendAccepted(nil, 0, 0), ErrField},
		"offset too large":    {AppendResend(nil, 1, 1<<63), ErrField},
		"body too long":       {AppendData(nil, 1, 0, MaxBody+1, false), ErrField},
		"empty without fin":   {AppendData(nil, 1, 0, 0, false), ErrField},
		"unknown data flag":   {append(AppendData(nil, 1, 0, 1, false)[:DataSize-1], 0x80), ErrField},
		"unknown family":      {append(be.AppendUint64([]byte{byte(KindOpen)}, 1), 9), ErrField},
		"mapped IPv4 address": {open, ErrField},
		"unknown tier":        {AppendLink(nil, LinkTerms{Tier: 4, Weight: 1}), ErrField},
		"link weight zero":    {AppendLink(nil, LinkTerms{}), ErrField},
		"unknown class":       {with(func(t *Terms) { t.Class = 4 }), ErrField},
		"weight zero":         {with(func(t *Terms) { t.Weight = 0 }), ErrField},
		"too many bits":       {with(func(t *Terms) { t.Bits = 129 }), ErrField},
		"rate too large":      {with(func(t *Terms) { t.Limit = 1 << 63 }), ErrField},
	} {
		if _, _, err := Next(c.b); !errors.Is(err, c.want) && !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzNext: a decoder never panics, always gets shorter, and what it accepts
// encodes to something that decodes to the same.
func FuzzNext(f *testing.F) {
	for _, c := range roundTrips {
		f.Add(c.b)
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		for len(block) > 0 {
			fr, rest, err := Next(block)
			if err != nil || fr.Kind == KindPad {
				return
			}
			if len(rest) >= len(block) {
				t.Fatal("no progress")
			}
			again, _, err := Next(encode(fr))
			if err != nil || again != fr {
				t.Fatalf("%+v became %+v, %v", fr, again, err)
			}
			block = rest
		}
	})
}

func encode(f Frame) []byte {
	switch f.Kind {
	case KindAck:
		return AppendAck(nil, f.Seq, f.Delay)
	case KindUrgent:
		return AppendUrgent(nil, f.Seq, f.Delay)
	case KindTwin:
		return AppendTwin(nil, f.Seq, f.Delay)
	case KindOpen:
		return AppendOpen(nil, f.Flow, f.Dst, f.Src, f.Terms)
	case KindAccepted:
		return AppendAccepted(nil, f.Flow, int(f.Limit))
	case KindData:
		return AppendData(nil, f.Flow, f.Offset, int(f.Length), f.Flags&FlagFin != 0)
	case KindCredit:
		return AppendCredit(nil, f.Flow, f.Offset, f.Limit)
	case KindReset:
		return AppendReset(nil, f.Flow, f.Code)
	case KindResend:
		return AppendResend(nil, f.Flow, f.Offset)
	case KindLink:
		return AppendLink(nil, f.Link)
	case KindStop:
		return AppendStop(nil, f.Code)
	}
	return AppendPing(nil)
}
