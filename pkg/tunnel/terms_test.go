package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// carriedBy returns what the cloud has sent on each link in a time, in bytes.
func (c *crowd) carriedBy(d time.Duration) [2]float64 {
	sum := func() (n [2]float64) {
		st, _ := c.w.cloud.s.Status()
		for _, l := range st.Links {
			n[l.ID] = float64(l.BytesSent)
		}
		return n
	}
	before := sum()
	time.Sleep(d)
	after := sum()
	return [2]float64{after[0] - before[0], after[1] - before[1]}
}

// tier makes link 1 of another tier, as the edge's configuration would.
func (c *crowd) tier(t scheduler.Tier) {
	c.set(1, LinkTerms{Tier: t})
	time.Sleep(200 * time.Millisecond)
}

// set changes a link's terms at both ends.
func (c *crowd) set(link int, t LinkTerms) {
	c.serial++
	t.Serial = c.serial
	c.w.edge.s.SetTerms(link, t)
}

// TestTiers: a standby link is idle while the primary one lives, but for the
// probes, though connections begin and end; a secondary one adds what the primary one
// cannot carry.
func TestTiers(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.tier(scheduler.Standby)
		c.add(0, 3, terms(1, wire.ClassNormal))
		c.carriedBy(2 * time.Second)
		c.add(1, 20, terms(1, wire.ClassLatency))
		got := c.carriedBy(4 * time.Second)
		if got[0] < 0.93*4*50*mbit || got[1] > 4000 {
			t.Errorf("primary and standby carried %.0f", got)
		}
		c.tier(scheduler.Secondary)
		got = c.carriedBy(4 * time.Second)
		if got[0] < 0.9*4*50*mbit || got[1] < 0.85*4*20*mbit {
			t.Errorf("primary and secondary carried %.0f", got)
		}
	})
}

// TestStandby: when the primary link dies without a word the standby one takes
// over as soon as any link would, and is left when the primary one is back.
func TestStandby(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.tier(scheduler.Standby)
		c.add(0, 1, terms(1, wire.ClassNormal))
		u := c.flows[0][0]
		c.carriedBy(2 * time.Second)
		u.resetGap()
		c.w.pairs[0].Cut(true)
		c.carriedBy(2 * time.Second)
		stall := u.stall()
		got := c.carriedBy(4 * time.Second)
		c.w.pairs[0].Cut(false)
		c.carriedBy(time.Second)
		back := c.carriedBy(2 * time.Second)
		t.Logf("stall %v, carried meanwhile %.0f and afterwards %.0f", stall, got, back)
		if stall > 250*time.Millisecond {
			t.Errorf("a stall of %v", stall)
		}
		if got[1] < 0.85*4*20*mbit {
			t.Errorf("without its primary link the standby one carried %.0f", got[1])
		}
		if back[0] < 0.9*2*50*mbit || back[1] > 4000 {
			t.Errorf("a second after the primary link came back the two carried %.0f", back)
		}
	})
}

// TestTold: the cloud knows what the edge says, also of a link that is not
// connected yet; older news count for nothing, and indexes are bounded.
func TestTold(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.set(7, LinkTerms{Tier: scheduler.Secondary, Weight: 5, Leaving: true, Up: 1e6, Down: 2e6, Until: time.Now().Add(time.Second)})
		time.Sleep(100 * time.Millisecond)
		cloud := c.w.cloud.s
		cloud.call(func() {
			cloud.linkTold(wire.LinkTerms{Link: 7, Serial: 1, Weight: 9, Usable: true})
			for i := range uint16(60_000) {
				cloud.linkTold(wire.LinkTerms{Link: 1000 + i, Serial: 1, Weight: 9, Usable: true})
			}
			l := cloud.findLink(7)
			if l.terms.Tier != scheduler.Secondary || l.terms.Weight != 5 || !l.hint.Leaving || l.hint.Rate != 2e6 || !l.leaves(cloud.now) {
				t.Errorf("the cloud knows %+v", l.terms)
			}
			if len(cloud.links) != maxTold {
				t.Errorf("%d links", len(cloud.links))
			}
		})
		if st, _ := cloud.Status(); len(st.Links) != 2 {
			t.Errorf("status shows %d links of which two are connected", len(st.Links))
		}
	})
}

// TestRemoved: a link that is no more in the edge's configuration is shown at neither end once
// its connection has ended, carries nothing by then, and may come back.
func TestRemoved(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.add(0, 1, terms(1, wire.ClassNormal))
		c.carriedBy(time.Second)
		c.set(1, LinkTerms{Leaving: true, Until: time.Now().Add(Removal), Removed: true})
		c.carriedBy(time.Second)
		if got := c.carriedBy(2 * time.Second); got[0] < 0.9*2*50*mbit || got[1] > 4000 {
			t.Errorf("the one that stays and the removed one carried %.0f", got)
		}
		shown := func(want int) {
			t.Helper()
			for name, s := range map[string]*Session{"edge": c.w.edge.s, "cloud": c.w.cloud.s} {
				if st, _ := s.Status(); len(st.Links) != want {
					t.Errorf("the %s shows %d links, want %d", name, len(st.Links), want)
				}
			}
		}
		shown(2)
		for _, s := range []*Session{c.w.edge.s, c.w.cloud.s} {
			s.call(func() { s.closeConn(s.findLink(1).conn, ErrReplaced) })
		}
		time.Sleep(time.Second)
		shown(1)
		c.set(1, LinkTerms{Weight: 1})
		time.Sleep(time.Second)
		shown(2)
		if st, _ := c.w.edge.s.Status(); st.Links[1].LastError != "" {
			t.Errorf("who is back has failed by %s", st.Links[1].LastError)
		}
	})
}

// TestBackgroundStaysCheap: class background leaves a secondary link alone.
func TestBackgroundStaysCheap(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.tier(scheduler.Secondary)
		c.add(0, 3, terms(1, wire.ClassBackground))
		c.carriedBy(2 * time.Second)
		if got := c.carriedBy(4 * time.Second); got[0] < 0.93*4*50*mbit || got[1] > 0.005*got[0] {
			t.Errorf("primary and secondary carried %.0f", got)
		}
	})
}

// TestHints: a link that is said to die is drained in both directions before
// it does, so that its death holds up nobody; when the hint has gone stale it
// is used again. A forecast bounds what a link gets.
func TestHints(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		c.add(0, 1, terms(1, wire.ClassNormal))
		u := c.flows[0][0]
		time.Sleep(3 * time.Second)
		c.set(0, LinkTerms{Leaving: true, Until: time.Now().Add(5 * time.Second)})
		time.Sleep(300 * time.Millisecond) // the time to drain
		u.resetGap()
		c.w.pairs[0].Cut(true)
		got := c.carriedBy(2 * time.Second)
		c.w.pairs[0].Cut(false)
		t.Logf("longest gap %v, the leaving link was given %.0f bytes", u.stall(), got[0])
		if u.stall() > 40*time.Millisecond {
			t.Errorf("a gap of %v though the death was announced", u.stall())
		}
		if got[0] > 20_000 {
			t.Errorf("a leaving link was given %.0f bytes", got[0])
		}
		time.Sleep(4 * time.Second)
		if got = c.carriedBy(2 * time.Second); got[0] < 0.8*2*50*mbit {
			t.Errorf("after the hint the link carried %.0f", got[0])
		}
		c.set(0, LinkTerms{Down: 10 * mbit, Until: time.Now().Add(time.Minute)})
		time.Sleep(time.Second)
		if got = c.carriedBy(4 * time.Second); got[0] > 1.6*4*10*mbit || got[0] < 0.8*4*10*mbit {
			t.Errorf("with a forecast of 10 Mbit/s the link carried %.1f Mbit/s", got[0]/4/mbit)
		}
		c.set(0, LinkTerms{})
		time.Sleep(time.Second)
		if got = c.carriedBy(2 * time.Second); got[0] < 0.8*2*50*mbit {
			t.Errorf("a second after the forecast was withdrawn the link carried %.1f Mbit/s", got[0]/2/mbit)
		}
	})
}

// TestWeightedByBytes: path choice by weight goes by what the links take, which of a chunk
// is less on the slower one.
func TestWeightedByBytes(t *testing.T) {
	run(t, func(t *testing.T) {
		c := newCrowd(t)
		defer c.w.close()
		for _, sd := range []*side{c.w.edge, c.w.cloud} {
			sd.s.call(func() { sd.s.path = scheduler.NewPath(scheduler.PathWeighted) })
		}
		c.w.connect(1, simlink.Spec{Rate: 4 * mbit, Delay: 20 * time.Millisecond})
		c.set(1, LinkTerms{Weight: 3})
		few := terms(1, wire.ClassNormal)
		few.Policy, few.Limit = 1, 3*mbit // the slower one is not full with its part
		c.add(0, 2, few)
		c.carriedBy(2 * time.Second)
		if got := c.carriedBy(4 * time.Second); got[1] < 2.7*got[0] || got[1] > 3.3*got[0] {
			t.Errorf("of weights 1 and 3 the links carried %.0f", got)
		}
	})
}
