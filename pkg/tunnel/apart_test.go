package tunnel

import (
	"errors"
	"slices"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/simlink"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// besideCarrier is a lineCarrier beside which an urgent connection may stand; it goes
// with it.
type besideCarrier struct {
	lineCarrier
	urgent *[2]*simUrgent
}

// Close implements Carrier.
func (c besideCarrier) Close(err error) {
	c.lineCarrier.Close(err)
	for _, u := range c.urgent {
		u.Close(err)
	}
}

// simUrgent is an urgent connection of a simulation, both ends of it.
type simUrgent struct {
	uplink  *simUplink
	number  int // of the two: 0, or 1 for the twin
	tcp     [2]*simlink.TCP
	sides   [2]*simSide
	strands [2]*strand
	over    bool
}

// simApart is what a strand with a connection of its own sends by.
type simApart struct {
	way   way
	there *strand
	of    *simUrgent
}

// urgentEnd is one end of it.
type urgentEnd struct {
	lineCarrier
	*simUrgent
}

// Close implements Apart: both ends find out at once.
func (e urgentEnd) Close(err error) { e.simUrgent.Close(err) }

// Close ends it.
func (u *simUrgent) Close(error) {
	if u == nil || u.over || u.tcp[0] == nil {
		return
	}
	u.over = true
	u.uplink.sim.After(simUrgentAgain, u.again)
	for i, sd := range u.sides {
		u.tcp[i].Close()
		sd.in.parted = append(sd.in.parted, u.strands[i])
		sd.wake()
	}
}

// simUrgentAgain is the time until the agent's next attempt to make one, and for that.
const simUrgentAgain = 500 * time.Millisecond

// again makes another in its place, when the uplink and its connection live.
func (u *simUrgent) again() {
	up := u.uplink
	switch {
	case up.urgent[u.number] != u || up.ends[0].over || up.ends[1].over:
	case up.lines[0].Dead || up.lines[1].Dead:
		u.uplink.sim.After(simUrgentAgain, u.again)
	default:
		*u = simUrgent{uplink: up, number: u.number}
		up.beside(up.ends[0], up.ends[1], u)
	}
}

// beside has an urgent connection stand beside the uplink's.
func (u *simUplink) beside(e, c *simConn, now *simUrgent) {
	u.ends = [2]*simConn{e, c}
	m := u.sim
	now.sides = [2]*simSide{m.edge, m.cloud}
	lines := u.lines
	if u.lost > 0 {
		u.lost--
		for i := range lines {
			lines[i] = m.NewLine(mbit, time.Millisecond, 1<<16, 1)
			lines[i].Dead = true
		}
	}
	for i, end := range u.ends {
		now.tcp[i] = m.NewTCP(lines[i], lines[1-i])
		st := newApart(end.conn, urgentEnd{lineCarrier{tcp: now.tcp[i]}, now}, now.number == 1)
		st.rx = make(chan *rxBatch, 1<<16)
		now.strands[i] = st
	}
	for i, end := range u.ends {
		if end.apart == nil {
			end.apart = map[*strand]simApart{}
		}
		end.apart[now.strands[i]] = simApart{now.tcp[i], now.strands[1-i], now}
		now.sides[i].in.joined = append(now.sides[i].in.joined, now.strands[i])
		now.sides[i].wake()
	}
}

// TestUrgentConnection: messages under bulk do not wait behind its lost packets where
// an urgent connection stands beside, and nothing else is worse; nothing is lost or
// comes twice wrongly when it ends and another stands (PROTOCOL.md section 4.4).
func TestUrgentConnection(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	before := buffer.Live()
	g := terrains()[slices.IndexFunc(terrains(), func(g terrain) bool { return g.name == "loss" })]
	g.d = 5 * time.Second
	one := g.run(everything, 1)
	two := g.run(variant{name: "beside", beside: true}, 1)
	g.script = func(m *sim, _ [][2]*simlink.Line) {
		for at := time.Second; at < g.d; at += 700 * time.Millisecond {
			m.After(at, func() {
				for _, u := range m.uplinks {
					for _, one := range u.urgent {
						one.Close(nil)
					}
				}
			})
		}
	}
	lost := g.run(variant{name: "beside", beside: true}, 1)
	for _, c := range []struct {
		name string
		o    outcome
	}{{"none", one}, {"one", two}, {"one that ends", lost}} {
		t.Logf("%-13s %.1f Mbit/s, longest stall %.0f ms, message p50 %.0f, p90 %.0f, p99 %.0f ms", c.name, mean(c.o.goodput), slices.Max(c.o.stall),
			quantile(c.o.message, 0.5), quantile(c.o.message, 0.9), quantile(c.o.message, 0.99))
		if c.o.failed > 0 {
			t.Errorf("%s: %d wrong or missing answers", c.name, c.o.failed)
		}
		if mean(c.o.goodput) < 0.95*mean(one.goodput) {
			t.Errorf("%s: %.1f Mbit/s, without %.1f", c.name, mean(c.o.goodput), mean(one.goodput))
		}
	}
	if a, b := quantile(one.message, 0.5), quantile(two.message, 0.5); b > 0.8*a {
		t.Errorf("message p50 %.0f ms with an urgent connection, %.0f without", b, a)
	}
	if buffer.Live() != before {
		t.Errorf("%d bytes are left", buffer.Live()-before)
	}
}

// closer is an urgent connection that notes its end.
type closer struct {
	Apart
	err error
}

func (c *closer) Close(err error)        { c.err = err }
func (c *closer) Sense() scheduler.Sense { return scheduler.Sense{} }

// TestUrgentConnectionEnds: what an urgent connection has not had acknowledged goes
// again when it ends, its bytes count as under way no more, and what was told of it
// later is no violation.
func TestUrgentConnectionEnds(t *testing.T) {
	before := buffer.Live()
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, simCarrier{})
	c.bulkAt = s.now // bulk comes
	first, second := &closer{}, &closer{}
	st := newApart(c, first, false)
	s.stand(st)
	f := &flow{id: 1}
	s.order.Join(&f.node, scheduler.Terms{Class: scheduler.Normal, Weight: 1}, s.now)
	f.send.add(f, buffer.Copy(make([]byte, 1000)))
	p := f.send.head
	if c.strandFor(p, s.now) != st || c.control(s.now) != st {
		t.Fatal("what is urgent does not go by the urgent connection")
	}
	if c.strandFor(p, s.now.Add(time.Second)) != c.bulk || c.control(s.now.Add(time.Second)) != c.bulk {
		t.Error("what is urgent goes by the urgent connection though no bulk is under way")
	}
	s.carryBy(st, &scheduler.Link{}, p)
	p.state = sent
	st.commit(st.batch(), wire.AppendPing(nil), noSeg, entry{at: s.now, ctrl: []byte{byte(wire.KindPing)}})
	if c.inFlight == 0 || st.late(s.now) || !st.late(s.now.Add(time.Second)) || c.strandFor(p, s.now.Add(50*time.Millisecond)) != st {
		t.Error("what was sent is not accounted for")
	}
	s.stand(newApart(c, second, false))
	if !errors.Is(first.err, ErrReplaced) || c.urgent == st || c.inFlight != 0 || p.copies != 0 || len(s.ctrl.sizes) != 1 || len(f.send.resend) != 1 {
		t.Errorf("replaced: %v, %d in flight, %d copies, %d control frames, %d pieces again", first.err, c.inFlight, p.copies, len(s.ctrl.sizes), len(f.send.resend))
	}
	if err := s.frame(st, &wire.Frame{Kind: wire.KindUrgent, Seq: 2}, noSeg); err != nil {
		t.Errorf("a late acknowledgement: %v", err)
	}
	if err := s.frame(c.bulk, &wire.Frame{Kind: wire.KindUrgent}, noSeg); !errors.Is(err, errNoUrgent) {
		t.Errorf("URGENT on the other connection: %v", err)
	}
	s.part(st)
	st.discard()
	if c.urgent.apart == nil || second.err != nil {
		t.Error("the end of the old one has ended the new one")
	}
	newest := c.urgent
	newest.commit(newest.batch(), wire.AppendPing(nil), noSeg, entry{at: s.now})
	c.heard, s.now = s.now.Add(4*time.Second), s.now.Add(4*time.Second)
	s.stepApart(c)
	if c.urgent != c.bulk || second.err == nil {
		t.Error("one that is stuck is not given up")
	}
	newest.discard()
	f.drop()
	if c.handed != 0 || buffer.Live() != before {
		t.Errorf("%d bytes count as handed over, slabs are left: %v", c.handed, buffer.Live() != before)
	}
}
