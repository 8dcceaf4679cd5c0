package scheduler

import (
	"testing"
	"time"
)

// path feeds an estimator with the samples that a link would give.
type path struct {
	e   Estimator
	now time.Time
}

func newPath() *path { return &path{now: time.Unix(1000, 0)} }

// deliver says that n bytes arrived over interval, with a round trip of rtt.
func (p *path) deliver(n int, interval, rtt time.Duration, limited bool) {
	p.now = p.now.Add(interval)
	p.e.Ack(p.now, Sample{RTT: rtt, Delivered: n, Interval: interval, AppLimited: limited, Round: true})
}

func within(got, want, share float64) bool { return got > want*(1-share) && got < want*(1+share) }

func TestEstimatorFindsTheRate(t *testing.T) {
	p := newPath()
	for range 30 {
		p.deliver(125_000, 20*ms, 20*ms, false) // 50 Mbit/s
	}
	if !within(p.e.Rate(), 6.25e6, 0.01) {
		t.Errorf("rate %.0f", p.e.Rate())
	}
	bdp := 125_000.0
	if cap := float64(p.e.Cap()); cap < bdp*capGain || cap > bdp*capGain+6.25e6*0.010 {
		t.Errorf("cap %.0f for a bandwidth-delay product of %.0f", cap, bdp)
	}
}

func TestEstimatorIdleKeepsItsValue(t *testing.T) {
	p := newPath()
	for range 30 {
		p.deliver(125_000, 20*ms, 20*ms, false)
	}
	rate, cap := p.e.Rate(), p.e.Cap()
	for range 1000 {
		p.deliver(100, 100*ms, 20*ms, true)
	}
	if p.e.Rate() != rate || p.e.Cap() < cap*9/10 {
		t.Errorf("a trickle changed rate %.0f to %.0f, cap %d to %d", rate, p.e.Rate(), cap, p.e.Cap())
	}
}

func TestEstimatorFollowsAFall(t *testing.T) {
	p := newPath()
	for range 30 {
		p.deliver(125_000, 20*ms, 20*ms, false)
	}
	for range 60 {
		p.deliver(12_500, 20*ms, 60*ms, false) // 5 Mbit/s with a queue
	}
	if !within(p.e.Rate(), 0.625e6, 0.2) {
		t.Errorf("rate %.0f after a fall to 625000", p.e.Rate())
	}
	if !within(float64(p.e.Cap()), 0.625e6*(0.020*capGain+0.005), 1) {
		t.Errorf("cap %d after the fall", p.e.Cap())
	}
}

// TestEstimatorSwift: what a rest takes off the predicted rate of a link says nothing
// about what it may carry, unless its rate changes every second.
func TestEstimatorSwift(t *testing.T) {
	p := newPath()
	p.e.unrest.base = 20 * ms // a transport that tells has been looked at
	if got := p.e.Swift(p.now); got != initialRate {
		t.Errorf("%.0f before anything is known", got)
	}
	for range 30 {
		p.deliver(125_000, 20*ms, 20*ms, false)
	}
	for range 2 { // 50 KB from rest, which queue
		p.deliver(50_000, 32*ms, 32*ms, true)
	}
	if p.e.Rate() > 5e6 || !within(p.e.Swift(p.now), 6.25e6, 0.01) {
		t.Errorf("predicted %.0f, may carry %.0f, want 6250000", p.e.Rate(), p.e.Swift(p.now))
	}
	p.e.unrest.base, p.e.unrest.until = 20*ms, p.now.Add(time.Second)
	if p.e.Swift(p.now) != p.e.Rate() {
		t.Errorf("restless: may carry %.0f, predicted %.0f", p.e.Swift(p.now), p.e.Rate())
	}
	start := newPath()
	start.e.unrest.base = 200 * ms
	start.deliver(2000, 200*ms, 200*ms, false)
	if got := start.e.Swift(start.now); got != startCap/0.2 {
		t.Errorf("in the start: %.0f", got)
	}
}

// TestEstimatorQueueIsEvidence: a small burst that meets a queue tells the
// rate even though the sender had nothing more to send.
func TestEstimatorQueueIsEvidence(t *testing.T) {
	p := newPath()
	p.deliver(100, 20*ms, 20*ms, true)
	if p.e.Rate() != initialRate {
		t.Errorf("a probe set the rate to %.0f", p.e.Rate())
	}
	for range 10 {
		p.deliver(20_000, 80*ms, 200*ms, true) // 2 Mbit/s
	}
	if !within(p.e.Rate(), 250_000, 0.3) {
		t.Errorf("rate %.0f, want about 250000", p.e.Rate())
	}
}

// TestEstimatorBurst: objects of 50 KB, paced at what the estimator allows after a start
// that ended too soon, find the rate of the line, though each takes less than a round trip
// of the path beside it and the application has nothing more to send. Acknowledgements that
// were held up and came at once do not make more of it.
func TestEstimatorBurst(t *testing.T) {
	const object, chunk, line = 50_000, 5_000, 6.25e6
	for _, held := range []time.Duration{0, 5 * ms} {
		p := newPath()
		p.deliver(chunk, 20*ms, 20*ms, true)
		p.e.full, p.e.bw = true, line*3/10
		for range 20 {
			p.now = p.now.Add(100 * ms)
			began, first := p.now, time.Duration(0)
			took := time.Duration(object / min(p.e.Pace(), line) * float64(time.Second))
			for got := chunk; got <= object; got += chunk {
				since := 20*ms + took*time.Duration(got)/object
				at := max(since, 20*ms+min(held, took/2)) // what comes earlier waits
				if first == 0 {
					first = at
				}
				p.now = began.Add(at)
				p.e.Ack(p.now, Sample{RTT: at, Delivered: got, Interval: at, FromRest: true, First: chunk, Since: at - first, AppLimited: true, InFlight: object - got, Round: got == chunk})
			}
		}
		if pace := p.e.Pace(); pace < 0.8*line || p.e.bw > 1.02*line {
			t.Errorf("acknowledgements held up for %v: a rate of %.0f, paced at %.0f; the line has %.0f", held, p.e.bw, pace, line)
		}
	}
}

func TestEstimatorStartGrows(t *testing.T) {
	p := newPath()
	if p.e.Cap() != startCap {
		t.Fatalf("cap %d before any sample", p.e.Cap())
	}
	sent := startCap
	for range 4 {
		p.deliver(sent, 20*ms, 20*ms, false)
		if p.e.Cap() < 2*sent {
			t.Fatalf("cap %d after %d bytes a round", p.e.Cap(), sent)
		}
		sent = p.e.Cap()
	}
}

func TestEstimatorRoundTrips(t *testing.T) {
	p := newPath()
	for range 50 {
		p.deliver(1000, 20*ms, 30*ms, true)
	}
	p.deliver(1000, 20*ms, 20*ms, true)
	if p.e.MinRTT() != 20*ms || p.e.SRTT() < 28*ms || p.e.SRTT() > 30*ms {
		t.Errorf("min %v, smoothed %v", p.e.MinRTT(), p.e.SRTT())
	}
	for range 70 {
		p.deliver(1000, 200*ms, 50*ms, true)
	}
	if p.e.MinRTT() != 50*ms {
		t.Errorf("min %v though the path is longer for more than ten seconds", p.e.MinRTT())
	}
}

// TestEstimatorDrains: a standing queue of our own does not pass for distance.
func TestEstimatorDrains(t *testing.T) {
	p := newPath()
	p.deliver(125_000, 20*ms, 20*ms, false)
	for range 3000 { // a minute
		queue := time.Duration(float64(p.e.Cap()-125_000) / 6.25e6 * 1e9)
		p.deliver(125_000, 20*ms, 20*ms+max(queue, 0), false)
	}
	if p.e.MinRTT() > 22*ms {
		t.Errorf("least round trip %v after a minute with a queue, the path has 20 ms", p.e.MinRTT())
	}
}

// TestEstimatorDrainsWhenDue: where the transport says that the queue had better
// drain, little is in flight for a moment, once; and the least round trip is measured.
func TestEstimatorDrainsWhenDue(t *testing.T) {
	p := newPath()
	due := View{RTT: 30 * ms, Flying: 150_000, InFlight: 150_000, Due: true}
	p.deliver(125_000, 20*ms, 20*ms, false)
	if before := p.e.NetCap(); before != p.capAfter(due) {
		t.Error("the start is interrupted")
	}
	for range 20 {
		p.deliver(125_000, 20*ms, 21*ms, false)
	}
	full := p.e.NetCap()
	if got := p.capAfter(due); got > full/2 {
		t.Errorf("%d bytes may be in flight, %d before", got, full)
	}
	for range 10 {
		p.deliver(62_500, 20*ms, 20500*time.Microsecond, false)
	}
	if p.e.MinRTT() != 20500*time.Microsecond {
		t.Errorf("least round trip %v, the drain has shown 20.5 ms", p.e.MinRTT())
	}
	if got := p.capAfter(due); got < full*9/10 {
		t.Errorf("%d bytes may be in flight when that is over, %d before", got, full)
	}
}

// capAfter is what may be in flight after a look.
func (p *path) capAfter(v View) int {
	p.e.Look(p.now, v)
	return p.e.NetCap()
}

// TestEstimatorAsksTheTransport: chunks that the transport held back while the
// link was drained do not pass for a longer path.
func TestEstimatorAsksTheTransport(t *testing.T) {
	p := newPath()
	p.deliver(125_000, 20*ms, 20*ms, false)
	for range 800 {
		rtt := 30 * ms
		if !p.e.drainTo.IsZero() {
			rtt = 150 * ms
		}
		s := Sample{RTT: rtt, Delivered: 125_000, Interval: 20 * ms}
		p.now = p.now.Add(20 * ms)
		if p.e.WantsPath(p.now) {
			s.Path = 21 * ms
		}
		p.e.Ack(p.now, s)
		if p.e.MinRTT() > 21*ms {
			t.Fatalf("least round trip %v", p.e.MinRTT())
		}
	}
}

func TestEstimatorPace(t *testing.T) {
	p := newPath()
	p.deliver(125_000, 20*ms, 20*ms, false)
	if p.e.Pace() != 0 {
		t.Error("the start is paced")
	}
	for range 10 {
		p.deliver(125_000, 20*ms, 20*ms, false)
	}
	if !within(p.e.Pace(), 6.25e6*paceGain, 0.01) {
		t.Errorf("pace %.0f", p.e.Pace())
	}
}

// TestEstimatorIgnoresLateProbes: small exchanges that waited for a busy
// processor, or for a delayed acknowledgement, say nothing about the line.
func TestEstimatorIgnoresLateProbes(t *testing.T) {
	p := newPath()
	p.deliver(100, 20*ms, 20*ms, true)
	for range 200 {
		p.now = p.now.Add(50 * ms)
		p.e.Ack(p.now, Sample{RTT: 70 * ms, Path: 60 * ms, Delivered: 300, Interval: 50 * ms, AppLimited: true, Round: true})
	}
	if p.e.Rate() != initialRate || p.e.Pace() != 0 || p.e.Cap() != startCap {
		t.Errorf("rate %.0f, pace %.0f, cap %d", p.e.Rate(), p.e.Pace(), p.e.Cap())
	}
}

// TestEstimatorRenewsWhatIsOld: another connection halves what the one before has measured,
// and not what that has halved itself and never measured: an uplink that connects a dozen times
// in a row, or at rest, would be passed over for one that carries a quarter.
func TestEstimatorRenewsWhatIsOld(t *testing.T) {
	p := newPath()
	measure := func() {
		for range 30 {
			p.deliver(50_000, 20*ms, 20*ms, false) // 20 Mbit/s
		}
	}
	for range 2 {
		measure()
		for range 12 {
			p.e.Renew()
			p.deliver(100, 100*ms, 20*ms, true) // a probe
			if rate := p.e.Rate(); !within(rate, 1.25e6, 0.01) {
				t.Fatalf("rate %.0f after a new connection, wanted half of 2.5 MB/s", rate)
			}
			if bw := p.e.Cap(); bw < startCap || p.e.full {
				t.Fatalf("cap %d, full %v: the start is not made again", bw, p.e.full)
			}
		}
	}
	p.e.Renew()
	p.deliver(50_000, 80*ms, 20*ms, false) // what it carries now
	if p.e.Renew(); p.e.Rate() > 0.63e6 {
		t.Errorf("rate %.0f after a connection that has measured less", p.e.Rate())
	}
}

// TestEstimatorLooksAtWhatFalls: what a transport says to have delivered may fall by a part of a
// segment. That is no news, and no 18 exabytes.
func TestEstimatorLooksAtWhatFalls(t *testing.T) {
	p := newPath()
	for range 30 {
		p.deliver(50_000, 20*ms, 20*ms, false)
	}
	look := func(delivered uint64) {
		p.now = p.now.Add(20 * ms)
		p.e.Look(p.now, View{RTT: 20 * ms, Delivered: delivered, InFlight: 50_000, Flying: 50_000})
	}
	look(100_000)
	look(200_000)
	moved := p.now
	for _, delivered := range []uint64{199_000, 200_000, 199_500} {
		look(delivered)
		for what, at := range map[string]time.Time{"lull": p.e.lull.moved, "unrest": p.e.unrest.moved, "bunch": p.e.bunch.moved, "ebb": p.e.ebb.moved} {
			if !at.Equal(moved) {
				t.Errorf("%s takes %d after 200000 bytes for something that has come", what, delivered)
			}
		}
	}
	if look(300_000); !p.e.lull.moved.Equal(p.now) || !p.e.unrest.moved.Equal(p.now) {
		t.Error("what has come was not seen")
	}
}
