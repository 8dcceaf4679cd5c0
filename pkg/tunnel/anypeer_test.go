package tunnel

import (
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// strangeSession is a session whose peer says anything that can be decoded, and whose worker
// does all that it may, both by chance.
type strangeSession struct {
	t     testing.TB
	r     *rand.Rand
	s     *Session
	conns []*conn
	apart []*strand // urgent connections whose goroutines have not ended
	flows map[stream.ID]*strangeFlow
	was   map[stream.ID]bool
}

// strangeFlow is a flow as its worker sees it.
type strangeFlow struct {
	limit, sent uint64
	got         int // and not consumed
	finIn, fin  bool
	rejected    bool
}

// strangeCarrier is one whose transport shows anything.
type strangeCarrier struct {
	simCarrier
	r    *rand.Rand
	seen *scheduler.Sense
}

func newStrangeCarrier(r *rand.Rand) strangeCarrier {
	return strangeCarrier{r: r, seen: &scheduler.Sense{Known: r.IntN(3) > 0}}
}

// Sense implements Carrier.
func (c strangeCarrier) Sense() scheduler.Sense {
	if s := c.seen; s.Known {
		n := uint64(c.r.IntN(20_000))
		s.RTT, s.InFlight, s.Ahead = time.Duration(1+c.r.IntN(100))*time.Millisecond, c.r.IntN(100_000), c.r.IntN(2000)
		s.Progress, s.Delivered, s.Whole, s.Lost = s.Progress+n%2, s.Delivered+n, s.Whole+n%3, s.Lost+n%2
		s.Carries, s.Volleys, s.Due = float64(100*n), s.Volleys+n%2, n%50 == 0
		if n%2 == 0 {
			s.Arrived += n
		}
	}
	return *c.seen
}

// strangeStrands has all strands of its own.
type strangeStrands struct{ strangeCarrier }

func (c strangeStrands) Urgent() Strand { return c.strangeCarrier }
func (c strangeStrands) Twin() Strand   { return c.strangeCarrier }

func (x *strangeSession) Place(stream.ID) int { return x.r.IntN(2) }
func (x *strangeSession) Settle(int)          {}

func (x *strangeSession) Deliver(_ int, batch []stream.Event) {
	for _, e := range batch {
		x.event(e)
	}
}

func (x *strangeSession) event(e stream.Event) {
	f := x.flows[e.Flow]
	if e.Kind == stream.EventOpen {
		if x.was[e.Flow] {
			x.t.Errorf("flow %d opens twice", e.Flow)
		}
		x.flows[e.Flow], x.was[e.Flow] = &strangeFlow{}, true
		return
	}
	n := e.Seg.Len()
	e.Seg.Release()
	if f == nil {
		return
	}
	switch e.Kind {
	case stream.EventData:
		if f.finIn {
			x.t.Errorf("flow %d: data behind the end", e.Flow)
		}
		if !f.rejected {
			f.got += n
		}
	case stream.EventFin:
		f.finIn = f.finIn || !f.rejected
	case stream.EventCredit:
		if e.Limit < f.limit {
			x.t.Errorf("flow %d: the limit falls from %d to %d", e.Flow, f.limit, e.Limit)
		}
		f.limit = e.Limit
	case stream.EventReset:
		delete(x.flows, e.Flow)
	case stream.EventRewind:
		f.rejected = false
	}
}

// command lets the worker of a flow do something.
func (x *strangeSession) command() {
	if x.s.cfg.Edge && len(x.flows) < 6 && x.r.IntN(3) == 0 {
		id := x.s.NewFlow(x.r.IntN(2))
		x.s.drain(x.s.box.collect(mail{}))
		x.flows[id], x.was[id] = &strangeFlow{}, true
		if x.r.IntN(4) == 0 {
			return // its command comes later
		}
		x.obey(stream.Command{Kind: stream.CmdOpen, Flow: id, Dst: server, Src: client, Terms: x.terms()})
		return
	}
	if ids := slices.Sorted(maps.Keys(x.flows)); len(ids) > 0 {
		id := ids[x.r.IntN(len(ids))] // a seed does the same each time
		f, c := x.flows[id], stream.Command{Flow: id}
		switch x.r.IntN(8) {
		case 0, 1:
			n := min(uint64(x.r.IntN(20_000)), f.limit-min(f.sent, f.limit))
			if n == 0 || f.fin {
				return
			}
			f.sent += n
			c.Kind, c.Seg = stream.CmdSend, buffer.Get(int(n)).Seg(0, int(n))
		case 2, 3:
			n := x.r.IntN(f.got + 1)
			f.got -= n
			c.Kind, c.Bytes, c.Room = stream.CmdConsumed, n, uint16(x.r.IntN(3)*500)
		case 4:
			if f.got == 0 || f.rejected {
				return
			}
			c.Kind, c.Bytes = stream.CmdReject, x.r.IntN(f.got+1)
			f.got, f.rejected, f.finIn = 0, true, false
		case 5:
			c.Kind, f.fin = stream.CmdFin, true
		case 6:
			if x.r.IntN(5) > 0 {
				return
			}
			c.Kind, c.Code = stream.CmdReset, stream.Code(x.r.IntN(9))
			delete(x.flows, id)
		case 7:
			if c.Kind = stream.CmdAccepted; f.fin && f.finIn && f.got == 0 && !f.rejected {
				c.Kind = stream.CmdDone
				delete(x.flows, id)
			}
		}
		x.obey(c)
	}
}

func (x *strangeSession) obey(c stream.Command) { x.s.obey(&c) }

func (x *strangeSession) terms() wire.Terms {
	rate := func() uint64 {
		return [...]uint64{0, 0, 1, 1000, 1e6, 1e13, 1 << 61}[x.r.IntN(7)]
	}
	return wire.Terms{Policy: uint16(x.r.IntN(2)), Bits: uint8(x.r.IntN(129)), Class: uint8(x.r.IntN(4)), Weight: uint8(1 + x.r.IntN(255)), Guarantee: rate(), Limit: rate()}
}

// frame is anything that the peer may say.
func (x *strangeSession) frame(st *strand) (f wire.Frame, body buffer.Seg) {
	f.Flow = uint64(1 + x.r.IntN(8))
	small := func() uint64 {
		n := uint64(x.r.IntN(40_000))
		if x.r.IntN(100) == 0 {
			n = 1<<62 - 1 - n // the largest that can be decoded
		}
		return n
	}
	f.Delay = x.r.Uint32() >> x.r.IntN(33)
	switch x.r.IntN(14) {
	case 0:
		f.Kind, f.Seq = wire.KindAck, uint64(x.r.IntN(int(st.conn.bulk.log.count)+1))
	case 1:
		f.Kind, f.Seq = wire.KindUrgent, uint64(x.r.IntN(int(st.conn.urgent.log.count)+1))
	case 2:
		f.Kind = wire.KindTwin
		if twin := st.conn.twin; twin != nil {
			f.Seq = uint64(x.r.IntN(int(twin.log.count) + 1))
		}
	case 3, 4:
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(x.r.IntN(3))}), 1)
		f.Kind, f.Dst, f.Src, f.Terms = wire.KindOpen, server, addr, x.terms()
	case 5:
		f.Kind, f.Limit = wire.KindAccepted, small()
	case 6, 7, 8:
		n := x.r.IntN(3000)
		f.Kind, f.Offset, f.Length, f.Flags = wire.KindData, small(), uint16(n), uint8(x.r.IntN(12)/11)
		if fl := x.s.flows[stream.ID(f.Flow)]; fl != nil && x.r.IntN(3) > 0 {
			f.Offset = fl.recv.Offset()
		}
		if body = buffer.Get(max(n, 1)).Seg(0, n); n == 0 {
			f.Flags = wire.FlagFin
		}
	case 9, 10:
		f.Kind, f.Flow, f.Offset, f.Limit = wire.KindCredit, f.Flow%8, small(), small()+small()*uint64(x.r.IntN(1<<30))
		if fl := x.s.flows[stream.ID(f.Flow)]; fl != nil && x.r.IntN(8) > 0 {
			f.Offset = fl.send.base + uint64(x.r.IntN(int(fl.send.next-fl.send.base)+1))
			if f.Offset == fl.send.end && fl.send.fin && fl.send.first == nil {
				f.Offset++
			}
		}
	case 11:
		if f.Kind = wire.KindReset; x.r.IntN(4) > 0 {
			f.Kind = wire.KindPing
		}
	case 12:
		f.Kind, f.Offset = wire.KindResend, small()
		if fl := x.s.flows[stream.ID(f.Flow)]; fl != nil && x.r.IntN(8) > 0 {
			f.Offset = uint64(x.r.IntN(int(fl.send.next) + 1))
		}
	case 13:
		f.Kind, f.Link = wire.KindLink, wire.LinkTerms{Link: uint16(x.r.IntN(4)), Serial: x.r.Uint32N(50), Tier: uint8(x.r.IntN(4)), Weight: 1, Usable: x.r.IntN(2) == 0, Rate: small(), Valid: x.r.Uint32N(2000)}
		if x.s.cfg.Edge && x.r.IntN(10) > 0 {
			f.Kind = wire.KindPing
		}
	}
	return f, body
}

// hear has a strand bring some records.
func (x *strangeSession) hear(st *strand) {
	b := <-st.rx
	b.at = x.s.now
	for range 1 + x.r.IntN(6) {
		f, body := x.frame(st)
		b.frames = append(b.frames, f)
		b.recs = append(b.recs, rxRecord{from: len(b.frames) - 1, to: len(b.frames), body: body})
	}
	x.s.receive(b)
	b.frames = b.frames[:0]
}

// step is one thing after the other.
func (x *strangeSession) step() {
	s := x.s
	s.now = s.now.Add(time.Duration(x.r.ExpFloat64() * float64(3*time.Millisecond)))
	switch x.r.IntN(10) {
	case 0, 1, 2, 3:
		c := x.conns[x.r.IntN(len(x.conns))]
		x.hear(c.strands[x.r.IntN(len(c.strands))])
	case 4, 5, 6, 7:
		x.command()
	case 8:
		c := x.conns[x.r.IntN(len(x.conns))]
		switch x.r.IntN(20) {
		case 0:
			s.closeConn(c, errAny)
		case 1:
			if _, ok := c.carrier.(strangeStrands); !ok && !c.candidate {
				st := newApart(c, newStrangeCarrier(x.r), x.r.IntN(2) == 0)
				s.stand(st)
				x.apart = append(x.apart, st)
			}
		case 2:
			if st := c.strands[0]; st.apart != nil {
				x.endApart(func(other *strand) bool { return other == st })
			}
		}
	}
	if x.r.IntN(2) == 0 {
		s.turn()
	}
	x.endApart(func(st *strand) bool { return st != st.conn.urgent && st != st.conn.twin && x.r.IntN(3) == 0 })
	for i, c := range x.conns {
		x.write(c)
		if c.closed {
			x.endApart(func(st *strand) bool { return st.conn == c })
			s.detach(c, errAny)
			x.conns[i] = x.attach(i)
		}
	}
}

// endApart has the goroutines of some urgent connections end, also of those that the session
// has given up or replaced before.
func (x *strangeSession) endApart(which func(*strand) bool) {
	x.apart = slices.DeleteFunc(x.apart, func(st *strand) bool {
		if !which(st) {
			return false
		}
		x.s.part(st)
		st.discard()
		return true
	})
}

// write is the writers'.
func (x *strangeSession) write(c *conn) {
	for _, st := range c.strands {
		for len(st.out) > 0 && x.r.IntN(3) > 0 {
			b := <-st.out
			for _, r := range b.recs {
				r.Body.Release()
			}
			st.returned(b)
		}
	}
}

func (x *strangeSession) attach(i int) *conn {
	carrier := newStrangeCarrier(x.r)
	c := newConn(&link{info: LinkInfo{ID: i, Name: "l"}}, carrier)
	if x.r.IntN(2) == 0 {
		c = newConn(&link{info: LinkInfo{ID: i, Name: "l"}}, strangeStrands{carrier})
	}
	x.s.attach(c)
	return c
}

// FuzzPeer: whatever a peer says, a session holds nothing afterwards, promises its worker
// nothing that it takes back, and ends.
func FuzzPeer(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, edge bool) {
		before := buffer.Live()
		x := &strangeSession{t: t, r: rand.New(rand.NewPCG(seed, 1)), flows: map[stream.ID]*strangeFlow{}, was: map[stream.ID]bool{}}
		whole := NewBudget(1 << 20)
		x.s = New(Config{
			Peer: "peer", Edge: edge, Secret: make([]byte, 32), Sink: x, Budget: whole, Places: NewPlaces(2, 20, 0, false), Log: slog.New(slog.DiscardHandler),
			Kinds: scheduler.Kinds{Order: scheduler.OrderKind(seed % 3), Path: scheduler.PathKind(seed % 7)},
		})
		if edge {
			x.s.cfg.Places = nil
		}
		x.s.now = time.Now()
		x.s.lastLink = x.s.now
		for i := range 3 {
			x.conns = append(x.conns, x.attach(i))
		}
		for range 1500 {
			if x.step(); x.s.stopped != nil {
				break
			}
			if x.s.early < 0 || x.s.cfg.Budget.Held() < 0 || x.s.cfg.Budget.Kept() < 0 {
				t.Fatalf("%d early, %d held, %d kept", x.s.early, x.s.cfg.Budget.Held(), x.s.cfg.Budget.Kept())
			}
		}
		x.end(whole)
		if live := buffer.Live() - before; live != 0 {
			t.Errorf("%d bytes of slabs are left", live)
		}
	})
}

// end ends the session and looks what it has left.
func (x *strangeSession) end(whole *Budget) {
	s := x.s
	if s.stopped == nil {
		s.stopped = errAny
	}
	s.shutdown()
	x.endApart(func(*strand) bool { return true })
	for _, c := range x.conns {
		c.discard()
		for _, st := range c.strands {
			for _, p := range st.free {
				if len(p.recs) > 0 {
					x.t.Errorf("a free batch has %d records", len(p.recs))
				}
			}
		}
	}
	if len(s.flows) > 0 || s.early != 0 || whole.Held() != 0 || whole.Kept() != 0 || whole.holders.Load() != 0 || s.order.Len() != 0 {
		x.t.Errorf("%d flows, %d early, %d held, %d kept, %d holders, %d in line", len(s.flows), s.early, whole.Held(), whole.Kept(), whole.holders.Load(), s.order.Len())
	}
	if p := s.cfg.Places; p != nil && p.taken[0].Load()+p.taken[1].Load() != 0 {
		x.t.Errorf("places are taken: %d and %d", p.taken[0].Load(), p.taken[1].Load())
	}
	if s.lefts != (lefts{}) {
		x.t.Errorf("something is left to send: %v", s.lefts)
	}
	if !errors.Is(s.stopped, errAny) && !errors.Is(s.stopped, ErrLinger) && !errors.Is(s.stopped, ErrPeerStop) {
		x.t.Errorf("it ended with %v", s.stopped)
	}
}
