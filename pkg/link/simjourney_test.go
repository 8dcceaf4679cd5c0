package link

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

var (
	journeys   = flag.String("journeys", "", "journeys on which TestJourneys measures, separated by commas; all: all")
	unled      = flag.Bool("unled", false, "in the simulation the tunnel leads no congestion control")
	eachOutage = flag.Bool("outages", false, "TestJourneys says of each outage how long the uplink needed")
)

// simStep changes an uplink's lines at a time.
type simStep struct {
	at     time.Duration
	uplink int
	change func(*simLine)
}

// simJourney is uplinks and what happens to them.
type simJourney struct {
	name  string
	lines []simLine
	d     time.Duration
	steps []simStep
	begin func(w *simWorld, seed uint64) // called as the download begins; nil: nothing
}

func dying(dead bool) func(*simLine) { return func(l *simLine) { l.dead = dead } }

// outage kills an uplink for a while.
func (j *simJourney) outage(uplink int, from, to time.Duration) {
	j.steps = append(j.steps, simStep{from, uplink, dying(true)}, simStep{to, uplink, dying(false)})
}

// varies sets an uplink's rate and delay at a time.
func (j *simJourney) varies(uplink int, at time.Duration, mbit float64, delay time.Duration) {
	j.steps = append(j.steps, simStep{at, uplink, func(l *simLine) { l.rate, l.delay = mbit*125_000, delay }})
}

// simJourneys are the bench's train, what LTE in a car is like (rates that change four
// times a second over two orders of magnitude, and die away for a moment), lines of which
// each dies for a second, in turn, and lines whose rates alone change, every second.
func simJourneys() []simJourney {
	car := simLine{rate: 20 * 125_000, delay: 40 * ms, limit: 300 * ms}
	train := simJourney{name: "train", lines: []simLine{car, car}, d: 30 * time.Second}
	rng := rand.New(rand.NewPCG(11, 22))
	for i := range train.lines {
		for at := time.Duration(0); at < train.d; at += time.Second + time.Duration(rng.Int64N(int64(time.Second))) {
			mbit := 2 + 58*rng.Float64()*rng.Float64()
			train.varies(i, at, mbit, 20*ms+time.Duration(rng.Int64N(int64(40*ms))))
		}
	}
	for _, o := range [][3]time.Duration{
		{0, 3000, 3700}, {1, 6000, 8500}, {0, 11000, 14000}, {1, 13200, 14000}, {1, 17000, 17500}, {0, 20000, 21200}, {1, 20200, 22500}, {0, 26000, 27500},
	} {
		train.outage(int(o[0]), o[1]*ms, o[2]*ms)
	}
	radio := simLine{rate: 5 * 125_000, delay: 25 * ms, limit: 500 * ms}
	lte := simJourney{name: "lte", lines: []simLine{radio, radio}, d: 30 * time.Second}
	for i := range lte.lines {
		mbit := 5.0
		for at := time.Duration(0); at < lte.d; at += 250 * ms {
			mbit = min(max(mbit*(0.6+0.9*rng.Float64()), 0.3), 20)
			lte.varies(i, at, mbit, time.Duration(25+5*i)*ms)
		}
		for at := 2 * time.Second; at < lte.d; at += 3*time.Second + time.Duration(rng.Int64N(int64(3*time.Second))) {
			lte.outage(i, at, at+100*ms+time.Duration(rng.Int64N(int64(500*ms))))
		}
	}
	turns := simJourney{name: "outage", lines: []simLine{simMbit(50, 20*ms), simMbit(20, 80*ms)}, d: 10 * time.Second}
	for i, at := range []time.Duration{2000 * ms, 4130 * ms, 6260 * ms, 8390 * ms} {
		turns.outage(i%2, at, at+time.Second)
	}
	restless := simJourney{name: "restless", lines: []simLine{car, car}, d: 24 * time.Second}
	for i, rates := range [2][]float64{{20, 4, 30, 8, 40, 10, 25, 50}, {8, 25, 5, 20, 6, 30, 12, 4}} {
		for at := time.Duration(0); at < restless.d; at += time.Second {
			restless.varies(i, at, rates[int(at/time.Second)%len(rates)], 40*ms)
		}
	}
	all := []simJourney{train, lte, turns, restless}
	for i := range all {
		slices.SortStableFunc(all[i].steps, func(a, b simStep) int { return int(a.at - b.at) })
	}
	return all
}

// simSpent is where an uplink's capacity towards the edge went, in bytes.
type simSpent struct {
	offered, served float64
	unused          [causes]float64
	soon            [causes]float64 // of that, in the first second after an outage
}

// Causes for which capacity is not used.
const (
	byIll    = iota // the cloud leaves the uplink alone
	byWindow        // QUIC's window is full
	byPacing        // QUIC holds bytes back otherwise
	byBound         // otherwise: the tunnel's bound, or nothing to send
	causes
)

func (s *simSpent) add(o simSpent) {
	s.offered, s.served = s.offered+o.offered, s.served+o.served
	for i := range s.unused {
		s.unused[i] += o.unused[i]
		s.soon[i] += o.soon[i]
	}
}

// shares are the parts of what was offered that causes took.
func (s *simSpent) shares(of [causes]float64) string {
	return fmt.Sprintf("ill %.3f, window %.3f, paced %.3f, otherwise %.3f", of[byIll]/s.offered, of[byWindow]/s.offered, of[byPacing]/s.offered, of[byBound]/s.offered)
}

// journeyResult is what came of a journey.
type journeyResult struct {
	goodput, used  float64 // Mbit/s; of the capacity
	twice, again   float64 // arrived a second time because it was sent a second time; sent a second time: of what came
	stall          time.Duration
	p50, p99       time.Duration
	spent          []simSpent
	queue          []time.Duration // of each uplink, at the median, by its rate, or mean rate
	ends           time.Duration   // until both ends had forgotten the flows that the edge reset
	made, kept     int             // connections; races that the old one has won
	lost           uint64
	first, carries []time.Duration // of each outage: until a packet came after its end; until the uplink carried half of its rate for 50 ms
}

// backlog is how many bytes wait for the line now.
func (l *simLine) backlog(now time.Time) float64 {
	if l.replay != nil {
		return float64(l.waiting)
	}
	return max(l.busy.Sub(now).Seconds(), 0) * l.rate
}

// simWatch follows one uplink.
type simWatch struct {
	spent    simSpent
	bytes    int
	backlog  float64
	queues   []time.Duration // by the line's rate, or the recording's mean
	dead     bool
	back     time.Time // when the last outage ended
	returned time.Time // zero: no outage is being followed
	heard    bool
	gate     int // bytes when it returned
	recent   [10][2]float64
	n        int
}

const spentEvery = 5 * time.Millisecond

// watch notes where capacity goes until the context ends.
func (w *simWorld) watch(r *journeyResult, until time.Time) {
	all := make([]simWatch, len(w.ups.links))
	for i := range all {
		w.ups.links[i].down.change(func(l *simLine) { all[i].bytes, all[i].backlog, all[i].dead = l.bytes, l.backlog(time.Now()), l.dead })
	}
	for time.Now().Before(until) {
		time.Sleep(spentEvery)
		st, _ := w.cloud.Status()
		for i := range all {
			all[i].look(w, i, r, st.Links[i].State, st.Links[i].InFlight)
		}
	}
	for i := range all {
		r.spent = append(r.spent, all[i].spent)
		r.queue = append(r.queue, quantileOf(all[i].queues, 0.5))
	}
}

func (v *simWatch) look(w *simWorld, i int, r *journeyResult, state scheduler.State, flying int) {
	var served, could, backlog float64
	var dead bool
	w.ups.links[i].down.change(func(l *simLine) {
		backlog = l.backlog(time.Now())
		served = float64(l.bytes-v.bytes) + v.backlog - backlog
		v.bytes, v.backlog, dead = l.bytes, backlog, l.dead
		could = l.could(time.Now().Add(-spentEvery))
		v.queues = append(v.queues, time.Duration(backlog/l.rate*float64(time.Second)))
	})
	v.follow(r, served, could, dead)
	if dead {
		return
	}
	s := &v.spent
	s.offered += could
	s.served += served
	q, cause := w.active(i).Stats(), byBound
	switch {
	case state != scheduler.Up:
		cause = byIll
	case q.InFlight+3000 > q.Window:
		cause = byWindow
	case flying-int(q.InFlight) > 16<<10:
		cause = byPacing
	}
	unused := max(could-served, 0)
	s.unused[cause] += unused
	if time.Since(v.back) < time.Second {
		s.soon[cause] += unused
	}
}

// follow notes how soon the uplink is used after an outage.
func (v *simWatch) follow(r *journeyResult, served, could float64, dead bool) {
	if v.dead && !dead {
		v.back = time.Now()
		v.returned, v.heard, v.gate, v.n = v.back, false, v.bytes, 0
		v.recent = [10][2]float64{}
	}
	if v.dead = dead; dead {
		v.returned = time.Time{}
	}
	if v.returned.IsZero() {
		return
	}
	v.recent[v.n%len(v.recent)] = [2]float64{served, could}
	v.n++
	if !v.heard && v.bytes > v.gate {
		v.heard = true
		r.first = append(r.first, time.Since(v.returned))
	}
	var a, b float64
	for _, x := range v.recent {
		a, b = a+x[0], b+x[1]
	}
	if v.n >= len(v.recent) && a >= b/2 {
		r.carries = append(r.carries, time.Since(v.returned))
		v.returned = time.Time{}
	}
}

func (j simJourney) run(t *testing.T, seed uint64) (r journeyResult) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, seed, wire.VersionMax, j.lines...)
		defer w.close()
		start := time.Now()
		w.wg.Go(func() { w.play(j.steps) })
		ping, echo := w.open(true)
		time.Sleep(300*ms + time.Duration(seed)*37*ms)
		id, bulk := w.open(false)
		if j.begin != nil {
			j.begin(w, seed)
		}
		time.Sleep(1500*ms - time.Since(start))
		w.mu.Lock()
		bulk.gap, bulk.lastGot = 0, time.Now()
		w.mu.Unlock()
		before := w.got(bulk)
		was, _ := w.cloud.Status()
		w.wg.Go(func() { w.ping(ping, echo, 50*ms, j.d-1700*ms) })
		w.watch(&r, start.Add(j.d))
		offered := 0.0
		for _, s := range r.spent {
			offered += s.offered
		}
		got := float64(w.got(bulk) - before)
		r.goodput, r.used = got*8/1e6/(j.d-1500*ms).Seconds(), got/offered
		w.mu.Lock()
		r.stall, r.p50, r.p99 = max(bulk.gap, time.Since(bulk.lastGot)), quantileOf(echo.rtts, 0.5), quantileOf(echo.rtts, 0.99)
		w.mu.Unlock()
		then, _ := w.cloud.Status()
		r.again = float64(then.Counts.BytesAgain-was.Counts.BytesAgain) / got
		w.reset(id, ping)
		then, _ = w.edge.Status()
		r.twice = min(r.again, float64(then.Counts.Duplicates)/got)
		r.ends = w.atRest(time.Minute)
		for i := range w.races {
			r.made += int(w.races[i].made.Load())
			r.kept += int(w.races[i].kept.Load())
		}
		for _, c := range w.every {
			r.lost += c.Stats().Lost
		}
	})
	return r
}

// reset ends flows at the edge.
func (w *simWorld) reset(flows ...stream.ID) {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	for _, id := range flows {
		w.edge.Post([]stream.Command{{Kind: stream.CmdReset, Flow: id, Code: stream.CodeLost}})
	}
	time.Sleep(ms)
}

// atRest is how long it takes until neither end has a flow; at most limit.
func (w *simWorld) atRest(limit time.Duration) time.Duration {
	for from := time.Now(); ; time.Sleep(10 * ms) {
		edge, _ := w.edge.Status()
		cloud, _ := w.cloud.Status()
		if took := time.Since(from); edge.Flows+cloud.Flows == 0 || took > limit {
			return took
		}
	}
}

// play changes the lines as the journey says, both ways alike.
func (w *simWorld) play(steps []simStep) {
	start := time.Now()
	for _, s := range steps {
		time.Sleep(s.at - time.Since(start))
		if w.ctx.Err() != nil {
			return
		}
		w.ups.links[s.uplink].up.change(s.change)
		w.ups.links[s.uplink].down.change(s.change)
	}
}

// TestJourneys prints what QUIC links bring where uplinks change and die, and where
// their capacity goes. Runs of one seed differ: compare several.
func TestJourneys(t *testing.T) {
	if *journeys == "" {
		t.Skip("no -args -journeys")
	}
	for _, j := range append(simJourneys(), simRecorded(t)...) {
		if *journeys != "all" && !slices.Contains(strings.Split(*journeys, ","), j.name) {
			continue
		}
		j.measure(t, *whereSeeds)
	}
}

func (j simJourney) measure(t *testing.T, seeds int) {
	var sum journeyResult
	least, stall, n := 1.0, 0.0, float64(seeds)
	sum.spent, sum.queue = make([]simSpent, len(j.lines)), make([]time.Duration, len(j.lines))
	for seed := range seeds {
		r := j.run(t, uint64(seed))
		sum.goodput += r.goodput / n
		sum.used += r.used / n
		least = min(least, r.used)
		sum.twice += r.twice / n
		sum.again += r.again / n
		stall += r.stall.Seconds() * 1e3 / n
		sum.stall = max(sum.stall, r.stall)
		sum.p50 += r.p50 / time.Duration(seeds)
		sum.p99 += r.p99 / time.Duration(seeds)
		sum.made, sum.kept, sum.lost = sum.made+r.made, sum.kept+r.kept, sum.lost+r.lost
		sum.ends = max(sum.ends, r.ends)
		sum.first, sum.carries = append(sum.first, r.first...), append(sum.carries, r.carries...)
		for i, s := range r.spent {
			sum.spent[i].add(s)
			sum.queue[i] += r.queue[i] / time.Duration(seeds)
		}
		if *eachOutage {
			t.Logf("   seed %d: %.3f, twice %.1f %%, stall %d ms; first packet %v, carries %v; reset flows gone after %v", seed, r.used, r.twice*100, r.stall.Milliseconds(), rounded(r.first), rounded(r.carries), r.ends)
		}
	}
	t.Logf("%-6s %.1f Mbit/s, %.3f of the capacity (least %.3f), twice %.1f %% (sent again %.1f %%), stall %.0f / %d ms, message p50 / p99 %d / %d ms, %d packets lost; %d new connections, %d races won by the old one; reset flows were gone after %d ms at most",
		j.name, sum.goodput, sum.used, least, sum.twice*100, sum.again*100, stall, sum.stall.Milliseconds(), sum.p50.Milliseconds(), sum.p99.Milliseconds(), sum.lost, sum.made, sum.kept, sum.ends.Milliseconds())
	t.Logf("       after an outage: first packet p50 / p90 %d / %d ms, half of the rate for 50 ms after %d / %d ms",
		quantileOf(sum.first, 0.5).Milliseconds(), quantileOf(sum.first, 0.9).Milliseconds(), quantileOf(sum.carries, 0.5).Milliseconds(), quantileOf(sum.carries, 0.9).Milliseconds())
	for i, s := range sum.spent {
		t.Logf("   uplink %d: queue p50 %d ms; carried %.3f; unused: %s; of that in the first second after an outage: %s", i, sum.queue[i].Milliseconds(), s.served/s.offered, s.shares(s.unused), s.shares(s.soon))
	}
}

func rounded(d []time.Duration) (out []time.Duration) {
	for _, x := range d {
		out = append(out, x.Round(ms))
	}
	return out
}
