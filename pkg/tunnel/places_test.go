package tunnel

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// tenant is a cloud's session of an edge that opens flows.
type tenant struct {
	*testing.T
	s   *Session
	c   *conn
	ids stream.ID
	log bytes.Buffer
}

func newTenant(t *testing.T, p *Places) *tenant {
	e := &tenant{T: t, s: newBareSim(1, scheduler.Kinds{}).cloud.s, c: newConn(&link{}, simCarrier{})}
	e.s.cfg.Places = p
	e.s.log = slog.New(slog.NewTextHandler(&e.log, nil))
	return e
}

func (e *tenant) frame(f wire.Frame, seg buffer.Seg) {
	e.Helper()
	f.Dst, f.Src, f.Terms = server, client, wire.DefaultTerms()
	if err := e.s.frame(e.c.bulk, &f, seg); err != nil {
		e.Fatal(err)
	}
}

// open opens n flows and returns how many there are then.
func (e *tenant) open(n int) int {
	e.Helper()
	for range n {
		e.ids++
		e.frame(wire.Frame{Kind: wire.KindOpen, Flow: uint64(e.ids)}, noSeg)
	}
	return len(e.s.flows)
}

// TestFairPlaces: an edge that opens what it can leaves a quarter of the places, two leave a
// seventh, and so on; others find some, also those that come last. What one gives back
// others may have.
func TestFairPlaces(t *testing.T) {
	const each = 140
	p := NewPlaces(1, each, 0, true)
	first, second, third := newTenant(t, p), newTenant(t, p), newTenant(t, p)
	if n := first.open(2 * each); n != 105 {
		t.Errorf("the first has %d of %d", n, each)
	}
	if n := second.open(10); n != 10 {
		t.Errorf("a quiet edge has %d of 10", n)
	}
	if n := second.open(2 * each); n != 27 {
		t.Errorf("the second has %d beside the first", n)
	}
	if n := third.open(5); n != 5 {
		t.Errorf("the third has %d of 5", n)
	}
	if n := int(first.s.count.FlowsCrowded); n != 2*each-105 || first.s.count.FlowsReset != uint64(n) {
		t.Errorf("%d were turned away, %d reset", n, first.s.count.FlowsReset)
	}
	first.frame(wire.Frame{Kind: wire.KindReset, Flow: 1}, noSeg)
	if n := first.open(10); n != 104 {
		t.Errorf("the first has %d beside the others", n)
	}
	for _, f := range first.s.flows {
		first.s.dropFlow(f)
	}
	if n := p.taken[0].Load(); n != 32 {
		t.Errorf("%d places are taken when the first has gone", n)
	}
	if n := strings.Count(first.log.String(), "as many as it may have"); n != 1 {
		t.Errorf("%d lines to the log:\n%s", n, first.log.String())
	}
}

// TestPlacesOfOne: an edge that is alone has all places, of each worker, and one of which a
// bound is set has no more than that.
func TestPlacesOfOne(t *testing.T) {
	alone := newTenant(t, NewPlaces(1, 50, 0, false))
	if n := alone.open(60); n != 50 {
		t.Errorf("%d of 50", n)
	}
	bound := newTenant(t, NewPlaces(1, 50, 20, true))
	if n := bound.open(60); n != 20 {
		t.Errorf("%d of 20", n)
	}
	p := NewPlaces(2, 4, 0, true)
	if p.taken[0].Add(4); p.allows(0, 0, 0) || !p.allows(1, 4, 4) || p.allows(1, 12, 12) {
		t.Error("a worker's places are not its own")
	}
}

// TestPlacesLast: a flow has its place until the peer has consumed all of it, also when its
// worker has done; data before the OPEN takes one, and is turned away where there is none.
func TestPlacesLast(t *testing.T) {
	before := buffer.Live()
	p := NewPlaces(1, 2, 0, false)
	e := newTenant(t, p)
	e.open(1)
	e.s.obey(&stream.Command{Kind: stream.CmdSend, Flow: 1, Seg: buffer.Copy([]byte("answer"))})
	e.s.obey(&stream.Command{Kind: stream.CmdFin, Flow: 1})
	e.s.obey(&stream.Command{Kind: stream.CmdDone, Flow: 1})
	data := func(id uint64) {
		e.frame(wire.Frame{Kind: wire.KindData, Flow: id, Length: 1}, buffer.Copy([]byte{1}))
	}
	data(7)
	data(8)
	if len(e.s.flows) != 2 || e.s.early != 1 || p.taken[0].Load() != 2 {
		t.Fatalf("%d flows, %d early, %d places", len(e.s.flows), e.s.early, p.taken[0].Load())
	}
	e.ids = 7
	if n := e.open(1); n != 2 || e.s.flows[8] != nil {
		t.Error("a flow was opened that had been turned away")
	}
	for _, f := range e.s.flows {
		e.s.dropFlow(f)
	}
	if n := p.taken[0].Load(); n != 0 {
		t.Errorf("%d places are taken of none", n)
	}
	if live := buffer.Live() - before; live != 0 {
		t.Errorf("%d bytes of slabs are left", live)
	}
}
