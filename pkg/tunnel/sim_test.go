package tunnel

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/simlink"
	"hawser/pkg/stream"
	"hawser/scheduler"
)

// sim is an edge and a cloud whose loops, links and workers a simulation drives
// on one goroutine: the sessions' own code, with time and mail from here in
// place of Run, and wires in place of carriers. The same seed gives the same
// run.
type sim struct {
	*simlink.Events
	edge, cloud *simSide
	flows       []*simFlow
	seed        uint64
	rnd         *rand.Rand
	wires       [][2]*simlink.Wire // by link: away from the edge, from the cloud
	uplinks     []*simUplink       // where lines are below
	faults      int                // wrong bytes
	tap         func(fate)         // if any, told of data that has arrived
}

// way is one direction of a link: a wire, or a transport over a worse line.
type way interface {
	Send(size int, arrive func())
	Room(do func())
}

// simSide is one session, driven.
type simSide struct {
	sim     *sim
	s       *Session
	in      mail
	due     bool // a turn is due at this instant
	timer   int  // number of the newest timer; older ones are void
	peer    *simSide
	byID    map[stream.ID]*simFlow
	carries []*simConn
	spent   time.Duration // by the loop, real time
}

// simConn is one end of a link's connection.
type simConn struct {
	*conn
	way   way
	apart map[*strand]simApart
	there *simConn // the other end
	over  bool     // its loop has closed it
}

// simFlow is a request of a client and its answer.
type simFlow struct {
	id      stream.ID
	user    int
	size    int
	began   time.Time
	ended   time.Time
	got     int
	limit   uint64
	sent    int
	request bool // the cloud has the request
	echo    bool // of messages: the cloud sends back what comes
	up      bool // an upload: the client sends size bytes

	last    time.Time     // when something of the answer came
	longest time.Duration // without anything
}

// simLink is what one link of a simulation is like.
type simLink struct {
	mbit float64
	rtt  time.Duration
}

func newSim(seed uint64, links []simLink) *sim {
	m := newBareSim(seed, scheduler.Kinds{})
	for i, l := range links {
		spec := simlink.Spec{Rate: l.mbit * mbit, Delay: l.rtt / 2}
		up, down := m.NewWire(spec), m.NewWire(spec)
		m.wires = append(m.wires, [2]*simlink.Wire{up, down})
		m.connect(i, simCarrier{rtt: l.rtt}, simCarrier{rtt: l.rtt}, up, down)
	}
	return m
}

// connect gives link i a connection.
func (m *sim) connect(i int, edge, cloud Carrier, up, down way) (e, c *simConn) {
	e, c = m.edge.attach(i, edge, up), m.cloud.attach(i, cloud, down)
	e.there, c.there = c, e
	return e, c
}

// newBareSim is one without links.
func newBareSim(seed uint64, k scheduler.Kinds) *sim {
	m := &sim{Events: simlink.NewEvents(), seed: seed, rnd: rand.New(rand.NewPCG(seed, 99))}
	m.edge, m.cloud = m.side(true, k), m.side(false, k)
	m.edge.peer, m.cloud.peer = m.cloud, m.edge
	return m
}

func (m *sim) side(edge bool, k scheduler.Kinds) *simSide {
	sd := &simSide{sim: m, byID: map[stream.ID]*simFlow{}}
	sd.s = New(Config{
		Peer: "peer", Edge: edge, Secret: make([]byte, 32), Sink: sd, Kinds: k,
		Budget: NewBudget(128 << 20), Log: slog.New(slog.DiscardHandler),
	})
	sd.s.now, sd.s.lastLink = m.Now(), m.Now()
	return sd
}

// simCarrier says what a transport would; nobody calls the rest.
type simCarrier struct {
	Carrier
	rtt time.Duration
}

// Sense implements Carrier: the round trip of the handshake.
func (c simCarrier) Sense() scheduler.Sense { return scheduler.Sense{RTT: c.rtt} }

// Pace implements Carrier: a wire has no bursts.
func (simCarrier) Pace(float64) {}

// Close implements Carrier.
func (simCarrier) Close(error) {}

// fate is a record that has arrived.
type fate struct {
	from  *simSide
	by    *strand // of the side that has it
	sent  time.Time
	block []byte
}

// attach gives the side its end of link i.
func (sd *simSide) attach(i int, end Carrier, w way) *simConn {
	c := newConn(&link{info: LinkInfo{ID: i, Name: fmt.Sprint(i), Transport: "sim"}}, end)
	for _, st := range c.strands {
		st.rx = make(chan *rxBatch, 1<<16) // the loop gives back what nobody fills again
	}
	sc := &simConn{conn: c, way: w}
	sd.carries = append(sd.carries, sc)
	sd.in.attached = append(sd.in.attached, c)
	sd.wake()
	return sc
}

// wake makes a turn of the side's loop due now.
func (sd *simSide) wake() {
	if !sd.due {
		sd.due = true
		sd.sim.After(0, sd.turn)
	}
}

// turn is one turn of the loop, as Run would make it.
func (sd *simSide) turn() {
	sd.due = false
	in := sd.in
	sd.in = mail{}
	sd.s.now = sd.sim.Now()
	began := time.Now()
	sd.s.drain(in)
	wait := sd.s.turn()
	sd.spent += time.Since(began)
	for _, c := range sd.carries {
		sd.transmit(c)
	}
	sd.carries = slices.DeleteFunc(sd.carries, func(c *simConn) bool { return c.over })
	sd.timer++
	mine := sd.timer
	sd.sim.After(wait, func() {
		if sd.timer == mine {
			sd.wake()
		}
	})
}

// transmit takes what a connection has flushed, in place of its writer.
func (sd *simSide) transmit(c *simConn) {
	for _, st := range c.strands {
		for len(st.rx) > 0 {
			<-st.rx
		}
	}
	if c.closed {
		c.over = true
		sd.in.lost = append(sd.in.lost, lostConn{c.conn, c.err})
		sd.wake()
		return
	}
	for _, st := range c.strands {
		w, there, over, sentAt := c.way, c.there.bulk, &c.over, sd.sim.Now()
		if a, ok := c.apart[st]; ok {
			w, there, over = a.way, a.there, &a.of.over
		}
		for len(st.out) > 0 {
			b := <-st.out
			for _, r := range b.recs {
				block := bytes.Clone(r.Block)
				w.Send(len(block)+r.Body.Len(), func() {
					if *over {
						r.Body.Release() // its transport was closed
						return
					}
					if sd.sim.tap != nil {
						sd.sim.tap(fate{sd, there, sentAt, block})
					}
					sd.peer.arrive(there, block, r.Body)
				})
			}
			w.Room(func() {
				sd.in.room = append(sd.in.room, b)
				sd.wake()
			})
		}
	}
}

// arrive brings a record, in place of a reader.
func (sd *simSide) arrive(st *strand, block []byte, body buffer.Seg) {
	b := &rxBatch{strand: st, at: sd.sim.Now()}
	if err := b.decode(block, body); err != nil {
		panic(err)
	}
	sd.in.received = append(sd.in.received, b)
	sd.wake()
}

// Place implements stream.Sink.
func (sd *simSide) Place(stream.ID) int { return 0 }
func (sd *simSide) Settle(int)          {}

// Deliver implements stream.Sink: both workers at once.
func (sd *simSide) Deliver(_ int, batch []stream.Event) {
	for _, ev := range batch {
		if f := sd.flow(ev); f != nil {
			sd.event(f, ev)
		}
	}
	sd.wake()
}

func (sd *simSide) flow(ev stream.Event) *simFlow {
	f := sd.byID[ev.Flow]
	if f == nil && ev.Kind == stream.EventOpen {
		f = sd.peer.byID[ev.Flow]
		sd.byID[ev.Flow] = f
	}
	if f == nil {
		ev.Seg.Release()
	}
	return f
}

func (sd *simSide) post(c stream.Command) { sd.in.commands = append(sd.in.commands, c) }

func (sd *simSide) event(f *simFlow, ev stream.Event) {
	switch ev.Kind {
	case stream.EventReset:
		delete(sd.byID, f.id)
	case stream.EventOpen:
		sd.post(stream.Command{Kind: stream.CmdAccepted, Flow: f.id})
	case stream.EventCredit:
		if sd.s.cfg.Edge == f.up {
			f.limit = ev.Limit
			sd.answer(f)
		}
	case stream.EventData:
		n := ev.Seg.Len()
		switch {
		case sd.s.cfg.Edge != f.up:
			sd.received(f, ev.Seg)
		case f.echo:
			sd.give(f, n)
		default:
			f.request = true
			sd.answer(f)
		}
		ev.Seg.Release()
		sd.post(stream.Command{Kind: stream.CmdConsumed, Flow: f.id, Bytes: n})
	}
}

// received checks what came of the answer.
func (sd *simSide) received(f *simFlow, seg buffer.Seg) {
	if !bytes.Equal(seg.P, patternAt(uint64(f.got), seg.Len())) {
		sd.sim.faults++
	}
	now := sd.sim.Now()
	if !f.last.IsZero() {
		f.longest = max(f.longest, now.Sub(f.last))
	}
	f.last = now
	if f.got += seg.Len(); f.got == f.size {
		f.ended = now
	}
}

// answer sends what credit permits of the answer. The flow stays open.
func (sd *simSide) answer(f *simFlow) {
	for f.request && f.sent < f.size && uint64(f.sent) < f.limit {
		sd.give(f, min(f.size-f.sent, int(f.limit)-f.sent, 16000))
	}
}

// give sends n bytes of the answer.
func (sd *simSide) give(f *simFlow, n int) {
	b := buffer.Get(n)
	copy(b.Bytes(), patternAt(uint64(f.sent), n))
	sd.post(stream.Command{Kind: stream.CmdSend, Flow: f.id, Seg: b.Seg(0, n)})
	f.sent += n
}

// request opens a flow of a user whose answer has size bytes.
func (m *sim) request(user, size int) *simFlow {
	f := &simFlow{id: stream.ID(len(m.flows) + 1), user: user, size: size, began: m.Now()}
	m.flows = append(m.flows, f)
	sd := m.edge
	sd.byID[f.id] = f
	sd.in.news = append(sd.in.news, newFlow{f.id, 0})
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 3, byte(user >> 8), byte(user)}), 4711)
	sd.post(stream.Command{Kind: stream.CmdOpen, Flow: f.id, Dst: server, Src: src})
	m.ask(f, requestBytes)
	return f
}

// upload opens a flow of a user that sends size bytes.
func (m *sim) upload(user, size int) *simFlow {
	f := m.request(user, size)
	f.up, f.request, f.sent = true, true, requestBytes
	return f
}

// requestBytes is the size of a request.
const requestBytes = 300

// ask sends n bytes of a flow to the cloud.
func (m *sim) ask(f *simFlow, n int) {
	b := buffer.Get(n)
	copy(b.Bytes(), patternAt(0, n)) // an upload begins with it
	m.edge.post(stream.Command{Kind: stream.CmdSend, Flow: f.id, Seg: b.Seg(0, n)})
	m.edge.wake()
}

// crowdOf lets flows begin at random times within d, of random users and with
// answers of 1 KB to 500 KB, small ones more often.
func (m *sim) crowdOf(flows, users int, d time.Duration) {
	for range flows {
		at := time.Duration(m.rnd.Float64() * float64(d))
		user := int(math.Pow(m.rnd.Float64(), 2) * float64(users))
		size := int(1000 * math.Pow(500, math.Pow(m.rnd.Float64(), 2.5)))
		m.After(at, func() { m.request(user, size) })
	}
}

// weather changes the links' rates each 200 ms and cuts links now and then.
func (m *sim) weather(links []simLink, d time.Duration, outages int) {
	for at := time.Duration(0); at < d; at += 200 * time.Millisecond {
		m.After(at, func() {
			for i, l := range links {
				rate := l.mbit * mbit * (0.6 + 0.8*m.rnd.Float64())
				m.wires[i][0].SetRate(rate)
				m.wires[i][1].SetRate(rate)
			}
		})
	}
	for range outages {
		i := m.rnd.IntN(len(links))
		at := time.Duration(m.rnd.Float64() * float64(d))
		lasts := time.Duration((0.3 + 2*m.rnd.Float64()) * float64(time.Second))
		m.After(at, func() { m.cut(i, true) })
		m.After(at+lasts, func() { m.cut(i, false) })
	}
}

func (m *sim) cut(i int, cut bool) {
	m.wires[i][0].Cut(cut)
	m.wires[i][1].Cut(cut)
}

// quantile returns the p-th of some durations, in milliseconds.
func quantile(d []time.Duration, p float64) float64 {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[int(p*float64(len(d)-1))].Seconds() * 1000
}
