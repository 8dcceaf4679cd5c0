package scheduler

import (
	"math"
	"testing"
	"time"
)

// shared is a line with one queue and several senders, in steps of a
// millisecond.
type shared struct {
	now     time.Duration
	rate    float64 // bytes per second
	base    time.Duration
	limit   float64 // of the queue, bytes
	queue   []portion
	queued  float64
	senders []*sharer
}

// portion is some bytes of a sender on their way.
type portion struct {
	of   *sharer
	n    float64
	sent time.Duration
	due  time.Duration
	lost bool
}

// sharer is a sender whose window a Follower or Cubic decides.
type sharer struct {
	follow    *Follower // nil: Cubic
	cubic     fluidCubic
	from      time.Duration // when it begins
	flying    float64
	delivered float64
	srtt      float64
	way       []portion // acknowledgements and news of losses, in order of sending
	mark      float64   // delivered when the measurement began
}

// fluidCubic is RFC 9438 for a fluid, without slow start but for its beginning.
type fluidCubic struct {
	window, most float64 // bytes
	since        time.Duration
	until        time.Duration // losses of this round trip count once
	slow         bool
}

func (c *fluidCubic) acked(now time.Duration, n, rtt float64) {
	if c.slow {
		c.window += n
		return
	}
	w, most := c.window/packet, c.most/packet
	k := math.Cbrt(most * 0.3 / 0.4)
	t := (now - c.since).Seconds() + rtt
	want := 0.4*math.Pow(t-k, 3) + most
	reno := most*0.7 + 3*0.3/1.7*t/rtt
	c.window += max(min(max(want, reno), 1.5*w)-w, 0) / w * n
}

func (c *fluidCubic) lost(now time.Duration, rtt float64) {
	if now < c.until {
		return
	}
	c.slow, c.most, c.since = false, c.window, now
	c.window = max(0.7*c.window, 2*packet)
	c.until = now + time.Duration(rtt*1e9)
}

func (s *shared) add(follows bool, from time.Duration) *sharer {
	f := &sharer{from: from}
	if follows {
		f.follow = &Follower{}
	} else {
		f.cubic = fluidCubic{window: 10 * packet, slow: true}
	}
	s.senders = append(s.senders, f)
	return f
}

func (s *shared) run(until time.Duration) {
	const step = time.Millisecond
	for ; s.now < until; s.now += step {
		for i := range s.senders {
			// Who comes first in a step takes turns.
			s.send(s.senders[(i+int(s.now/step))%len(s.senders)], step)
		}
		s.serve(step)
		for _, f := range s.senders {
			f.hear(s.now, s.base)
		}
	}
}

func (s *shared) send(f *sharer, step time.Duration) {
	if s.now < f.from {
		return
	}
	if f.srtt == 0 { // the handshake
		f.srtt = (s.base + time.Duration(s.queued/s.rate*1e9)).Seconds()
		if f.follow != nil {
			f.follow.begin(instant(s.now), View{RTT: time.Duration(f.srtt * 1e9)}, startCap, 0, time.Duration(f.srtt*1e9))
		}
	}
	n := f.cubic.window - f.flying
	if f.follow != nil {
		n = min(float64(f.follow.Most())-f.flying, paceGain*f.follow.Rate()*step.Seconds())
	}
	if n <= 0 {
		return
	}
	f.flying += n
	fits := min(n, max(s.limit-s.queued, 0))
	if fits < n {
		f.way = append(f.way, portion{of: f, n: n - fits, sent: s.now, due: s.now + s.base + time.Duration(s.queued/s.rate*1e9), lost: true})
	}
	s.queued += fits
	s.queue = append(s.queue, portion{of: f, n: fits, sent: s.now})
}

func (s *shared) serve(step time.Duration) {
	left := s.rate * step.Seconds()
	for left > 0 && len(s.queue) > 0 {
		p := &s.queue[0]
		n := min(left, p.n)
		left, p.n, s.queued = left-n, p.n-n, s.queued-n
		p.of.way = append(p.of.way, portion{n: n, sent: p.sent, due: s.now + s.base})
		if p.n <= 0 {
			s.queue = s.queue[1:]
		}
	}
}

// hear takes in what has come back.
func (f *sharer) hear(now, base time.Duration) {
	rest := f.way[:0]
	for _, a := range f.way {
		if a.due > now {
			rest = append(rest, a)
			continue
		}
		f.flying -= a.n
		if a.lost {
			f.cubic.lost(now, f.srtt)
			continue
		}
		f.delivered += a.n
		f.srtt += ((now - a.sent).Seconds() - f.srtt) * min(1, a.n/packet/2/8)
		f.cubic.acked(now, a.n, f.srtt)
	}
	f.way = rest
	if f.follow != nil && f.srtt > 0 {
		f.follow.Look(instant(now), View{
			RTT: time.Duration(f.srtt * 1e9), Delivered: uint64(f.delivered), Flying: int(f.flying), InFlight: int(f.flying),
		})
	}
}

func instant(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }

// shares lets the senders be for a while and returns what each has of the line
// then.
func (s *shared) shares(warm, d time.Duration) (out []float64) {
	s.run(warm)
	for _, f := range s.senders {
		f.mark = f.delivered
	}
	s.run(warm + d)
	for _, f := range s.senders {
		out = append(out, (f.delivered-f.mark)/s.rate/d.Seconds())
	}
	return out
}

// TestFollowerShares: on a line with others a Follower takes about its part.
func TestFollowerShares(t *testing.T) {
	for _, c := range []struct {
		name   string
		mbit   float64
		base   time.Duration
		buffer time.Duration
		others int  // beside a Follower
		follow bool // they are Followers, too
		late   time.Duration
		least  float64 // of its even part, for the one that has least
		atMost float64 // for the one that has most
	}{
		{"two Followers", 20, 60 * ms, 300 * ms, 1, true, 0, 0.7, 1.3},
		{"two Followers, one later", 20, 60 * ms, 300 * ms, 1, true, 5 * time.Second, 0.5, 1.5},
		{"four Followers", 40, 60 * ms, 300 * ms, 3, true, time.Second, 0.4, 2.1},
		{"beside Cubic, a round trip of buffer", 20, 60 * ms, 60 * ms, 1, false, 0, 0.3, 1.7},
		{"beside Cubic, deep buffer", 20, 60 * ms, 300 * ms, 1, false, 0, 0.3, 1.7},
		{"beside three Cubics", 40, 60 * ms, 100 * ms, 3, false, 0, 0.4, 3}, // the Follower has most
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &shared{rate: c.mbit * 125_000, base: c.base}
			s.limit = s.rate * c.buffer.Seconds()
			s.add(true, 0)
			for i := range c.others {
				s.add(c.follow, c.late*time.Duration(i+1)+100*ms)
			}
			got := s.shares(10*time.Second, 30*time.Second)
			sum, least, most := 0.0, 2.0, 0.0
			for _, g := range got {
				part := g * float64(len(got))
				sum, least, most = sum+g, min(least, part), max(most, part)
			}
			t.Logf("%.2f used, shares %.2f (the Follower's first)", sum, got)
			if sum < 0.9 {
				t.Errorf("only %.2f of the line is used", sum)
			}
			if least < c.least || most > c.atMost {
				t.Errorf("one has %.2f of its part and one %.2f, wanted %.1f to %.1f", least, most, c.least, c.atMost)
			}
		})
	}
}
