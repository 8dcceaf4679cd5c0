package tunnel

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// crowd is users of one pair, each with downloads that never end.
type crowd struct {
	w      *world
	flows  map[int][]*user
	serial uint32 // of the links' terms
}

// fixedPair are two links that are unlike each other.
var fixedPair = []simlink.Spec{{Rate: 50 * mbit, Delay: 10 * time.Millisecond}, {Rate: 20 * mbit, Delay: 40 * time.Millisecond}}

const endless = min(1<<40, math.MaxInt/2)

func newCrowd(t *testing.T) *crowd {
	c := &crowd{w: newWorld(t, fixedPair...), flows: map[int][]*user{}}
	c.w.serve(endless)
	return c
}

// terms of a user that no policy names.
func terms(weight int, class uint8) wire.Terms {
	return wire.Terms{Bits: 32, Class: class, Weight: uint8(weight)}
}

// add opens n downloads of user i.
func (c *crowd) add(i, n int, t wire.Terms) {
	for range n {
		c.flows[i] = append(c.flows[i], c.w.openAs(i, t, 100))
	}
}

// openAs is open for one of several clients.
func (w *world) openAs(i int, t wire.Terms, n int, prepare ...func(*user)) *user {
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), client.Port())
	return w.start(stream.Command{Kind: stream.CmdOpen, Dst: server, Src: src, Terms: t}, n, prepare)
}

// measure returns what each user gets in a time, in bytes.
func (c *crowd) measure(warm, d time.Duration) map[int]float64 {
	time.Sleep(warm)
	before := c.totals()
	time.Sleep(d)
	got := c.totals()
	for i := range got {
		got[i] -= before[i]
	}
	return got
}

func (c *crowd) totals() map[int]float64 {
	sum := map[int]float64{}
	for i, flows := range c.flows {
		for _, u := range flows {
			sum[i] += float64(u.total())
		}
	}
	return sum
}

// jain is the fairness index of Jain, Chiu and Hawe (1984).
func jain(x map[int]float64) float64 {
	sum, squares := 0.0, 0.0
	for _, v := range x {
		sum += v
		squares += v * v
	}
	return sum * sum / (float64(len(x)) * squares)
}

// TestUsersShareEvenly: 20 users with 1 to 50 connections each.
func TestUsersShareEvenly(t *testing.T) {
	if raceDetector {
		t.Skip("hundreds of flows take long with the race detector: make unit runs it without")
	}
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		for i := range 20 {
			c.add(i, 1+i*49/19, terms(1, wire.ClassNormal))
		}
		got := c.measure(3*time.Second, 5*time.Second)
		sum := 0.0
		for _, n := range got {
			sum += n
		}
		index, use := jain(got), sum/5/(70*mbit)
		t.Logf("Jain's index %.4f, %.3f of the links", index, use)
		if index < 0.97 {
			t.Errorf("Jain's index %.4f: %v", index, got)
		}
		if use < 0.9 {
			t.Errorf("only %.3f of the links is used", use)
		}
	})
}

// TestWeights: each user gets its weight's share within 2 %.
func TestWeights(t *testing.T) {
	if raceDetector {
		t.Skip("many seconds of full links take long with the race detector: make unit runs it without")
	}
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		weights, all := []int{1, 1, 2, 4, 8, 3}, 0
		for i, w := range weights {
			c.add(i, 1+(7*i)%10, terms(w, wire.ClassNormal))
			all += w
		}
		got := c.measure(3*time.Second, 16*time.Second)
		sum := 0.0
		for _, n := range got {
			sum += n
		}
		for i, w := range weights {
			share := got[i] / sum * float64(all) / float64(w)
			t.Logf("weight %d: %.3f of its share", w, share)
			if share < 0.98 || share > 1.02 {
				t.Errorf("weight %d: %.3f of its share", w, share)
			}
		}
	})
}

// TestPrivilegedUser: 50 users with downloads disturb a privileged one no more
// than a single one does, which keeps the links' short queues filled.
func TestPrivilegedUser(t *testing.T) {
	if raceDetector {
		t.Skip("many seconds of full links take long with the race detector: make unit runs it without")
	}
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		alone := c.requests(t, 200)
		c.add(0, 1, terms(1, wire.ClassNormal))
		time.Sleep(3 * time.Second)
		one := c.requests(t, 200)
		for i := range 49 {
			c.add(1+i, 1, terms(1, wire.ClassNormal))
		}
		time.Sleep(3 * time.Second)
		many := c.requests(t, 200)
		for _, m := range []struct {
			beside string
			took   []time.Duration
		}{{"nobody", alone}, {"one user", one}, {"50 users", many}} {
			t.Logf("beside %-8s p50 %.1f ms, p99 %.1f ms", m.beside, m.took[100].Seconds()*1000, m.took[197].Seconds()*1000)
		}
		if many[197] > one[197]*12/10 {
			t.Errorf("p99 %v became %v", one[197], many[197])
		}
	})
}

// requests are small exchanges of a privileged user, at random distances, and
// how long they took, in order.
func (c *crowd) requests(t *testing.T, n int) (took []time.Duration) {
	rnd := rand.New(rand.NewPCG(1, 2))
	c.w.serve(1200)
	defer c.w.serve(endless)
	for range n {
		u := c.w.openAs(999, terms(1, wire.ClassPrivileged), 200)
		took = append(took, u.await(5*time.Second))
		time.Sleep(time.Duration(rnd.IntN(50)) * time.Millisecond)
	}
	slices.Sort(took)
	return took
}

// TestStuckConsumers: connections whose clients read nothing cost the others
// less than 2 %.
func TestStuckConsumers(t *testing.T) {
	if raceDetector {
		t.Skip("many seconds of full links take long with the race detector: make unit runs it without")
	}
	goodput := func(stuck int) (rate float64) {
		run(t, func(t *testing.T) {
			c := newCrowd(t)
			defer c.w.close()
			for i := range 5 {
				c.add(i, 2, terms(1, wire.ClassNormal))
			}
			for range stuck { // of a user that also has others
				c.w.openAs(0, terms(1, wire.ClassNormal), 100, func(u *user) { u.stuck = true })
				c.w.openAs(77, terms(1, wire.ClassNormal), 100, func(u *user) { u.stuck = true })
			}
			for _, n := range c.measure(6*time.Second, 5*time.Second) {
				rate += n
			}
		})
		return rate
	}
	alone, beside := goodput(0), goodput(10)
	t.Logf("%.4f of the goodput without stuck consumers", beside/alone)
	if beside < 0.98*alone {
		t.Errorf("20 stuck consumers leave %.4f of the goodput", beside/alone)
	}
}

// TestLimitedUser: a limit holds, and the guarantee of another beside it.
func TestLimitedUser(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		for i := range 10 {
			c.add(i, 3, terms(1, wire.ClassNormal))
		}
		held, sure := terms(1, wire.ClassPrivileged), terms(1, wire.ClassNormal)
		held.Policy, held.Limit = 1, 2*mbit
		sure.Policy, sure.Guarantee = 2, 20*mbit
		c.add(20, 2, held)
		c.add(21, 1, sure)
		got := c.measure(3*time.Second, 8*time.Second)
		limited, guaranteed := got[20]/8/mbit, got[21]/8/mbit
		t.Logf("limit of 2: %.2f Mbit/s; guarantee of 20: %.2f; another: %.2f", limited, guaranteed, got[3]/8/mbit)
		if limited < 1.8 || limited > 2.05 {
			t.Errorf("limited to 2 Mbit/s: %.2f", limited)
		}
		if guaranteed < 0.98*20 {
			t.Errorf("20 Mbit/s are guaranteed: %.2f", guaranteed)
		}
	})
}

// TestUserIsBackPressured: what waits at the sender is bounded by the links'
// speed, not by the peer's credit.
func TestUserIsBackPressured(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.add(0, 20, terms(1, wire.ClassNormal))
		time.Sleep(4 * time.Second)
		waiting := 0
		c.w.cloud.s.call(func() {
			for _, f := range c.w.cloud.s.flows {
				waiting += f.send.left()
			}
		})
		t.Logf("%d bytes wait at the sender", waiting)
		if waiting == 0 || waiting > 20*2*backlogFloor {
			t.Errorf("%d bytes wait at the sender", waiting)
		}
	})
}
