package tunnel

import (
	"cmp"
	"math/rand/v2"
	"time"

	"hawser/pkg/simlink"
	"hawser/pkg/stream"
	"hawser/scheduler"
)

// terrain is uplinks as networks are: lines that lose, tremble, change and die,
// with TCP over them, and what happens to them.
type terrain struct {
	name    string
	about   string // beside the lines
	lines   []lineSpec
	d       time.Duration
	script  func(*sim, [][2]*simlink.Line)
	missing string // why it cannot be run here, or ""
	bare    bool   // counts from the download's first moment on, and has no objects, as the bench's recordings
}

// warm is when a run begins to count.
func (g terrain) warm() time.Duration {
	if g.bare {
		return simStart
	}
	return simWarm
}

// lineSpec is one uplink.
type lineSpec struct {
	mbit    float64
	upMbit  float64 // away from the edge; 0: the same
	rtt     time.Duration
	queue   time.Duration // that its buffer holds; 0: a round trip, 20 ms at least
	loss    float64
	burst   float64
	tremble time.Duration
}

// variant is the scheduler with one mechanism left out, or another policy.
type variant struct {
	name   string
	kinds  scheduler.Kinds
	omit   scheduler.Omit
	data   func(scheduler.Data) scheduler.Data
	path   func(scheduler.Path) scheduler.Path
	unsent int  // bytes that a transport takes beyond what it has sent; 0: few
	blind  bool // transports tell nothing
	beside bool // urgent connections
	single bool // of them only one
	timid  bool // a race for another connection is over when the old one speaks again
}

// lineCarrier is the end of a link with a TCP connection.
type lineCarrier struct {
	simCarrier
	tcp     *simlink.TCP
	blind   bool
	led     *int // times that it was to be led
	burst   *int // times that it was let burst
	volleys *int // times that it was asked for volleys
}

// Lead implements Leader. The kernel's BBR cannot be led.
func (c lineCarrier) Lead(yes bool) {
	if yes {
		*c.led++
	}
}

// Volley implements Volleyer. The kernel's BBR sends none.
func (c lineCarrier) Volley(yes bool) {
	if yes {
		*c.volleys++
	}
}

// Sense implements Carrier.
func (c lineCarrier) Sense() scheduler.Sense {
	if c.blind {
		return c.simCarrier.Sense()
	}
	return c.tcp.Sense()
}

// Urge implements Urger.
func (c lineCarrier) Urge() { c.tcp.Urge() }

// Pace implements Carrier.
func (c lineCarrier) Pace(rate float64) { c.tcp.Pace(rate) }

// Burst implements Burster.
func (c lineCarrier) Burst(yes bool) {
	c.tcp.Burst(yes)
	if yes {
		*c.burst++
	}
}

// Close implements Carrier.
func (c lineCarrier) Close(error) { c.tcp.Close() }

// enter builds the simulation of a variant in a terrain.
func (g terrain) enter(v variant, seed uint64) (*sim, [][2]*simlink.Line) {
	m := newBareSim(seed, v.kinds)
	var lines [][2]*simlink.Line
	for i, l := range g.lines {
		away := l
		away.mbit = cmp.Or(l.upMbit, l.mbit)
		pair := [2]*simlink.Line{m.line(away, 100*seed+uint64(2*i+1)), m.line(l, 100*seed+uint64(2*i+2))}
		lines = append(lines, pair)
		u := &simUplink{sim: m, id: i, lines: pair, v: v}
		m.uplinks = append(m.uplinks, u)
		u.connect()
		for _, sd := range []*simSide{m.edge, m.cloud} {
			sd.s.findLink(i).est.Omit = v.omit
		}
	}
	m.edge.s.cfg.Silent = func(i int, silent bool) { m.uplinks[i].tell(silent) }
	for _, sd := range []*simSide{m.edge, m.cloud} {
		if v.data != nil {
			sd.s.copies = v.data(sd.s.copies)
		}
		if v.path != nil {
			sd.s.path = v.path(sd.s.path)
		}
	}
	if g.script != nil {
		g.script(m, lines)
	}
	return m, lines
}

func (m *sim) line(l lineSpec, seed uint64) *simlink.Line {
	queue := l.queue
	if queue == 0 {
		queue = max(20*time.Millisecond, l.rtt)
	}
	out := m.NewLine(l.mbit*mbit, l.rtt/2, int(l.mbit*mbit*queue.Seconds()), seed)
	out.Loss, out.Burst, out.Tremble = l.loss, l.burst, l.tremble
	return out
}

// outcome is what came of a variant in a terrain.
type outcome struct {
	goodput []float64 // of the bulk download by run, Mbit/s of payload
	used    []float64 // the same as a share of what the lines could carry
	went    []went    // where the capacity of each uplink went
	stall   []float64 // the longest by run, ms
	extra   []float64 // received twice by run, % of what was received
	message []time.Duration
	object  []time.Duration // of 100 KB
	queue   [][]time.Duration
	dropped int // packets that found a full queue
	failed  int // messages and objects that did not come, but the last of each run; and wrong bytes
}

// Times of a run.
const (
	simStart   = 300 * time.Millisecond // of the bulk download
	simWarm    = 1500 * time.Millisecond
	simMessage = 50 * time.Millisecond
	simObject  = 700 * time.Millisecond
)

// run lets a bulk download, messages and small objects through a terrain. Each
// seed has its own losses, and begins a little later.
func (g terrain) run(v variant, seeds ...uint64) (out outcome) {
	out.queue, out.went = make([][]time.Duration, len(g.lines)), make([]went, len(g.lines))
	for _, seed := range seeds {
		g.runOnce(v, seed, &out)
	}
	return out
}

func (g terrain) runOnce(v variant, seed uint64, out *outcome) {
	m, lines := g.enter(v, seed)
	warm := g.warm()
	var bulk *simFlow
	var base int
	m.After(simStart+time.Duration(seed)*37*time.Millisecond, func() { bulk = m.request(1, endless) })
	m.After(warm, func() {
		if bulk != nil {
			base, bulk.longest, bulk.last = bulk.got, 0, m.Now()
		}
	})
	talk := &messenger{sim: m, every: simMessage}
	if g.bare {
		talk.every *= 2
	}
	m.After(warm-messageFirst, talk.begin)
	m.watchLate(talk, *whereLate)
	var objects []*simFlow
	for at := warm; at < g.d && !g.bare; at += simObject {
		m.After(at, func() { objects = append(objects, m.request(3, 100_000)) })
	}
	for at := warm; at < g.d; at += 10 * time.Millisecond {
		m.After(at, func() {
			for i, l := range lines {
				out.queue[i] = append(out.queue[i], time.Duration(float64(l[1].Waits())/l[1].Rate*1e9))
			}
		})
	}
	offered, ends := 0.0, m.Now().Add(g.d)
	m.After(warm, func() { m.watch(lines, ends, out.went, &offered) })
	m.Run(m.Now().Add(g.d), nil)
	out.goodput = append(out.goodput, float64(bulk.got-base)/mbit/(g.d-warm).Seconds())
	out.used = append(out.used, float64(bulk.got-base)/offered)
	out.stall = append(out.stall, max(bulk.longest, m.Now().Sub(bulk.last)).Seconds()*1000)
	out.extra = append(out.extra, 100*float64(m.duplicates())/float64(m.edge.s.count.BytesReceived))
	out.message = append(out.message, talk.end()...)
	for _, o := range objects {
		if !o.ended.IsZero() {
			out.object = append(out.object, o.ended.Sub(o.began))
		} else if m.Now().Sub(o.began) > 2*time.Second {
			out.failed++
		}
	}
	for _, l := range lines {
		out.dropped += l[0].Dropped + l[1].Dropped
	}
	m.end()
	out.failed += m.faults
}

// worstQueue is the median queue of the uplink that has the longest, ms.
func (o outcome) worstQueue() (worst float64) {
	for _, q := range o.queue {
		worst = max(worst, quantile(q, 0.5))
	}
	return worst
}

// duplicates is what came to the edge a second time, in bytes.
func (m *sim) duplicates() uint64 {
	n := m.edge.s.count.Duplicates
	for _, f := range m.edge.s.flows {
		n += f.recv.Duplicates()
	}
	return n
}

// end resets all flows and lets what is under way come, so that all memory is
// given back: runs share it.
func (m *sim) end() {
	for _, f := range m.flows {
		m.edge.post(stream.Command{Kind: stream.CmdReset, Flow: f.id, Code: stream.CodeLost})
		delete(m.edge.byID, f.id)
	}
	m.edge.wake()
	m.Run(m.Now().Add(5*time.Second), nil)
}

// messenger sends a message of 1,200 bytes every so often, and waits for its echo.
type messenger struct {
	sim   *sim
	every time.Duration
	flow  *simFlow
	want  int       // bytes of echoes
	sent  time.Time // of the message that is under way; zero: none is
	took  []time.Duration
	over  bool

	first time.Duration // from the opening to the first; 0: messageFirst
}

const (
	messageBytes = 1200
	messageFirst = 200 * time.Millisecond // from the opening to the first of them
)

func (t *messenger) begin() {
	t.flow = t.sim.request(2, endless)
	t.flow.echo, t.want = true, requestBytes
	t.sim.After(cmp.Or(t.first, messageFirst), t.next) // what opened it is answered, too
}

func (t *messenger) next() {
	if t.over {
		return
	}
	t.sent = t.sim.Now()
	t.want += messageBytes
	t.sim.ask(t.flow, messageBytes)
	t.await()
}

// await looks for the echo every tenth of a millisecond.
func (t *messenger) await() {
	switch {
	case t.over:
	case t.flow.got < t.want:
		t.sim.After(100*time.Microsecond, t.await)
	default:
		t.took = append(t.took, t.sim.Now().Sub(t.sent))
		t.sim.At(t.sent.Add(t.every), t.next)
		t.sent = time.Time{}
	}
}

// end returns how long all messages took; one that waits still counts, too.
func (t *messenger) end() []time.Duration {
	t.over = true
	if t.sent.IsZero() {
		return t.took
	}
	return append(t.took, t.sim.Now().Sub(t.sent))
}

// The terrains.
var (
	wifi = lineSpec{mbit: 50, rtt: 20 * time.Millisecond}
	lte  = lineSpec{mbit: 20, rtt: 80 * time.Millisecond}
)

func terrains() []terrain {
	lossy, bursty, deepWifi, deepLTE := wifi, lte, wifi, lte
	lossy.loss = 0.01
	bursty.loss, bursty.burst = 0.01, 4
	deepWifi.queue, deepLTE.queue = time.Second, time.Second
	trembling := []lineSpec{{mbit: 50, rtt: 60 * time.Millisecond, tremble: 20 * time.Millisecond}, {mbit: 20, rtt: 80 * time.Millisecond, tremble: 20 * time.Millisecond}}
	car := lineSpec{mbit: 20, rtt: 80 * time.Millisecond, queue: 300 * time.Millisecond}
	return []terrain{
		{name: "twins", lines: []lineSpec{wifi, wifi}, d: 8 * time.Second},
		{name: "unlike", lines: []lineSpec{wifi, lte}, d: 8 * time.Second},
		{name: "loss", about: "; 1 % of random loss, 1 % in bursts", lines: []lineSpec{lossy, bursty}, d: 10 * time.Second},
		{name: "deep", about: "; buffers of 1 s", lines: []lineSpec{deepWifi, deepLTE}, d: 10 * time.Second},
		{name: "jitter", about: "; 20 ms of jitter each way", lines: trembling, d: 10 * time.Second},
		{name: "satellite", lines: []lineSpec{wifi, {mbit: 20, rtt: 200 * time.Millisecond}}, d: 12 * time.Second},
		{name: "slow", lines: []lineSpec{{mbit: 10, rtt: 20 * time.Millisecond}, {mbit: 5, rtt: 80 * time.Millisecond}}, d: 10 * time.Second},
		{name: "outage", about: "; each dies for a second, in turn", lines: []lineSpec{wifi, lte}, d: 10 * time.Second, script: outages},
		{name: "train", about: " at first; rates and round trips change every second or two, tunnels", lines: []lineSpec{car, car}, d: 30 * time.Second, script: journey},
	}
}

// outages kills each uplink for a second, in turn.
func outages(m *sim, lines [][2]*simlink.Line) {
	for i, at := range []time.Duration{2, 4, 6, 8} {
		m.dead(lines[i%2], at*time.Second+time.Duration(i)*130*time.Millisecond, time.Second)
	}
}

// dead kills an uplink for a while.
func (m *sim) dead(l [2]*simlink.Line, at, lasts time.Duration) {
	set := func(dead bool) func() { return func() { l[0].Dead, l[1].Dead = dead, dead } }
	m.After(at, set(true))
	m.After(at+lasts, set(false))
}

// journey is thirty seconds of two operators on a train, as `bench paths -only
// train` has them: 2 to 60 Mbit/s and 40 to 120 ms, changed every second or two,
// and tunnels.
func journey(m *sim, lines [][2]*simlink.Line) {
	const ms = time.Millisecond
	rng := rand.New(rand.NewPCG(11, 22))
	for _, l := range lines {
		for at := time.Duration(0); at < 30*time.Second; at += time.Second + time.Duration(rng.Int64N(int64(time.Second))) {
			rate := float64(int64((2+58*rng.Float64()*rng.Float64())*1e6)) / 8
			delay := 20*ms + time.Duration(rng.Int64N(int64(40*ms)))
			m.After(at, func() {
				for _, dir := range l {
					dir.Rate, dir.Delay, dir.Queue = rate, delay, int(0.3*rate)
				}
			})
		}
	}
	for _, o := range [][3]time.Duration{
		{0, 3000, 3700}, {1, 6000, 8500}, {0, 11000, 14000}, {1, 13200, 14000}, {1, 17000, 17500}, {0, 20000, 21200}, {1, 20200, 22500}, {0, 26000, 27500},
	} {
		m.dead(lines[o[0]], o[1]*ms, (o[2]-o[1])*ms)
	}
}
