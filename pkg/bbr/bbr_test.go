package bbr

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// goodputs runs the network from now on for d and returns each flow's share of
// the capacity.
func (n *network) goodputs(d time.Duration) []float64 {
	before := make([]int, len(n.flows))
	for i, f := range n.flows {
		before[i] = f.delivered
	}
	n.delays = n.delays[:0]
	n.runUntil(n.now + d)
	shares := make([]float64, len(n.flows))
	for i, f := range n.flows {
		shares[i] = float64(f.delivered-before[i]) / n.rate / d.Seconds()
	}
	return shares
}

// queueing is a quantile of the time in the queue since goodputs began.
func (n *network) queueing(quantile float64) time.Duration {
	slices.Sort(n.delays)
	if len(n.delays) == 0 {
		return 0
	}
	return n.delays[int(quantile*float64(len(n.delays)-1))]
}

// jain is Jain's fairness index: 1 when all shares are equal.
func jain(shares []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, s := range shares {
		sum += s
		squares += s * s
	}
	return sum * sum / squares / float64(len(shares))
}

func sumOf(shares []float64) (sum float64) {
	for _, s := range shares {
		sum += s
	}
	return sum
}

// TestStart: three round trips after the pipe is full the rate is found.
func TestStart(t *testing.T) {
	for _, c := range []struct {
		mbit float64
		rtt  time.Duration
		in   time.Duration
	}{{5, 40 * ms, 500 * ms}, {50, 20 * ms, 400 * ms}, {20, 80 * ms, 900 * ms}, {50, 600 * ms, 10 * time.Second}} {
		n := newNetwork(1, c.mbit, c.rtt, 1)
		g := n.bbr()
		n.add(g, -1)
		n.runUntil(c.in)
		found := g.c.Bandwidth() / n.rate
		t.Logf("%g Mbit/s, %v: %.3f of the rate after %v, %v", c.mbit, c.rtt, found, c.in, g.c.State())
		if found < 0.97 || found > 1.1 || g.c.State() == Startup {
			t.Errorf("%g Mbit/s, %v: estimate %.3f of the rate after %v in %v", c.mbit, c.rtt, found, c.in, g.c.State())
		}
		if g.c.MinRTT() < c.rtt || g.c.MinRTT() > c.rtt+5*ms {
			t.Errorf("least round trip %v, want %v", g.c.MinRTT(), c.rtt)
		}
	}
}

// TestRandomLoss: loss that is not congestion costs hardly more than itself,
// at the start and later, and the queue stays short.
func TestRandomLoss(t *testing.T) {
	for _, path := range []struct {
		mbit float64
		rtt  time.Duration
		bdps float64 // of queue
	}{{50, 20 * ms, 1}, {20, 80 * ms, 1}, {50, 40 * ms, 0.1}, {50, 40 * ms, 10}, {5, 40 * ms, 1}} {
		for _, loss := range []float64{0, 0.001, 0.01, 0.03} {
			t.Run(fmt.Sprintf("%g Mbit, %v, queue %g, loss %g", path.mbit, path.rtt, path.bdps, loss), func(t *testing.T) {
				t.Parallel()
				n := newNetwork(7, path.mbit, path.rtt, path.bdps)
				n.loss, n.ackLoss = loss, loss
				n.add(n.bbr(), -1)
				first := n.goodputs(time.Second)[0]
				then := n.goodputs(9 * time.Second)[0]
				p50, p99 := n.queueing(0.5), n.queueing(0.99)
				t.Logf("first second %.2f, then %.3f of the capacity; queue p50 %v p99 %v", first, then, p50, p99)
				if first < 0.7 || then < 0.9 {
					t.Errorf("goodput %.2f and %.3f of the capacity, want 0.7 in the first second and 0.9 then", first, then)
				}
				if p50 > path.rtt/2 || p99 > path.rtt*5/4 {
					t.Errorf("queue p50 %v, p99 %v at a round trip of %v", p50, p99, path.rtt)
				}
			})
		}
	}
}

// TestFairness: flows that start together share evenly; one that comes later
// gets its share within some tens of seconds, as the draft's do.
func TestFairness(t *testing.T) {
	for _, c := range []struct {
		flows int
		bdps  float64
		apart time.Duration
		after time.Duration
		want  float64
	}{
		{2, 1, 0, 4 * time.Second, 0.95}, {3, 1, 0, 4 * time.Second, 0.9}, {4, 1, 0, 4 * time.Second, 0.9},
		{4, 0.25, 0, 4 * time.Second, 0.9}, {4, 4, 0, 4 * time.Second, 0.9},
		{2, 1, 3 * time.Second, 10 * time.Second, 0.9}, {4, 1, 3 * time.Second, 25 * time.Second, 0.9},
	} {
		t.Run(fmt.Sprintf("%d flows, queue %g, %v apart", c.flows, c.bdps, c.apart), func(t *testing.T) {
			t.Parallel()
			n := newNetwork(2, 20, 40*ms, c.bdps)
			for i := range c.flows {
				n.after(time.Duration(i)*c.apart, func() { n.add(n.bbr(), -1) })
			}
			n.runUntil(time.Duration(c.flows-1)*c.apart + c.after)
			shares := n.goodputs(6 * time.Second)
			t.Logf("shares %.2f, Jain %.3f, queue p50 %v", shares, jain(shares), n.queueing(0.5))
			if jain(shares) < c.want || sumOf(shares) < 0.9 {
				t.Errorf("shares %.2f: Jain %.3f, want %.2f", shares, jain(shares), c.want)
			}
		})
	}
}

// TestBesideCubic: neither starves, whoever was first.
func TestBesideCubic(t *testing.T) {
	for _, mbit := range []float64{20, 50} {
		for _, bdps := range []float64{0.5, 1, 2, 4} {
			for _, first := range []string{"bbr", "cubic"} {
				t.Run(fmt.Sprintf("%g Mbit, queue %g, %s first", mbit, bdps, first), func(t *testing.T) {
					t.Parallel()
					n := newNetwork(3, mbit, 40*ms, bdps)
					start := []func(){func() { n.add(n.bbr(), -1) }, func() { n.add(newCubic(), -1) }}
					if first == "cubic" {
						slices.Reverse(start)
					}
					start[0]()
					n.after(2*time.Second, start[1])
					n.runUntil(6 * time.Second)
					shares := n.goodputs(20 * time.Second)
					t.Logf("%s %.2f, then the other %.2f", first, shares[0], shares[1])
					if min(shares[0], shares[1]) < 0.2 || sumOf(shares) < 0.9 {
						t.Errorf("shares %.2f", shares)
					}
				})
			}
		}
	}
}

// TestRateChange: a path that becomes ten times slower is believed within
// three seconds, also when a deep buffer hides it, and one that becomes ten
// times faster is used within four.
func TestRateChange(t *testing.T) {
	for _, bdps := range []float64{0.5, 1, 4} {
		t.Run(fmt.Sprintf("queue %g", bdps), func(t *testing.T) {
			t.Parallel()
			n := newNetwork(3, 50, 40*ms, bdps)
			g := n.bbr()
			n.add(g, -1)
			n.runUntil(6 * time.Second)
			n.rate /= 10
			adapting := n.goodputs(4 * time.Second)[0]
			slow := n.goodputs(4 * time.Second)[0]
			queue := n.queueing(0.5)
			n.rate *= 10
			rising := n.goodputs(3 * time.Second)[0]
			fast := n.goodputs(3 * time.Second)[0]
			t.Logf("slower: %.2f, then %.2f with queue p50 %v; faster: %.2f, then %.2f", adapting, slow, queue, rising, fast)
			if adapting < 0.9 || slow < 0.9 || queue > 60*ms {
				t.Errorf("after the fall: %.2f and %.2f of the capacity, queue p50 %v", adapting, slow, queue)
			}
			if rising < 0.25 || fast < 0.95 {
				t.Errorf("after the rise: %.2f and %.2f of the capacity", rising, fast)
			}
		})
	}
}

// TestTrickle: a sender that has little to send learns nothing bad about the
// path, and is back at its rate at once.
func TestTrickle(t *testing.T) {
	n := newNetwork(5, 50, 20*ms, 1)
	g := n.bbr()
	f := n.add(g, 20<<20)
	n.runUntil(5 * time.Second)
	before := g.c.Bandwidth()
	for range 400 { // 20 s of 80 kbit/s
		f.write(500)
		n.runUntil(n.now + 50*ms)
	}
	if got := g.c.Bandwidth(); got < 0.9*before {
		t.Errorf("the trickle lowered the estimate from %.0f to %.0f", before, got)
	}
	if got := g.c.MinRTT(); got > 20*ms+simMaxDelay+ms {
		t.Errorf("the trickle raised the least round trip to %v", got)
	}
	f.write(100 << 20)
	first := n.goodputs(200 * ms)[0]
	t.Logf("estimate %.2f of the rate, first 200 ms after the trickle %.2f of the capacity", before/n.rate, first)
	if first < 0.75 {
		t.Errorf("%.2f of the capacity in the first 200 ms after the trickle", first)
	}
}

// TestSmallAnswers: answers of 12 KB after a rest each, on a connection that has had
// no more to do, leave as fast as its window allows, and not as in its first round
// trip.
func TestSmallAnswers(t *testing.T) {
	n := newNetwork(1, 50, 20*ms, 4)
	ctl := n.bbr()
	f := n.add(ctl, 0)
	for i := range 10 {
		n.after(time.Duration(i)*200*ms, func() { f.write(12_000) })
	}
	n.runUntil(3 * time.Second)
	if state := ctl.c.State(); state != Startup {
		t.Fatalf("%v after a little of all that the path carries, want the start", state)
	}
	if rate, window := ctl.c.Rate(), float64(ctl.c.Window())/0.020; rate < 2.7*window {
		t.Errorf("paced at %.1f Mbit/s, the window is %.1f in a round trip", rate*8/1e6, window*8/1e6)
	}
}

// TestIdle: after a pause the flow goes on at its rate, without a burst and
// without ProbeRTT, because the pause has drained the path.
func TestIdle(t *testing.T) {
	n := newNetwork(6, 20, 40*ms, 1)
	g := n.bbr()
	f := n.add(g, 5<<20)
	n.runUntil(10 * time.Second)
	if f.inFlight != 0 || f.data != 0 {
		t.Fatalf("%d bytes in flight, %d to send: the transfer has not ended", f.inFlight, f.data)
	}
	n.runUntil(22 * time.Second)
	f.write(5 << 20)
	n.goodputs(100 * ms)
	burst, state := n.queueing(1), g.c.State()
	share := n.goodputs(time.Second)[0]
	t.Logf("longest queue of the first 100 ms after the pause %v; then %.2f of the capacity", burst, share)
	if burst > 10*ms || state == ProbeRTT || share < 0.9 {
		t.Errorf("queue %v in %v, then %.2f of the capacity", burst, state, share)
	}
}

// TestDistance: a path that becomes longer or shorter is measured anew, within
// the life of the filter and at once.
func TestDistance(t *testing.T) {
	n := newNetwork(4, 50, 20*ms, 4)
	g := n.bbr()
	n.add(g, -1)
	n.runUntil(6 * time.Second)
	n.rtt = 80 * ms
	longer := n.goodputs(16 * time.Second)[0]
	if got := g.c.MinRTT(); got < 80*ms || got > 90*ms {
		t.Errorf("least round trip %v 16 s after the path became 80 ms long", got)
	}
	settled := n.goodputs(4 * time.Second)[0]
	n.rtt = 20 * ms
	shorter := n.goodputs(4 * time.Second)[0]
	t.Logf("20 to 80 ms: %.2f of the capacity over 16 s, then %.2f; back to 20 ms: %.2f, least round trip %v", longer, settled, shorter, g.c.MinRTT())
	if got := g.c.MinRTT(); got > 25*ms {
		t.Errorf("least round trip %v after the path became 20 ms long", got)
	}
	if longer < 0.6 || settled < 0.9 || shorter < 0.9 {
		t.Errorf("%.2f, %.2f and %.2f of the capacity", longer, settled, shorter)
	}
}

// TestUndisturbed: a flow that has the path for itself gives up little of it to
// measure the least round trip again and again.
func TestUndisturbed(t *testing.T) {
	for _, bdps := range []float64{0.5, 1, 4} {
		t.Run(fmt.Sprintf("queue %g", bdps), func(t *testing.T) {
			t.Parallel()
			n := newNetwork(5, 50, 20*ms, bdps)
			g := n.bbr()
			n.add(g, -1)
			n.runUntil(3 * time.Second)
			probing := 0
			for range 16_000 {
				n.runUntil(n.now + ms)
				if g.c.State() == ProbeRTT {
					probing++
				}
			}
			share := n.goodputs(8 * time.Second)[0]
			t.Logf("%d of 16,000 ms in %v, least round trip %v; then %.4f of the capacity", probing, ProbeRTT, g.c.MinRTT(), share)
			if probing == 0 || probing > 100 || g.c.MinRTT() > 22*ms || share < 0.985 {
				t.Errorf("%d of 16,000 ms in %v, wanted 1 to 100; least round trip %v; %.4f of the capacity, wanted 0.985", probing, ProbeRTT, g.c.MinRTT(), share)
			}
		})
	}
}

// TestBlackout: a path that was dead for three seconds is used again at its
// rate as soon as the sender has noticed.
func TestBlackout(t *testing.T) {
	n := newNetwork(8, 20, 40*ms, 1)
	g := n.bbr()
	n.add(g, -1)
	n.runUntil(5 * time.Second)
	n.loss = 1
	n.runUntil(8 * time.Second)
	n.loss = 0
	n.goodputs(2 * time.Second) // until the next probe time-out
	share := n.goodputs(3 * time.Second)[0]
	t.Logf("2 s after the blackout: %.2f of the capacity in %v", share, g.c.State())
	if share < 0.85 {
		t.Errorf("%.2f of the capacity", share)
	}
}

// TestSameAgain: the same seed gives the same run, another seed another.
func TestSameAgain(t *testing.T) {
	run := func(seed uint64) string {
		n := newNetwork(seed, 20, 40*ms, 1)
		n.loss = 0.01
		a, b := n.bbr(), n.bbr()
		n.add(a, -1)
		n.add(b, -1)
		shares := n.goodputs(5 * time.Second)
		return fmt.Sprint(shares, a.c.Window(), b.c.Window(), a.c.Rate(), b.c.State(), n.count)
	}
	if first, again := run(1), run(1); first != again {
		t.Errorf("two runs of one seed differ:\n%s\n%s", first, again)
	}
	if run(1) == run(2) {
		t.Error("two seeds give the same run")
	}
}
