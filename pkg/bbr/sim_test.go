package bbr

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"sort"
	"time"
)

// A small network in virtual time: flows share one bottleneck with a drop-tail
// queue and random loss in front of it; the way back only takes time.

const (
	simPacket   = 1452
	simMaxDelay = 25 * time.Millisecond // of an acknowledgement, RFC 9000 section 18.2
)

type event struct {
	at    time.Duration
	order int // of scheduling: ties are settled the same way every time
	run   func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

type network struct {
	now    time.Duration
	agenda events
	count  int
	random *rand.Rand

	rate     float64       // of the bottleneck, bytes per second
	rtt      time.Duration // without the queue
	limit    int           // of the queue, bytes
	there    wander        // what the delays of either way add to rtt
	back     wander
	loss     float64 // chance of each packet
	ackLoss  float64 // chance of each acknowledgement
	queue    []simPacketIn
	queued   int
	busy     bool
	flows    []*flow
	overflow int
	delays   []time.Duration // in the queue, of each packet that left it
}

// wander is a delay that trembles, and lets no packet overtake another: it moves
// linearly between uniform random points, as the emulator's (e2e/emu).
type wander struct {
	jitter   time.Duration
	from, to time.Duration
	a, b     float64
	last     time.Duration
}

// take returns how long a packet that goes now is under way.
func (w *wander) take(n *network, delay time.Duration) time.Duration {
	if w.jitter > 0 {
		for n.now >= w.to {
			w.from, w.to = w.to, w.to+max(10*time.Millisecond, 2*w.jitter)
			w.a, w.b = w.b, 2*n.random.Float64()-1
		}
		share := float64(n.now-w.from) / float64(w.to-w.from)
		delay += time.Duration((w.a + (w.b-w.a)*share) * float64(w.jitter))
	}
	w.last = max(w.last, n.now+delay)
	return w.last - n.now
}

type simPacketIn struct {
	flow   *flow
	number int64
	size   int
	at     time.Duration
}

func newNetwork(seed uint64, mbit float64, rtt time.Duration, bdps float64) *network {
	n := &network{random: rand.New(rand.NewPCG(seed, 1)), rate: mbit * 1e6 / 8, rtt: rtt}
	n.limit = int(bdps * n.rate * rtt.Seconds())
	return n
}

func (n *network) after(d time.Duration, run func()) {
	n.count++
	heap.Push(&n.agenda, event{n.now + max(d, 0), n.count, run})
}

func (n *network) runUntil(end time.Duration) {
	for len(n.agenda) > 0 && n.agenda[0].at <= end {
		e := heap.Pop(&n.agenda).(event)
		n.now = e.at
		e.run()
	}
	n.now = end
}

func (n *network) enter(p simPacketIn) {
	if n.random.Float64() < n.loss {
		return
	}
	if n.queued+p.size > max(n.limit, simPacket) {
		n.overflow++
		return
	}
	p.at = n.now
	n.queued += p.size
	n.queue = append(n.queue, p)
	n.serialise()
}

func (n *network) serialise() {
	if n.busy || len(n.queue) == 0 {
		return
	}
	n.busy = true
	p := n.queue[0]
	n.queue = n.queue[1:]
	n.delays = append(n.delays, n.now-p.at)
	n.after(seconds(float64(p.size)/n.rate), func() {
		n.busy = false
		n.queued -= p.size
		n.after(n.there.take(n, n.rtt/2), func() { p.flow.arrive(p) })
		n.serialise()
	})
}

// control is what a flow is governed by.
type control interface {
	sent(now time.Duration, number int64, size, inFlight int)
	acked(now time.Duration, number int64)
	lost(now time.Duration, number int64)
	settle(now, rtt time.Duration, inFlight int)
	starved()
	window() int
	budget(now time.Duration) int
	next() time.Duration
}

type outstanding struct {
	number int64
	size   int
	at     time.Duration
	gone   bool // acknowledged or lost
}

// flow is a sender and its receiver, as QUIC's.
type flow struct {
	net  *network
	ctl  control
	data int // bytes that the application has to send; negative: endless

	next     int64
	inFlight int
	out      []outstanding // in order of numbers
	largest  int64
	srtt     time.Duration
	latest   time.Duration
	waking   bool
	lossAt   time.Duration
	ptoAt    time.Duration
	ptos     int

	expected  int64
	unacked   []int64 // received and not acknowledged
	ackTimer  bool
	delivered int
	lostCount int
	sentCount int
}

func (n *network) add(ctl control, data int) *flow {
	f := &flow{net: n, ctl: ctl, data: data, largest: -1}
	n.flows = append(n.flows, f)
	n.after(0, f.send)
	return f
}

// write adds data and sends.
func (f *flow) write(bytes int) {
	f.data += bytes
	f.send()
}

func (f *flow) send() {
	for f.inFlight < f.ctl.window() {
		if f.data == 0 {
			f.ctl.starved()
			return
		}
		if f.ctl.budget(f.net.now) < simPacket {
			f.wake()
			return
		}
		size := simPacket
		if f.data > 0 {
			size = min(size, f.data)
			f.data -= size
		}
		f.transmit(size)
	}
}

// wake is a timer as coarse as the library's.
func (f *flow) wake() {
	if f.waking {
		return
	}
	f.waking = true
	f.net.after(max(f.ctl.next()-f.net.now, time.Millisecond), func() {
		f.waking = false
		f.send()
	})
}

func (f *flow) transmit(size int) {
	f.inFlight += size
	f.sentCount++
	f.out = append(f.out, outstanding{number: f.next, size: size, at: f.net.now})
	f.ctl.sent(f.net.now, f.next, size, f.inFlight)
	f.net.enter(simPacketIn{flow: f, number: f.next, size: size})
	f.next++
	f.armPTO()
}

func (f *flow) armPTO() {
	f.ptoAt = f.net.now + (max(2*f.srtt, 50*time.Millisecond)+simMaxDelay)<<min(f.ptos, 6)
	at := f.ptoAt
	f.net.after(at-f.net.now, func() {
		if f.ptoAt == at && len(f.out) > 0 {
			f.ptos++
			f.transmit(simPacket)
		}
	})
}

// arrive is the receiver: it acknowledges every second packet, gaps at once.
func (f *flow) arrive(p simPacketIn) {
	f.delivered += p.size
	f.unacked = append(f.unacked, p.number)
	gap := p.number != f.expected
	f.expected = p.number + 1
	if gap || len(f.unacked) >= 2 {
		f.acknowledge()
	} else if !f.ackTimer {
		f.ackTimer = true
		f.net.after(simMaxDelay, func() {
			f.ackTimer = false
			if len(f.unacked) > 0 {
				f.acknowledge()
			}
		})
	}
}

func (f *flow) acknowledge() {
	if f.net.random.Float64() < f.net.ackLoss {
		return // the next one repeats it
	}
	numbers := f.unacked
	f.unacked = nil
	f.net.after(f.net.back.take(f.net, f.net.rtt/2), func() { f.receiveAck(numbers) })
}

func (f *flow) receiveAck(numbers []int64) {
	any := false
	for _, number := range numbers {
		f.largest = max(f.largest, number)
		i := sort.Search(len(f.out), func(i int) bool { return f.out[i].number >= number })
		if i == len(f.out) || f.out[i].number != number || f.out[i].gone {
			continue
		}
		o := &f.out[i]
		o.gone, any = true, true
		f.inFlight -= o.size
		f.ctl.acked(f.net.now, number)
		if number == f.largest {
			f.measure(f.net.now - o.at)
		}
	}
	if !any {
		return
	}
	f.ptos = 0
	f.armPTO()
	f.detect()
	f.ctl.settle(f.net.now, f.latest, f.inFlight)
	f.send()
}

func (f *flow) measure(rtt time.Duration) {
	f.latest = rtt
	if f.srtt == 0 {
		f.srtt = rtt
	}
	f.srtt += (rtt - f.srtt) / 8
}

// detect declares losses as RFC 9002 section 6.1 does.
func (f *flow) detect() {
	delay := max(f.srtt, f.latest) * 9 / 8
	f.lossAt = 0
	for i := range f.out {
		o := &f.out[i]
		if o.number > f.largest {
			break
		}
		switch {
		case o.gone:
		case o.number <= f.largest-3 || o.at <= f.net.now-delay:
			o.gone = true
			f.inFlight -= o.size
			f.lostCount++
			f.ctl.lost(f.net.now, o.number)
			if f.data >= 0 {
				f.data += o.size
			}
		case f.lossAt == 0:
			f.lossAt = o.at + delay
			f.net.after(f.lossAt-f.net.now, f.lossTimer(f.lossAt))
		}
	}
	for len(f.out) > 0 && f.out[0].gone {
		f.out = f.out[1:]
	}
}

func (f *flow) lossTimer(at time.Duration) func() {
	return func() {
		if f.lossAt == at {
			f.detect()
			f.ctl.settle(f.net.now, 0, f.inFlight)
			f.send()
		}
	}
}

// governed adapts a Controller.
type governed struct {
	c     *Controller
	pacer Pacer
}

func (g *governed) sent(now time.Duration, number int64, size, inFlight int) {
	g.c.Sent(now, number, size, inFlight)
	g.pacer.Sent(now, g.c.Rate(), simPacket, size)
}
func (g *governed) acked(now time.Duration, number int64)       { g.c.Acked(now, number) }
func (g *governed) lost(now time.Duration, number int64)        { g.c.Lost(now, number) }
func (g *governed) settle(now, rtt time.Duration, inFlight int) { g.c.Settle(now, rtt, inFlight) }
func (g *governed) starved()                                    { g.c.Starved() }
func (g *governed) window() int                                 { return g.c.Window() }
func (g *governed) budget(now time.Duration) int {
	return g.pacer.Budget(now, g.c.Rate(), simPacket)
}
func (g *governed) next() time.Duration {
	return g.pacer.Next(g.c.Rate(), Quantum(g.c.Rate(), simPacket))
}

func (n *network) bbr() *governed {
	return &governed{c: New(Config{Packet: simPacket, RTT: n.rtt, Random: n.random.Float64}, n.now)}
}

// measured is bbr for a caller that lets queues drain by itself.
func (n *network) measured() *governed {
	return &governed{c: New(Config{Packet: simPacket, RTT: n.rtt, Random: n.random.Float64, Measured: true}, n.now)}
}

// cubic is RFC 9438, with slow start and without HyStart.
type cubic struct {
	cwnd, ssthresh, wMax, k, reno float64 // packets
	epoch, recovery               time.Duration
	sentAt                        map[int64]time.Duration
	rtt                           time.Duration
	hit                           bool
}

func newCubic() *cubic {
	return &cubic{cwnd: 32, ssthresh: math.Inf(1), sentAt: map[int64]time.Duration{}, epoch: -1, recovery: -1}
}

func (q *cubic) sent(now time.Duration, number int64, _, _ int) { q.sentAt[number] = now }
func (q *cubic) acked(now time.Duration, number int64) {
	at := q.sentAt[number]
	delete(q.sentAt, number)
	q.rtt = now - at
	if at <= q.recovery {
		return
	}
	if q.cwnd < q.ssthresh {
		q.cwnd++
		return
	}
	if q.epoch < 0 {
		q.epoch, q.reno = now, q.cwnd
		q.k = math.Cbrt(max(q.wMax-q.cwnd, 0) / 0.4)
	}
	t := (now - q.epoch + q.rtt).Seconds() - q.k
	target := min(max(0.4*t*t*t+q.wMax, q.cwnd), 1.5*q.cwnd)
	q.cwnd += (target - q.cwnd) / q.cwnd
	q.reno += 3 * 0.3 / 1.7 / q.cwnd
	q.cwnd = max(q.cwnd, q.reno)
}
func (q *cubic) lost(now time.Duration, number int64) {
	at := q.sentAt[number]
	delete(q.sentAt, number)
	if at > q.recovery {
		q.hit = true
	}
}
func (q *cubic) settle(now, _ time.Duration, _ int) {
	if !q.hit {
		return
	}
	q.hit, q.recovery, q.epoch = false, now, -1
	if q.cwnd < q.wMax {
		q.wMax = q.cwnd * 0.85
	} else {
		q.wMax = q.cwnd
	}
	q.cwnd = max(q.cwnd*0.7, 2)
	q.ssthresh = q.cwnd
}
func (q *cubic) starved()                 {}
func (q *cubic) window() int              { return int(q.cwnd) * simPacket }
func (q *cubic) budget(time.Duration) int { return math.MaxInt }
func (q *cubic) next() time.Duration      { return 0 }
