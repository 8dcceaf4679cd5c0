package repair

import (
	"slices"
	"testing"
	"time"
)

const (
	ms  = time.Millisecond
	mss = 1000
)

// rig is a Flow with a clock, which starts shortly before sequence numbers
// wrap. Its units are segments.
type rig struct {
	t      *testing.T
	f      Flow
	now    time.Duration
	start  uint32
	window int // right edge of the peer's window; 0: far away
	credit int
	again  []Range // sent again since last asked, relative to start
}

// newRig returns a flow that has sent and had acknowledged segments with a
// round trip of 10 ms.
func newRig(t *testing.T, segments int) *rig {
	r := &rig{t: t, start: 1<<32 - 5*mss, credit: 1 << 20}
	r.send(0, segments)
	r.now += 10 * ms
	r.ack(segments)
	return r
}

// send sends segments from up to and without to; the timestamp is from.
func (r *rig) send(from, to int) bool {
	_, ok := r.f.Sent(r.now, r.rangeOf(from, to), mss, uint32(from))
	return ok
}

func (r *rig) rangeOf(from, to int) Range {
	return Range{r.start + uint32(from*mss), r.start + uint32(to*mss)}
}

// ack acknowledges all segments before n, and selectively those of blocks,
// which are pairs of segments. It returns what the sender is told.
func (r *rig) ack(n int, blocks ...int) (tell int, v Verdict) {
	var list []Range
	for i := 0; i+1 < len(blocks); i += 2 {
		list = append(list, r.rangeOf(blocks[i], blocks[i+1]))
	}
	edge := r.window
	if edge == 0 {
		edge = n + 1000
	}
	v = r.f.Ack(r.now, r.start+uint32(n*mss), r.start+uint32(edge*mss), list, r.credit, r.note)
	return int(v.Tell-r.start) / mss, v
}

func (r *rig) note(x Range) {
	r.again = append(r.again, Range{(x.From - r.start) / mss, (x.To - r.start) / mss})
}

// tick lets the time pass until something is due, and returns how long that was.
func (r *rig) tick() time.Duration {
	r.t.Helper()
	at, ok := r.f.Due()
	if !ok {
		r.t.Fatal("nothing is due")
	}
	passed := at - r.now
	r.now = max(at, r.now)
	r.f.Tick(r.now, r.note)
	return passed
}

// want checks what was sent again since the last want.
func (r *rig) want(ranges ...Range) {
	r.t.Helper()
	if !slices.Equal(r.again, ranges) {
		r.t.Errorf("sent again %v, want %v", r.again, ranges)
	}
	r.again = nil
}

// told checks what an acknowledgement has told the sender.
func (r *rig) told(want int, shown bool, tell int, v Verdict) {
	r.t.Helper()
	if tell != want || v.Show != shown || v.Pass {
		r.t.Errorf("the sender is told of %d, shown the rest: %v, want %d, %v", tell, v.Show, want, shown)
	}
}

func TestGapIsMendedUnseen(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 6)
	r.send(6, 12)
	r.now += 10 * ms
	tell, v := r.ack(4, 5, 7)
	r.told(7, false, tell, v)
	if !v.Ahead || v.Stamp != 6 {
		t.Errorf("the echo is to be of 6, told %d, %v", v.Stamp, v.Ahead)
	}
	if r.f.Debt() != 3*mss {
		t.Errorf("%d bytes are owed", r.f.Debt())
	}
	r.want() // two segments beyond it may be reordering
	r.ack(4, 5, 8)
	r.want(Range{4, 5})
	tell, v = r.ack(4, 5, 9)
	r.told(9, false, tell, v)
	r.want() // the repair is on its way
	tell, v = r.ack(12)
	r.told(12, false, tell, v)
	if v.Ahead || r.f.Debt() != 0 || !r.f.Idle() {
		t.Errorf("after the repair: %+v, %d owed", v, r.f.Debt())
	}
	if _, ok := r.f.Due(); ok {
		t.Error("something is due though all is acknowledged")
	}
}

// A gap with less than three segments beyond is a loss after a while.
func TestGapNearTheEnd(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 6)
	r.now += 10 * ms
	r.ack(4, 5, 6)
	r.want()
	if d := r.tick(); d <= 0 || d > 6*ms {
		t.Errorf("it takes %v", d)
	}
	r.want(Range{4, 5})
}

// A window that is lost whole shows when its last segment is sent again; the
// sender is told of all of it then.
func TestTailIsLost(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 22)
	r.send(22, 42)
	if d := r.tick(); d < 15*ms || d > 45*ms {
		t.Errorf("it takes %v", d)
	}
	r.want(Range{2, 3}, Range{41, 42})
	r.now += 10 * ms
	r.ack(3)
	tell, v := r.ack(3, 41, 42)
	r.told(42, false, tell, v)
	r.tick() // one segment beyond may be reordering
	r.want(Range{3, 41})
}

// The peer may delay the acknowledgement of one segment.
func TestSingleSegmentHasTime(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 3)
	if at, ok := r.f.Due(); !ok || at < r.now+60*ms {
		t.Errorf("due at %v, now is %v", at, r.now)
	}
	r.tick()
	r.want(Range{2, 3})
}

// A train of segments that is lost whole is sent again whole, and what is lost
// again of it alone.
func TestTrain(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 42)
	r.send(42, 60)
	r.now += 10 * ms
	r.ack(2, 42, 60)
	r.want(Range{2, 42})
	r.now += 10 * ms
	r.ack(10, 42, 60)
	r.ack(10, 11, 20, 42, 60)
	r.ack(10, 11, 30, 42, 60)
	r.want() // all of it may still come
	r.ack(10, 11, 60)
	r.tick()
	r.want(Range{10, 11})
}

func TestLostRepairIsSentAgain(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 12)
	r.now += 10 * ms
	r.ack(4, 5, 12)
	r.want(Range{4, 5})
	for last, at := time.Duration(0), r.now; last < mostWait; {
		for r.again == nil {
			r.tick()
		}
		if d := r.now - at; d < max(10*ms, last) || d > mostWait {
			t.Fatalf("sent again after %v, before after %v", d, last)
		}
		last, at = r.now-at, r.now
		r.want(Range{4, 5})
	}
	for !r.f.Hopeless(r.now) {
		r.tick()
	}
	if r.now < patienceMost || r.now > patienceMost+10*time.Second {
		t.Errorf("given up after %v", r.now)
	}
}

func TestSecondGap(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 42)
	r.now += 10 * ms
	r.ack(4, 5, 20)
	r.ack(4, 21, 24, 5, 20)
	r.ack(4, 30, 36, 21, 24, 5, 20)
	r.want(Range{4, 5}, Range{20, 21}, Range{24, 30})
}

// What a peer throws away after it had acknowledged it selectively is sent once
// more (RFC 2018 section 8).
func TestPeerReneges(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 12)
	r.now += 10 * ms
	tell, v := r.ack(4, 5, 12)
	r.told(12, false, tell, v)
	r.want(Range{4, 5})
	r.now += 10 * ms
	tell, v = r.ack(5)
	r.told(12, false, tell, v)
	r.tick()
	r.want(Range{5, 6}, Range{11, 12})
	r.now += 10 * ms
	r.ack(6, 11, 12)
	r.tick()
	r.want(Range{6, 11})
}

// The sender is told no more than the peer's window and the credit allow.
func TestTellIsBounded(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 42)
	r.now += 10 * ms
	r.window = 24
	tell, v := r.ack(4, 5, 30)
	r.told(19, false, tell, v) // behind a gap it is three quarters of the window
	if v.Edge != r.start+19*mss {
		t.Errorf("the window shown ends at %d", v.Edge-r.start)
	}
	r.window, r.credit = 0, 20*mss
	tell, v = r.ack(4, 5, 30)
	r.told(24, false, tell, v)
	r.credit = 0
	tell, v = r.ack(4, 5, 32)
	r.told(24, false, tell, v) // it cannot be taken back
	r.want(Range{4, 5})
}

// A FIN counts as a byte that only the peer acknowledges.
func TestFIN(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 4)
	fin := r.start + 4*mss + 1
	if v := r.f.Ack(r.now, fin, fin+1000, nil, 0, r.note); v.Tell != fin || !r.f.Idle() {
		t.Errorf("told %d, want %d", v.Tell, fin)
	}
}

// A flow that begins while more is under way leaves that to the sender.
func TestBeginsInTheMiddle(t *testing.T) {
	r := &rig{t: t, start: 1 << 31, credit: 1 << 20}
	r.send(10, 20)
	if _, v := r.ack(4, 5, 12); !v.Pass {
		t.Error("a gap before the flow is not left to the sender")
	}
	r.now += 10 * ms
	tell, v := r.ack(12, 14, 20)
	r.told(20, false, tell, v)
	r.want(Range{12, 14})
}

// A flow that begins with a repair of the sender's lacks what was sent between
// that and the next new data: the sender is never told to have it acknowledged.
func TestBeginsWithARepair(t *testing.T) {
	r := &rig{t: t, credit: 1 << 20}
	r.send(0, 2)
	r.send(10, 20) // 2 to 10 were sent before
	r.now += 10 * ms
	tell, v := r.ack(2, 10, 20)
	r.told(2, true, tell, v)
	r.want()
	tell, v = r.ack(9, 10, 20)
	r.told(9, true, tell, v)
	tell, v = r.ack(20)
	r.told(20, false, tell, v)
	r.send(20, 30) // from here on everything is known
	r.now += 10 * ms
	tell, v = r.ack(20, 21, 30)
	r.told(30, false, tell, v)
	r.want(Range{20, 21})
}

// An acknowledgement that was overtaken says nothing.
func TestOldAck(t *testing.T) {
	r := newRig(t, 2)
	r.send(2, 12)
	r.ack(8)
	tell, v := r.ack(4, 5, 7)
	r.told(8, false, tell, v)
	r.want()
}

func TestSendersOwnRepair(t *testing.T) {
	r := newRig(t, 2)
	if !r.send(2, 12) || r.send(2, 3) {
		t.Error("what was sent before counts as new")
	}
	fresh, ok := r.f.Sent(r.now, r.rangeOf(10, 14), mss, 0)
	if !ok || fresh != r.rangeOf(12, 14) {
		t.Errorf("of a segment that was sent in part before, %v is new", fresh)
	}
}

func TestCongestionIsShown(t *testing.T) {
	t.Run("queue", func(t *testing.T) {
		r := newRig(t, 2)
		at := 2
		for range 60 { // the round trip grows to 100 ms
			r.send(at, at+1)
			at++
			r.now += 100 * ms
			r.ack(at)
		}
		r.send(at, at+30)
		r.now += 100 * ms
		tell, v := r.ack(at, at+1, at+8)
		r.told(at, true, tell, v)
		r.want(Range{uint32(at), uint32(at + 1)}) // it is mended all the same
		tell, v = r.ack(at, at+1, at+9)
		r.told(at, true, tell, v)
		if r.send(at, at+1) {
			t.Error("the sender's repair counts as new")
		}
		tell, v = r.ack(at, at+1, at+10) // it has slowed down
		r.told(at+10, false, tell, v)
		tell, v = r.ack(at+10, at+11, at+20) // of the same window: once is enough
		r.told(at+20, false, tell, v)
		r.want(Range{uint32(at + 10), uint32(at + 11)})
		tell, v = r.ack(at + 30)
		r.told(at+30, false, tell, v)
		at += 30
		r.send(at, at+10)
		r.now += 100 * ms
		r.ack(at + 1)
		tell, v = r.ack(at+1, at+2, at+8) // of the next
		r.told(at+1, true, tell, v)
		r.now += 2 * r.f.turn()
		tell, v = r.ack(at+1, at+2, at+8) // a sender that does not answer is not held up for longer
		r.told(at+8, false, tell, v)
	})
	t.Run("many gaps", func(t *testing.T) {
		r := newRig(t, 2)
		r.send(2, 2002)
		r.now += 10 * ms
		shown := 0
		for i := range 200 { // every tenth segment is lost
			if _, v := r.ack(2+10*i, 3+10*i, 12+10*i); v.Show {
				shown++
			}
			r.ack(12 + 10*i)
		}
		if shown == 0 {
			t.Error("10 % loss is hidden")
		}
	})
	// What the sender was told before it has forgotten: that is mended whatever
	// comes. Only what is beyond is shown.
	t.Run("debts stay", func(t *testing.T) {
		r := newRig(t, 2)
		r.send(2, 40)
		r.now += 10 * ms
		tell, v := r.ack(4, 5, 20)
		r.told(20, false, tell, v)
		r.want(Range{4, 5})
		r.f.Yield()
		tell, v = r.ack(4, 5, 20, 22, 30)
		r.told(20, true, tell, v)
		r.want()
		r.tick()
		r.want(Range{4, 5})
		tell, v = r.ack(4, 5, 30) // the sender has repaired its part
		r.told(30, true, tell, v)
		tell, v = r.ack(40)
		r.told(40, false, tell, v)
	})
}

// TestLongerRoundTrip: where answers have come to take much longer than ever before, as
// behind a queue, flows of one segment each are sent again less and less and then not at
// all: what is sent again measures nothing, so that the waits of one flow hold for the next.
func TestLongerRoundTrip(t *testing.T) {
	const turn = 400 * ms
	r := newRig(t, 1)
	for flow := range 12 {
		line := r.f.Line
		r.f.Begin(line)
		r.send(flow, flow+1)
		answer := r.now + turn
		for {
			at, ok := r.f.Due()
			if !ok || at >= answer {
				break
			}
			r.tick()
		}
		r.now = answer
		r.ack(flow + 1)
		if n := len(r.again); flow > 4 && n > 0 {
			t.Errorf("flow %d: sent %d times again", flow, n)
		}
		r.again = nil
	}
}

// TestYieldedGapIsProbed: the first segment of a gap that is the sender's to repair is sent
// again where nothing moves for twice as long as else, a few times; what nothing has
// arrived beyond is not.
func TestYieldedGapIsProbed(t *testing.T) {
	yielded := func(blocks ...int) *rig {
		r := newRig(t, 2)
		r.send(2, 20)
		r.now += 10 * ms
		r.ack(2)
		r.f.Yield()
		r.ack(3, blocks...)
		r.want()
		return r
	}
	r := yielded(8, 12)
	if passed := r.tick(); passed != 2*(r.f.turn()+tailTime) {
		t.Errorf("probed after %v, want twice %v", passed, r.f.turn()+tailTime)
	}
	r.want(Range{3, 4})
	for range 3 * mostProbes {
		if _, ok := r.f.Due(); ok {
			r.tick()
		}
	}
	if at, ok := r.f.Due(); ok {
		t.Errorf("still something to do at %v", at)
	}
	if n := len(r.again); n < 2 || n > 2*mostProbes {
		t.Errorf("sent again %d times more", n)
	}
	if at, ok := yielded().f.Due(); ok {
		t.Errorf("nothing has arrived, and something is to be done at %v", at)
	}
}
