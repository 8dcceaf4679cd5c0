package scheduler

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// tube is a line in steps of a millisecond: what is sent waits in a queue,
// leaves it at the line's rate and is acknowledged after the rest of the path.
type tube struct {
	e     Estimator
	now   time.Time
	queue float64
	acks  []ackDue // in order
	flying,
	delivered float64
	tokens float64
	srtt   float64
	limit  float64 // of the queue, in seconds at the rate
	lost   float64

	roundAt   time.Time
	roundFrom float64
	restless  time.Duration

	offered, carried float64
	delays           []time.Duration
}

type ackDue struct {
	at   time.Duration
	n    float64
	sent time.Duration
}

// weather is what the path is like at a time.
type weather struct {
	rate float64 // bytes per second; 0: dead
	base time.Duration
}

func (u *tube) run(d time.Duration, at func(time.Duration) weather) {
	const step = time.Millisecond
	u.now = time.Unix(1000, 0)
	u.roundAt = u.now
	var sentAt []ackDue // n bytes each, in the queue
	for t := time.Duration(0); t < d; t += step {
		l := at(t)
		u.offered += l.rate * step.Seconds()
		// send
		most := float64(u.e.NetCap())
		if most == 0 {
			most = startCap
		}
		u.tokens = math.MaxFloat64
		if pace := u.e.Pace(); pace > 0 {
			u.tokens = pace * step.Seconds()
		}
		n := min(most-u.flying, u.tokens)
		if n > 0 {
			u.flying += n
			fits := n
			if l.rate == 0 {
				fits = 0
			} else if u.limit > 0 {
				fits = min(n, max(max(u.limit*l.rate, 3000)-u.queue, 0)+l.rate*step.Seconds())
			}
			if fits < n {
				u.lost += n - fits
				u.acks = append(u.acks, ackDue{t + 2*l.base, fits - n, t}) // found out after a while
			}
			u.queue += fits
			sentAt = append(sentAt, ackDue{0, fits, t})
		}
		// serve
		left := l.rate * step.Seconds()
		for left > 0 && len(sentAt) > 0 {
			p := &sentAt[0]
			n := min(left, p.n)
			left -= n
			p.n -= n
			u.queue -= n
			u.carried += n
			u.acks = append(u.acks, ackDue{t + l.base, n, p.sent})
			if p.n <= 0 {
				sentAt = sentAt[1:]
			}
		}
		if l.rate > 0 {
			u.delays = append(u.delays, time.Duration(u.queue/l.rate*1e9))
		}
		// acknowledge
		u.now = u.now.Add(step)
		slices.SortStableFunc(u.acks, func(a, b ackDue) int { return int(a.at - b.at) })
		for len(u.acks) > 0 && u.acks[0].at <= t {
			a := u.acks[0]
			u.acks = u.acks[1:]
			if a.n < 0 {
				u.flying += a.n
				continue
			}
			u.flying -= a.n
			u.delivered += a.n
			rtt := (t - a.sent).Seconds()
			if u.srtt == 0 {
				u.srtt = rtt
			}
			u.srtt += (rtt - u.srtt) * min(1, a.n/1448/2/8)
		}
		path := time.Duration(u.srtt * 1e9)
		u.e.See(path)
		u.e.Look(u.now, View{RTT: path, Delivered: uint64(u.delivered), Flying: int(u.flying), InFlight: int(u.flying)})
		if u.now.Sub(u.roundAt) >= path && u.delivered > u.roundFrom {
			u.e.Ack(u.now, Sample{RTT: path, Path: path, Delivered: int(u.delivered - u.roundFrom), Interval: u.now.Sub(u.roundAt), Round: true})
			u.roundAt, u.roundFrom = u.now, u.delivered
		}
		if u.e.unrest.restless(u.now) {
			u.restless += step
		}
	}
}

func (u *tube) result() (used float64, p50, p95 time.Duration) {
	slices.Sort(u.delays)
	return u.carried / u.offered, u.delays[len(u.delays)/2], u.delays[len(u.delays)*95/100]
}

// trainLine is one operator of `bench paths -only train`.
func trainLine(which int) func(time.Duration) weather {
	rng := rand.New(rand.NewPCG(11, 22))
	var steps [2][]struct {
		at time.Duration
		l  weather
	}
	for i := range 2 {
		for at := time.Duration(0); at < 30*time.Second; at += time.Second + time.Duration(rng.Int64N(int64(time.Second))) {
			rate := float64(int64((2+58*rng.Float64()*rng.Float64())*1e6)) / 8
			delay := 20*ms + time.Duration(rng.Int64N(int64(40*ms)))
			steps[i] = append(steps[i], struct {
				at time.Duration
				l  weather
			}{at, weather{rate, 2 * delay}})
		}
	}
	dead := [2][][2]time.Duration{
		{{3000 * ms, 3700 * ms}, {11000 * ms, 14000 * ms}, {20000 * ms, 21200 * ms}, {26000 * ms, 27500 * ms}},
		{{6000 * ms, 8500 * ms}, {13200 * ms, 14000 * ms}, {17000 * ms, 17500 * ms}, {20200 * ms, 22500 * ms}},
	}
	return func(t time.Duration) (l weather) {
		for _, s := range steps[which] {
			if s.at <= t {
				l = s.l
			}
		}
		for _, d := range dead[which] {
			if t >= d[0] && t < d[1] {
				l.rate = 0
			}
		}
		return l
	}
}

// TestFollower: a line is used and its queue is short, whether it is steady,
// shallow, changes every second, or comes and goes.
func TestFollower(t *testing.T) {
	flat := func(mbit float64, base time.Duration) func(time.Duration) weather {
		return func(time.Duration) weather { return weather{mbit * 125_000, base} }
	}
	// As a radio's scheduler has it: each way wanders between random points.
	rng := rand.New(rand.NewPCG(5, 6))
	points := make([]float64, 20*time.Second/(40*ms)+2)
	for i := range points {
		points[i] = rng.Float64() + rng.Float64() - 1
	}
	wandering := func(t time.Duration) weather {
		i, share := int(t/(40*ms)), float64(t%(40*ms))/float64(40*ms)
		off := points[i]*(1-share) + points[i+1]*share
		return weather{50 * 125_000, 60*ms + time.Duration(off*float64(40*ms))}
	}
	swinging := func(t time.Duration) weather {
		return weather{(12 + 10*math.Sin(t.Seconds()*3)) * 125_000, 60 * ms}
	}
	for _, c := range []struct {
		name     string
		d        time.Duration
		limit    float64 // of the queue, seconds
		at       func(time.Duration) weather
		least    float64       // share of the rate that is used
		queue    time.Duration // at most, p50
		restless bool
	}{
		{"50 Mbit/s, 20 ms", 20 * time.Second, 1, flat(50, 20*ms), 0.97, 20 * ms, false},
		{"the same, shallow", 20 * time.Second, 0.005, flat(50, 20*ms), 0.8, 5 * ms, false},
		{"20 Mbit/s, 80 ms", 20 * time.Second, 1, flat(20, 80*ms), 0.95, 40 * ms, false},
		{"2 Mbit/s, 60 ms", 20 * time.Second, 1, flat(2, 60*ms), 0.95, 60 * ms, false},
		{"300 Mbit/s, 20 ms", 10 * time.Second, 1, flat(300, 20*ms), 0.93, 25 * ms, false},
		{"jitter of 20 ms each way", 20 * time.Second, 1, wandering, 0.8, 80 * ms, false},
		{"a train's first operator", 30 * time.Second, 0.3, trainLine(0), 0.75, 100 * ms, true},
		{"a train's second operator", 30 * time.Second, 0.3, trainLine(1), 0.75, 100 * ms, true},
		{"2 to 22 Mbit/s, slowly enough", 20 * time.Second, 1, swinging, 0.85, 250 * ms, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := &tube{limit: c.limit}
			u.run(c.d, c.at)
			used, p50, p95 := u.result()
			share := float64(u.restless) / float64(c.d)
			t.Logf("%.3f used, queue p50 %v, p95 %v; restless %.2f of the time", used, p50.Round(ms), p95.Round(ms), share)
			if used < c.least || p50 > c.queue {
				t.Errorf("%.3f used, wanted %.2f; queue p50 %v, wanted at most %v", used, c.least, p50, c.queue)
			}
			if c.restless && share < 0.6 || !c.restless && share > 0 {
				t.Errorf("restless %.2f of the time", share)
			}
		})
	}
}

// TestFollowerUrges: a transport that holds a search back is asked for more, and
// not at every turn; a link that is full is not.
func TestFollowerUrges(t *testing.T) {
	var f Follower
	now, delivered := time.Unix(1000, 0), 0
	f.begin(now, View{RTT: 60 * ms}, startCap, 1.25e6, 60*ms)
	urged := 0
	for range 400 { // 4 s at 10 Mbit/s, of which the window would allow more
		now = now.Add(10 * ms)
		delivered += 12_500
		f.Look(now, View{RTT: 60 * ms, Delivered: uint64(delivered), Flying: f.Window(), InFlight: min(f.Window(), 75_000)})
		if f.Urge() {
			urged++
		}
	}
	if urged == 0 || urged > 12 {
		t.Errorf("urged %d times within 4 s", urged)
	}
	if u := (&tube{limit: 1}); u.steady() && u.e.Urge() {
		t.Error("urged though the link is full")
	}
}

// steady runs ten seconds of a line that does not change.
func (u *tube) steady() bool {
	u.run(10*time.Second, func(time.Duration) weather { return weather{20 * 125_000, 60 * ms} })
	return true
}
