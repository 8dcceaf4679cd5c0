package bbr

import (
	"math/rand/v2"
	"testing"
	"time"
)

func newTest() *Controller {
	return New(Config{Packet: 1000, RTT: 40 * ms, Random: func() float64 { return 0.5 }}, 0)
}

func TestLog(t *testing.T) {
	var l sentLog
	for _, number := range []int64{5, 6, 9, 9, 2} { // gaps, a number twice, one of another space
		l.put(number, sent{size: int32(number)})
	}
	if p, ok := l.take(9); !ok || p.size != 9 {
		t.Errorf("packet 9: %+v %v", p, ok)
	}
	for _, number := range []int64{2, 7, 9, 10} {
		if _, ok := l.take(number); ok {
			t.Errorf("packet %d is not in flight", number)
		}
	}
	if l.take(5); l.first != 6 {
		t.Errorf("the log begins at %d", l.first)
	}
	l.put(200, sent{size: 1})
	if _, ok := l.take(6); !ok {
		t.Error("packet 6 was lost when the log grew")
	}
}

// TestLogBound: a packet that is never settled cannot make the log grow for
// ever, nor can a jump of numbers.
func TestLogBound(t *testing.T) {
	var l sentLog
	l.put(1, sent{size: 1})
	for number := int64(2); number < 3*maxLog; number++ {
		l.put(number, sent{size: 1})
		if number > 10 {
			l.take(number)
		}
	}
	if len(l.ring) > maxLog {
		t.Errorf("%d slots", len(l.ring))
	}
	l.put(1<<50, sent{size: 7})
	if p, ok := l.take(1 << 50); !ok || p.size != 7 || len(l.ring) > maxLog {
		t.Errorf("after a jump: %+v %v, %d slots", p, ok, len(l.ring))
	}
}

func TestSampleRate(t *testing.T) {
	c := newTest()
	for i := range int64(10) { // 10 packets in 9 ms, acknowledged 40 ms later at 1 per ms
		c.Sent(time.Duration(i)*ms, i, 1000, int(i+1)*1000)
	}
	for i := range int64(10) {
		now := (40 + time.Duration(i)) * ms
		c.Acked(now, i)
		c.Settle(now, 0, int(9-i)*1000)
	}
	// The last sample: 10 packets since the first was sent, 49 ms before.
	if rate, limited := c.Delivery(); limited || rate < 10e3/0.0491 || rate > 10e3/0.0489 {
		t.Errorf("rate %.0f, limited %v", rate, limited)
	}
}

func TestLimitedSamples(t *testing.T) {
	c := newTest()
	c.Sent(0, 0, 1000, 1000)
	c.Starved()
	c.Sent(ms, 1, 1000, 2000)
	c.Acked(40*ms, 0)
	c.Settle(40*ms, 0, 1000)
	if _, limited := c.Delivery(); limited {
		t.Error("the packet sent before the bubble counts as limited")
	}
	c.Acked(41*ms, 1)
	c.Settle(41*ms, 0, 0)
	if _, limited := c.Delivery(); !limited {
		t.Error("the packet sent within the bubble counts as unlimited")
	}
	c.Sent(50*ms, 2, 1000, 1000)
	c.Acked(90*ms, 2)
	c.Settle(90*ms, 0, 0)
	c.Sent(100*ms, 3, 1000, 1000)
	c.Acked(140*ms, 3)
	c.Settle(140*ms, 0, 0)
	if _, limited := c.Delivery(); limited {
		t.Error("the bubble has been delivered and limits still")
	}
}

func TestBackground(t *testing.T) {
	var b background
	for range 100 {
		b.add(0.03)
	}
	if b.share < 0.028 || b.share > 0.031 {
		t.Errorf("3 %% loss in every round is taken for %.3f", b.share)
	}
	before := b.share
	b.add(1)
	if b.share > before+lossThreshold*backgroundGain*1.01 {
		t.Errorf("one bad round raised the background from %.3f to %.3f", before, b.share)
	}
	for range 1000 {
		b.add(0.5)
	}
	if b.share > backgroundMost {
		t.Errorf("the background is %.3f", b.share)
	}
	for range 100 {
		b.add(0)
	}
	if b.share > 0.001 {
		t.Errorf("the background is %.4f long after the loss", b.share)
	}
}

func TestAggregation(t *testing.T) {
	var a aggregation
	a.add(5000, 1, aggregateRounds)
	a.add(10, 7, aggregateRounds)
	if a.max() != 5000 {
		t.Errorf("%d after 6 rounds", a.max())
	}
	a.add(10, 12, aggregateRounds)
	if a.max() != 10 {
		t.Errorf("%d after 11 rounds", a.max())
	}
}

func TestPacer(t *testing.T) {
	var p Pacer
	const rate, packet = 1e6, 1000
	now := time.Second
	if got := p.Budget(now, rate, packet); got != 4000 {
		t.Errorf("%d bytes at the start", got)
	}
	sent := 0
	for end := now + time.Second; now < end; now = max(p.Next(rate, packet), now+ms/4) {
		for p.Budget(now, rate, packet) >= packet {
			p.Sent(now, rate, packet, packet)
			sent += packet
		}
	}
	if sent < 1_000_000 || sent > 1_006_000 {
		t.Errorf("%d bytes in a second at 1 MB/s", sent)
	}
	if got := p.Budget(now+time.Hour, rate, packet); got != 4000 {
		t.Errorf("%d bytes after a pause", got)
	}
	if got := p.Next(0, packet); got < now || got > now+2*time.Second {
		t.Errorf("without a rate the next packet goes at %v", got)
	}
}

// FuzzEvents: no sequence of events breaks the bounds that the transport
// relies on.
func FuzzEvents(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, uint64(1))
	f.Fuzz(func(t *testing.T, ops []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		c := New(Config{Packet: 1200, Random: r.Float64}, 0)
		now, next, inFlight := time.Duration(0), int64(0), 0
		for _, op := range ops {
			now += time.Duration(r.Int64N(int64(op)*int64(ms)+1))&^1 + 1
			number := next - 1 - r.Int64N(8)
			switch op % 8 {
			case 0, 1, 2:
				inFlight += 1200
				c.Sent(now, next, 1200, inFlight)
				next += 1 + int64(op>>6)
			case 3:
				c.Acked(now, number)
				inFlight = max(inFlight-1200, 0)
			case 4:
				c.Lost(now, number)
				inFlight = max(inFlight-1200, 0)
			case 5:
				c.Starved()
			case 6:
				c.Marked(now)
			case 7:
				c.Resize(1200 + int(op))
				c.Forget(number)
			}
			if op%8 >= 3 {
				c.Settle(now, 0, inFlight)
			}
			if c.Window() < leastPackets*1200 || !(c.Rate() > 0) {
				t.Fatalf("window %d, rate %f, %v after %d", c.Window(), c.Rate(), c.State(), op)
			}
		}
	})
}

// TestAckedBeforeSent: a peer that guesses numbers may acknowledge a packet with a datagram
// that had come before that was sent. It is no round trip of less than nothing.
func TestAckedBeforeSent(t *testing.T) {
	c := New(Config{Packet: 1200, RTT: 20 * ms, Random: func() float64 { return 0 }}, 0)
	c.Sent(10*ms, 1, 1200, 1200)
	c.Acked(5*ms, 1)
	c.Settle(5*ms, 0, 0)
	if c.MinRTT() <= 0 || c.Window() < 0 || c.Rate() <= 0 {
		t.Errorf("least round trip %v, window %d, rate %v", c.MinRTT(), c.Window(), c.Rate())
	}
}
