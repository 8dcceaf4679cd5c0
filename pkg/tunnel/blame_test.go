package tunnel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/simlink"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// openRecords is what a relay does with what has come: it takes whole records, asks for one
// anew that is not as it was sent, and resets the flow the third time.
func (u *user) openRecords() (out []stream.Command) {
	var all []byte
	for _, s := range u.segs {
		all = append(all, s.P...)
	}
	for !u.rejected && len(all) > 0 {
		size := len(all)
		if h, err := card.ParseHeader(append(slices.Clone(all), 0, 0, 0, 0)); err != nil {
			size = min(size, card.HeaderLen)
		} else if h.Len > size && !u.gotFin {
			return out
		} else if h.Len <= size {
			size = h.Len
		}
		want := slices.Clone(patternAt(u.got, size))
		if size > card.HeaderLen {
			binary.BigEndian.PutUint32(want, uint32(size-card.HeaderLen)<<16)
		}
		if !slices.Equal(all[:size], want) {
			return append(out, u.refuse(size)...)
		}
		all = all[size:]
		u.got += uint64(size)
		u.tries = 0
		out = append(out, stream.Command{Kind: stream.CmdConsumed, Flow: u.id, Bytes: size})
		for size > 0 {
			s := &u.segs[0]
			n := min(size, s.Len())
			head, tail := s.Cut(n)
			head.Release()
			if *s = tail; tail.Len() == 0 {
				tail.Release()
				u.segs = u.segs[1:]
			}
			size -= n
		}
	}
	return out
}

// refuse asks for a record of size bytes anew.
func (u *user) refuse(size int) []stream.Command {
	if u.tries++; u.tries == 3 {
		u.reset = stream.CodeProtocol
		u.end()
		return []stream.Command{{Kind: stream.CmdReset, Code: stream.CodeProtocol, Flow: u.id}}
	}
	u.rejected = true
	return []stream.Command{{Kind: stream.CmdReject, Flow: u.id, Bytes: size}}
}

// meddling changes a bit of one in so many bodies that come by a link; 0: of none.
type meddling struct {
	every       int
	connections atomic.Int64
	bodies      atomic.Int64 // changed

	mu     sync.Mutex // both ends draw
	random *rand.Rand
}

// meddler is an end of such a link's connection.
type meddler struct {
	*simlink.End
	*meddling
}

func (m meddler) Receive() (wire.Record, error) {
	r, err := m.End.Receive()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := r.Body.Len(); err == nil && n > 0 && m.every > 0 && m.random.IntN(m.every) == 0 {
		changed := buffer.Copy(r.Body.P) // the sender has the other still
		changed.P[m.random.IntN(n)] ^= 1 << m.random.IntN(8)
		r.Body.Release()
		r.Body = changed
		m.bodies.Add(1)
	}
	return r, err
}

// meddled keeps a link connected on whose way somebody changes what passes, one body in so
// many; 0: none.
func (w *world) meddled(id int, spec simlink.Spec, seed uint64, every int) *meddling {
	m := &meddling{every: every, random: rand.New(rand.NewPCG(seed, 0))}
	info := LinkInfo{ID: id, Name: string(rune('a' + id)), Transport: "sim"}
	w.wg.Go(func() {
		for {
			m.connections.Add(1)
			p := simlink.NewPair(spec)
			ended := make(chan struct{})
			w.wg.Go(func() {
				_ = w.cloud.s.Serve(w.t.Context(), info, meddler{p.B, m})
				close(ended)
			})
			_ = w.edge.s.Serve(w.t.Context(), info, meddler{p.A, m})
			<-ended
			select {
			case <-w.edge.s.Ended():
				return
			case <-w.cloud.s.Ended():
				return
			case <-time.After(4 * spec.Delay): // the handshakes
			}
		}
	})
	return m
}

// TestForgedAgain: what was forged comes by another link the second time, or by one alone
// where it came by several before, and the link that has forged it is hardly used any more.
func TestForgedAgain(t *testing.T) {
	for _, c := range []struct {
		rate  float64 // of each link
		every int     // bodies, of which one is changed
		size  int
	}{
		{20 * mbit, 1, 5e6},   // a record goes by one link
		{20 * mbit, 20, 5e6},  //
		{2 * mbit, 1, 500e3},  // by both
		{2 * mbit, 10, 500e3}, //
	} {
		for _, up := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.0f Mbit per s, 1 in %d, up=%v", c.rate/mbit, c.every, up), func(t *testing.T) {
				for seed := range uint64(2) {
					run(t, func(t *testing.T) { forgedAgain(t, c.rate, seed, c.every, c.size, up) })
				}
			})
		}
	}
}

func forgedAgain(t *testing.T, rate float64, seed uint64, every, size int, up bool) {
	w := newWorld(t)
	defer w.close()
	spec := simlink.Spec{Rate: rate, Delay: 10 * time.Millisecond}
	other := w.meddled(1, spec, 0, 0)
	spec.Delay = 5 * time.Millisecond // nearer
	m := w.meddled(0, spec, seed, every)
	time.Sleep(time.Second)
	down, upload := size, 1000
	if up {
		down, upload = 1000, size
	}
	w.serve(down)
	accept := w.cloud.accept
	w.cloud.accept = func(u *user) {
		u.records = true
		accept(u)
	}
	u := w.open(upload, func(u *user) { u.records = true })
	took := u.await(time.Minute)
	peer := w.peerOf(u)
	peer.await(time.Minute)
	if u.resetCode() != 0 || peer.resetCode() != 0 || int(u.total()) != down || int(peer.total()) != upload {
		t.Errorf("seed %d: reset %v and %v, %d bytes down, %d up; %d bodies changed", seed, u.resetCode(), peer.resetCode(), u.total(), peer.total(), m.bodies.Load())
		return
	}
	e, _ := w.edge.s.Status()
	cl, _ := w.cloud.s.Status()
	if refused := e.Counts.Forged + cl.Counts.Forged; refused > 8 || m.connections.Load() > 8 || other.connections.Load() > 2 {
		t.Errorf("seed %d: %d records refused, %d and %d connections: it is still used", seed, refused, m.connections.Load(), other.connections.Load())
	}
	t.Logf("seed %d: %v, %d bodies changed, %d and %d connections, %d refused", seed, took, m.bodies.Load(), m.connections.Load(), other.connections.Load(), e.Counts.Forged+cl.Counts.Forged)
	w.gone()
}

// TestForgedAreToldOnce: a peer whose flows bring nothing that opens does not fill the log.
func TestForgedAreToldOnce(t *testing.T) {
	e := newTenant(t, nil)
	e.c.link = e.s.findLink(0)
	forge := func(n int) {
		for range n {
			e.open(1)
			e.frame(wire.Frame{Kind: wire.KindData, Flow: uint64(e.ids), Length: 1}, buffer.Copy([]byte{1}))
			e.s.obey(&stream.Command{Kind: stream.CmdReject, Flow: e.ids, Bytes: 1})
		}
	}
	forge(100)
	if n := strings.Count(e.log.String(), "forged"); n != 1 || e.s.count.Forged != 100 {
		t.Errorf("%d lines tell of %d forged records", n, e.s.count.Forged)
	}
	e.s.now = e.s.now.Add(2 * time.Minute)
	if forge(1); strings.Count(e.log.String(), "forged") != 2 {
		t.Error("nothing tells that it goes on after a while")
	}
	for _, f := range e.s.flows {
		e.s.dropFlow(f)
	}
	e.s.deliver()
}

// TestBlameOfCrumbs: to find out who has brought a record that came byte by byte by two links,
// in any order, takes a moment.
func TestBlameOfCrumbs(t *testing.T) {
	conns := []*conn{{link: &link{}}, {link: &link{}}}
	f := &flow{}
	for i, off := range rand.New(rand.NewPCG(1, 1)).Perm(InitialCredit) {
		f.note(conns[i%2], uint64(off), uint64(off+1))
	}
	begin := time.Now()
	if got := f.blame(0, InitialCredit); len(got) != 2 || got[0].bytes == 0 || got[1].bytes == 0 {
		t.Errorf("who has brought it: %v", got)
	}
	if took := time.Since(begin); took > time.Second { // it takes a thousandth
		t.Errorf("it took %v", took)
	}
}

// TestResendAgain: who asks for the same again before anything of it has left, and so a
// hundred times with each record, has the queue looked through once.
func TestResendAgain(t *testing.T) {
	e := newTenant(t, nil)
	e.open(1)
	for range 10 {
		e.s.obey(&stream.Command{Kind: stream.CmdSend, Flow: 1, Seg: buffer.Copy(make([]byte, 1000))})
	}
	q := &e.s.flows[1].send
	for p := q.ready(); p != nil; p = q.ready() {
		q.take(p, 1000)
	}
	resend := func(from uint64) {
		for range 100 {
			e.frame(wire.Frame{Kind: wire.KindResend, Flow: 1, Offset: from}, noSeg)
		}
	}
	if resend(3000); q.tail.turn != 1 || len(q.resend) != 7 || q.ready().off != 3000 {
		t.Errorf("the last piece was put in line %d times, %d stand there", q.tail.turn, len(q.resend))
	}
	if resend(1000); q.tail.turn != 2 || len(q.resend) != 9 || q.ready().off != 1000 {
		t.Errorf("from further back: %d times, %d stand there", q.tail.turn, len(q.resend))
	}
	q.take(q.ready(), 1000)
	if resend(1000); q.tail.turn != 3 || q.ready().off != 1000 {
		t.Errorf("when some was sent: %d times, next is %d", q.tail.turn, q.ready().off)
	}
	e.s.dropFlow(e.s.flows[1])
	e.s.deliver()
}
