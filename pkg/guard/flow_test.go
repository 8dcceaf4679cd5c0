package guard

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// stackISN and stackClock are the numbers of a stack behind the guard.
const (
	stackISN   = uint32(0xfffffff0) // wraps soon
	stackClock = 7
	ourScale   = 7
)

// ack is an ACK's TCP header with a timestamp, and SACK blocks if given.
func ack(seq, ackn uint32, window uint16, val, echo uint32, sack ...uint32) []byte {
	o := []byte{optNop, optNop, optTimestamp, 10}
	o = binary.BigEndian.AppendUint32(o, val)
	o = binary.BigEndian.AppendUint32(o, echo)
	if len(sack) > 0 {
		o = append(o, optNop, optNop, optSACK, byte(2+4*len(sack)))
		for _, n := range sack {
			o = binary.BigEndian.AppendUint32(o, n)
		}
	}
	b := syn(seq, o...)
	b[13] = FlagACK
	binary.BigEndian.PutUint32(b[8:], ackn)
	binary.BigEndian.PutUint16(b[14:], window)
	return b
}

// The client's number wraps soon as well. These are variables to the compiler,
// which refuses constants that wrap.
func wrapped(base, n uint32) uint32 { return base + n }

const clientISN, cookieISN uint32 = 0xffffff00, 1000

// waiting is a flow of a client with all options.
func waiting(offered bool) Flow {
	h := Hello{ISN: clientISN, MSS: 1460, Scale: 3, SACK: true, Stamps: true}
	return NewFlow(h, cookieISN, offered, ack(clientISN+1, cookieISN+1, 500, 90, 20))
}

// join takes a flow through the stack's handshake.
func join(t *testing.T, f *Flow, first int) (toStack, update Segment, told bool) {
	t.Helper()
	s := f.Join(first)
	want := Segment{Flags: FlagSYN, Seq: clientISN, Window: 500 << 3, MSS: 1460, Scale: 3, SACK: true, Stamps: true, TSVal: 90}
	if s != want || f.State() != Joining {
		t.Fatalf("SYN for the stack is %+v, want %+v", s, want)
	}
	synack := syn(stackISN, 2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, stackClock, 0, 0, 0, 90, 1, 3, 3, ourScale)
	synack[13] |= FlagACK
	binary.BigEndian.PutUint32(synack[8:], clientISN+1)
	binary.BigEndian.PutUint16(synack[14:], 29184)
	toStack, update, told, ok := f.Joined(synack, ourScale, 5000)
	if !ok {
		t.Fatal("the stack's SYN-ACK is refused")
	}
	return toStack, update, told
}

// TestFlowZeroWindow goes from the valid ACK to the open window.
func TestFlowZeroWindow(t *testing.T) {
	f := waiting(false)
	for _, c := range []struct {
		what    string
		tcp     []byte
		payload int
		want    Reaction
	}{
		{"probe", ack(clientISN, cookieISN+1, 500, 91, 20), 0, Reply},
		{"probe with a byte", ack(clientISN+1, cookieISN+1, 500, 91, 20), 1, Reply},
		{"data", ack(clientISN+1, cookieISN+1, 500, 91, 20), 1460, Reply},
		{"the ACK again", ack(clientISN+1, cookieISN+1, 500, 91, 20), 0, Ignore},
		{"another cookie", ack(clientISN+1, cookieISN+2, 500, 91, 20), 10, Forged},
		{"far away", ack(wrapped(clientISN, 1+1<<20), cookieISN+1, 500, 91, 20), 10, Forged},
		{"before the beginning", ack(clientISN-1, cookieISN+1, 500, 91, 20), 1, Forged},
	} {
		if got := f.Hear(c.tcp, c.payload); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	for ahead, want := range map[uint32]Reaction{0: Gone, 1: Doubt, 0xffff: Doubt, 0x10000: Forged, 0xffffffff: Forged} {
		seq := wrapped(clientISN+1, ahead)
		rst := ack(seq, cookieISN+1, 0, 91, 20)
		rst[13] = FlagRST
		if got := f.Hear(rst, 0); got != want {
			t.Errorf("reset at %#x: %v, want %v", seq, got, want)
		}
	}
	f = waiting(false)
	f.Join(1000)
	rst := ack(clientISN+11, cookieISN+1, 0, 91, 20)
	rst[13] = FlagRST
	if got := f.Hear(rst, 0); got != Hold {
		t.Errorf("a reset after data that the stack has not got: %v, want it kept for the stack", got)
	}
	f = waiting(false)
	if s := f.Shut(4000); s.Window != 0 || s.Seq != cookieISN+1 || s.Ack != clientISN+1 || s.TSEcr != 90 {
		t.Errorf("answer to a probe: %+v", s)
	}
	if _, told := f.Serve(4000, -1); told {
		t.Error("an update before the stack has the connection")
	}
	toStack, update, told := join(t, &f, 1000)
	if toStack.Seq != clientISN+1 || toStack.Ack != wrapped(stackISN, 1) || toStack.TSEcr != stackClock || toStack.TSVal != 90 {
		t.Errorf("ACK for the stack: %+v", toStack)
	}
	if !told || update.Window != 29184>>ourScale || update.Seq != cookieISN+1 || update.Ack != clientISN+1 || update.TSVal != 5000 || f.State() != Open {
		t.Errorf("update %+v, %v, state %v", update, told, f.State())
	}
}

// TestFlowTranslates: numbers of both directions, SACK blocks included, around
// the wrap; and the checksum stays right.
func TestFlowTranslates(t *testing.T) {
	f := waiting(false)
	f.Serve(0, -1)
	join(t, &f, 1000)
	delta := cookieISN - wrapped(stackISN, 0)
	in := ack(77, cookieISN+100, 9, 91, 5010, cookieISN+200, cookieISN+300, cookieISN+400, cookieISN+500)
	f.Inbound(in)
	want := ack(77, cookieISN+100-delta, 9, 91, 5010-(5000-stackClock), cookieISN+200-delta, cookieISN+300-delta, cookieISN+400-delta, cookieISN+500-delta)
	if !bytes.Equal(in, want) {
		t.Errorf("inbound % x\nwant    % x", in, want)
	}
	seq, val := uint32(0xfffffffe), uint32(20)
	out := ack(seq, 99, 700, val, 91)
	e := ends4()
	sum := func(tcp []byte) []byte { // as a whole packet
		p := (&Segment{Scale: NoScale}).Append(nil, e, false, ToClient)[:20]
		binary.BigEndian.PutUint16(p[2:], uint16(20+len(tcp)))
		return append(p, tcp...)
	}
	fix(e, out)
	f.Outbound(out, 0, true)
	if binary.BigEndian.Uint32(out[4:]) != seq+delta || binary.BigEndian.Uint32(out[24:]) != val+5000-stackClock {
		t.Errorf("outbound % x", out)
	}
	if p := sum(out); !tcpRight(p) {
		t.Error("the checksum of what goes out is wrong")
	}
}

// TestFlowBounded: the first flight's edge holds to the byte, towards the
// client and from it.
func TestFlowBounded(t *testing.T) {
	f := waiting(true)
	if _, _, told := join(t, &f, 1024); told || f.State() != Bounded {
		t.Fatalf("told %v, state %v", told, f.State())
	}
	for _, c := range []struct {
		seq     uint32
		payload int
		fresh   int
		ok      bool
	}{
		{clientISN + 1, 1000, 1000, true},
		{clientISN + 1, 1000, 0, true}, // again
		{wrapped(clientISN, 1001), 25, 0, false},
		{wrapped(clientISN, 1001), 24, 24, true},
		{wrapped(clientISN, 1025), 1, 0, false},
		{wrapped(clientISN, 1025), 0, 0, true},
		{wrapped(clientISN, 9999), 0, 0, true}, // a reset, an ACK, whatever: it carries nothing
	} {
		n, ok := f.Fresh(ack(c.seq, 0, 0, 0, 0), c.payload)
		if n != c.fresh || ok != c.ok {
			t.Errorf("%d bytes at %d: %d fresh, %v; want %d, %v", c.payload, int32(c.seq-clientISN-1), n, ok, c.fresh, c.ok)
		}
		if ok {
			f.Took(n)
		}
	}
	for acked, window := range map[uint32]uint16{0: 8, 1: 7, 896: 1, 1024: 0, 1000: 0} {
		out := ack(5, clientISN+1+acked, 500, 0, 0)
		f.Outbound(out, 10, false)
		if got := binary.BigEndian.Uint16(out[14:]); got != window {
			t.Errorf("with %d bytes acknowledged the window is %d, want %d", acked, got, window)
		}
	}
	if n := f.Settle(); n != 1024 || f.Settle() != 0 {
		t.Errorf("%d bytes pending, want 1024 once", n)
	}
	fin := ack(5, clientISN+1, 512, 0, 0) // of a stack that ends while the server is not there
	fin[13] |= FlagFIN
	f.Outbound(fin, 10, false)
	after := 5 + 10 + 1 + cookieISN - wrapped(stackISN, 0)
	if update, told := f.Serve(9, -1); !told || update.Window != 512 || update.Seq != after || f.State() != Open {
		t.Errorf("update %+v, %v", update, told)
	}
	out := ack(5, wrapped(clientISN, 1025), 500, 0, 0)
	if f.Outbound(out, 0, false); binary.BigEndian.Uint16(out[14:]) != 500 {
		t.Error("the window is still bounded")
	}
}

func TestFlowStrict(t *testing.T) {
	f := NewAsked(Hello{ISN: 5, MSS: 1000, Scale: 2, Stamps: true, TSVal: 3})
	if r := f.Reset(); r.Seq != 0 || r.Ack != 6 || r.Flags != FlagRST|FlagACK {
		t.Errorf("refusal %+v", r)
	}
	if got := f.Hear(ack(6, 1, 0, 0, 0), 0); got != Forged {
		t.Errorf("an ACK before the SYN-ACK: %v", got)
	}
	f.Serve(0, -1)
	if s := f.Join(1000); s.Seq != 5 || s.TSVal != 3 || s.MSS != 1000 || f.State() != Open {
		t.Errorf("SYN %+v, state %v", s, f.State())
	}
	in := ack(6, 9, 1, 2, 3)
	same := bytes.Clone(in)
	if f.Inbound(in); !bytes.Equal(in, same) {
		t.Error("numbers are translated in strict mode")
	}
}

// TestJoinedRefuses: a stack's SYN-ACK that does not fit is not taken.
func TestJoinedRefuses(t *testing.T) {
	for name, p := range map[string][]byte{
		"no timestamps": syn(stackISN, 3, 3, ourScale),
		"another scale": syn(stackISN, 3, 3, 5, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2),
		"no scale":      syn(stackISN, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2),
	} {
		f := waiting(false)
		f.Join(100)
		binary.BigEndian.PutUint32(p[8:], clientISN+1)
		if _, _, _, ok := f.Joined(p, ourScale, 0); ok {
			t.Errorf("%s: taken", name)
		}
	}
}

// fix sets a TCP header's checksum.
func fix(e *Ends, tcp []byte) {
	tcp[16], tcp[17] = 0, 0
	binary.BigEndian.PutUint16(tcp[16:], ^tcpSum(e, tcp))
}

// TestFlowServerWindow: the update opens what the server takes, rounded down,
// but never more than the stack does and never less than a segment.
func TestFlowServerWindow(t *testing.T) {
	for server, want := range map[int]uint16{
		-1: 29184 >> ourScale, 65160: 29184 >> ourScale, 14600: 14600 >> ourScale, 1535: 12, 1536: 12, 1400: 12, 0: 12,
	} {
		f := waiting(false)
		f.Serve(4000, server)
		if _, update, told := join(t, &f, 1000); !told || update.Window != want {
			t.Errorf("a server that takes %d: told %v, update of %d units, want %d", server, told, update.Window, want)
		}
	}
}
