package splice

import (
	"testing"
	"time"
)

// carrier is a shunt that carries what the test says, and sees that all it is
// told fits.
type carrier struct {
	testing.TB
	full   bool
	paths  map[int32]*Path
	ending map[int32][2]bool // by end: its FIN was told
	places int32
	passed Passed
}

func (c *carrier) Take(p *Path) (int32, bool) {
	if c.full {
		return none, false
	}
	c.places++
	kept := *p
	c.paths[c.places] = &kept
	return c.places, true
}

func (c *carrier) at(place int32) *Path {
	p := c.paths[place]
	if p == nil {
		c.Fatalf("place %d is nobody's", place)
	}
	return p
}

func (c *carrier) Trace(place int32) Trace { return c.at(place).Trace }

func (c *carrier) Tell(place int32, all *Trace) {
	p := c.at(place)
	quiet := p.Quiet
	p.Trace = *all
	p.Quiet = quiet
}

func (c *carrier) Ending(place int32, client bool) {
	c.at(place)
	e := c.ending[place]
	if client {
		e[0] = true
	} else {
		e[1] = true
	}
	c.ending[place] = e
}

func (c *carrier) Leave(place int32) {
	c.at(place)
	delete(c.paths, place)
}

func (c *carrier) Passed() Passed { return c.passed }

// shunted makes an open flow of a table with a shunt.
func shunted(t testing.TB, u setup) (*world, *carrier) {
	c := &carrier{TB: t, paths: map[int32]*Path{}, ending: map[int32][2]bool{}}
	w, _ := call(t, u)
	w.table.cfg.Shunt = c
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
	w.took()
	w.Cleanup(func() {
		w.table.Reset(w.now)
		if len(c.paths) != 0 || w.table.Shunted() != 0 {
			t.Errorf("%d paths are left, the table knows of %d", len(c.paths), w.table.Shunted())
		}
	})
	return w, c
}

// only is the one path that is carried.
func (c *carrier) only() *Path {
	c.Helper()
	if len(c.paths) != 1 {
		c.Fatalf("%d paths, want 1", len(c.paths))
	}
	for _, p := range c.paths {
		return p
	}
	return nil
}

// TestShuntPath: an open flow is handed over with all that is needed, and what
// comes to the table nevertheless is translated as before.
func TestShuntPath(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		u.offers.Scale, u.answers.Scale = 4, 9
		w, c := shunted(t, u)
		p := c.only()
		if p.Client != w.c.Addr().As16() || p.Server != w.s.Addr().As16() || p.ClientPort != w.c.Port() || p.ServerPort != w.s.Port() || p.HubPort != w.hub.Port() {
			t.Errorf("ends %+v", p)
		}
		f := w.table.at(0)
		if p.Up != f.up || p.Down != u.isn-u.srv || p.Clock != f.clock || !p.SACK || !p.Stamps || p.MSS != [2]uint16{u.offers.MSS, u.answers.MSS} {
			t.Errorf("shifts %+v", p)
		}
		if p.Left != [2]uint8{0, 9} || p.Right != [2]uint8{0, 7} {
			t.Errorf("windows of the client %d, %d, of the server %d, %d", p.Left[0], p.Right[0], p.Left[1], p.Right[1])
		}
		if p.Next != [2]uint32{u.iss + 1, u.srv + 1} || p.Window[server] != 32000 {
			t.Errorf("knowledge %+v", p.Trace)
		}
		if s := w.forward(w.fromClient(0, u.iss+1, u.isn+1, "odd", optNop, optNop, optNop, optNop)); string(s.data) != "odd" {
			t.Errorf("the server gets %+v", s)
		}
		c.passed = Passed{Packets: [2]uint64{10, 20}, Bytes: [2]uint64{1000, 2000}}
		if n := w.table.Counters(); n.Up != 11 || n.Down != 20 || n.BytesUp != 1003 || n.BytesDown != 2000 || n.Shunted != 1 {
			t.Errorf("%+v", n)
		}
	})
}

// TestShuntEnds: the table sees how flows end.
func TestShuntEnds(t *testing.T) {
	u := modern()
	w, c := shunted(t, u)
	w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, ""))
	c.only()
	if c.ending[1] != [2]bool{true, false} {
		t.Errorf("told of the ends: %v", c.ending)
	}
	w.forward(w.fromServer(0, u.srv+1, u.iss+2, ""))
	w.forward(w.fromServer(flagFIN, u.srv+1, u.iss+2, "bye"))
	if len(c.paths) != 0 {
		t.Fatal("both ends have closed, and the flow is not the table's")
	}
	w.forward(w.fromClient(0, u.iss+2, u.isn+5, ""))
	if n := w.table.Counters(); n.Closed != 1 || n.Shunted != 1 {
		t.Errorf("%+v", n)
	}
}

// TestShuntReset: a reset takes the flow back; a forged one not for long.
func TestShuntReset(t *testing.T) {
	u := modern()
	w, c := shunted(t, u)
	w.forward(w.fromServer(flagRST, u.srv+1, u.iss+1, ""))
	if len(c.paths) != 0 {
		t.Fatal("a flow that was reset is not the table's")
	}
	w.forward(w.fromServer(0, u.srv+1, u.iss+1, "alive"))
	if p := c.only(); p.Next[server] != u.srv+6 {
		t.Errorf("handed over again with %+v", p.Trace)
	}
	w.forward(w.fromServer(flagRST, u.srv+6, u.iss+1, ""))
	w.now += resetIdle + time.Second
	w.table.Sweep(w.now)
	if w.table.Flows() != 0 {
		t.Error("a reset flow stays")
	}
}

// TestShuntIdle: what passes elsewhere keeps a flow alive, to the moment.
func TestShuntIdle(t *testing.T) {
	for _, half := range []bool{false, true} {
		u := modern()
		w, c := shunted(t, u)
		idle := openIdle
		if half {
			w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, ""))
			idle = halfProbe
		}
		w.now += idle + time.Second
		c.only().Quiet = 10 * time.Second
		w.table.Sweep(w.now)
		if w.table.Flows() != 1 {
			t.Fatal("a flow that is carried was forgotten")
		}
		if d, ok := w.table.Deadline(); !ok || d != w.now-10*time.Second+idle+grace {
			t.Errorf("half-closed %v: next deadline in %v", half, d-w.now)
		}
		w.now += idle - 10*time.Second
		c.only().Quiet = idle
		w.table.Sweep(w.now)
		for quiet := idle; half && quiet < halfIdle; quiet += halfProbe {
			if w.table.Flows() != 1 {
				t.Fatalf("half-closed: forgotten after %v", quiet)
			}
			w.now += halfProbe
			c.only().Quiet = quiet + halfProbe
			w.table.Sweep(w.now)
		}
		if w.table.Flows() != 0 || w.table.Counters().Idle != 1 {
			t.Errorf("half-closed %v: an idle flow is remembered", half)
		}
	}
}

// TestShuntKnowledge: the table answers with the numbers of what has passed
// elsewhere.
func TestShuntKnowledge(t *testing.T) {
	u := modern()
	w, c := shunted(t, u)
	p := c.only()
	p.Trace = Trace{
		Next: [2]uint32{u.iss + 5000, u.srv + 7000}, Acked: [2]uint32{u.isn + 6000, u.iss + 4000},
		Stamp: [2]uint32{u.offers.Val + 50, u.answers.Val + 60}, Window: [2]uint16{77, 88},
	}
	w.icmp(icmpUnreachable, icmpTooBig, u.iss+4500)
	if len(w.raw) != 1 {
		t.Error("a router's word about a packet that passed elsewhere was not passed on")
	}
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
	s := w.one()
	if o := parseOptions(s.opts); s.seq != u.iss+5000 || s.ack != u.srv+6000 || s.window != 77 || o.Val != u.offers.Val+50 || o.Ecr != u.answers.Val+60 {
		t.Errorf("the server is told %+v", s)
	}
	w.swallow(tcp{src: w.c, dst: w.s, flags: flagSYN, seq: 1, window: 1, opts: u.offers.appendTo(nil)})
	s = w.one()
	if o := parseOptions(s.opts); s.seq != u.isn+7000 || s.ack != u.iss+4000 || s.window != 88<<9>>7 || o.Ecr != u.offers.Val+50 {
		t.Errorf("the client is told %+v", s)
	}
	w.table.Reset(w.now)
	if r := w.took(); len(r) != 2 || r[0].seq != u.isn+7000 || r[1].seq != u.iss+5000 {
		t.Errorf("resets %+v", r)
	}
}

// TestShuntFar: what passes elsewhere between two looks may be more than half of
// the sequence space, or all of it.
func TestShuntFar(t *testing.T) {
	for _, far := range []uint32{1 << 30, 3 << 30, 1<<32 - 1<<27, 12345} {
		u := modern()
		w, c := shunted(t, u)
		p := c.only()
		p.Next, p.Acked = [2]uint32{u.iss + far, u.srv + far}, [2]uint32{u.isn + far, u.iss + far}
		p.Stamp = [2]uint32{u.offers.Val + far, u.answers.Val + far}
		w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
		if s := w.one(); s.seq != u.iss+far || s.ack != u.srv+far || parseOptions(s.opts).Val != u.offers.Val+far {
			t.Errorf("%#x on: the server is told %+v", far, s)
		}
		// What the table carries beyond that stays known, however much it is.
		up := u.iss + far
		for i := range uint32(3) {
			p.Window[client] = 1<<16 - 1
			w.forward(w.fromServer(0, u.srv+far, up, "odd", optNop, optNop, optNop, optNop))
			if i < 2 {
				far += 1 << 24
				p.Acked[client] = u.isn + far
			}
		}
		w.swallow(tcp{src: w.c, dst: w.s, flags: flagSYN, seq: 1, window: 1, opts: u.offers.appendTo(nil)})
		if s := w.one(); s.seq != u.isn+far+3 || s.ack != up {
			t.Errorf("%#x on: the client is told %+v", far, s)
		}
		w.forward(tcp{src: w.s, dst: w.hub, flags: flagRST, seq: u.srv + far + 3})
		if len(c.paths) != 0 {
			t.Errorf("%#x on: a flow that was reset is not the table's", far)
		}
	}
}

// TestShuntFull: without room the table carries a flow, and hands it over later.
func TestShuntFull(t *testing.T) {
	u := modern()
	w, c := shunted(t, u)
	w.table.unshunt(w.table.at(0))
	c.full = true
	w.forward(w.fromClient(0, u.iss+1, u.isn+1, "here"))
	if len(c.paths) != 0 {
		t.Fatal("carried without room")
	}
	c.full = false
	w.forward(w.fromClient(0, u.iss+5, u.isn+1, "and"))
	if p := c.only(); p.Next[client] != u.iss+8 {
		t.Errorf("handed over with %+v", p.Trace)
	}
	u.answers.Stamps = false
	w, c = shunted(t, u)
	w.forward(w.fromServer(0, u.srv+1, u.iss+1, "x"))
	if len(c.paths) != 0 {
		t.Error("a flow whose timestamps have to be made was handed over")
	}
}
