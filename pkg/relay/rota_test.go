package relay

import (
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// want is a session in a test of the rota, and what its flows have been given.
type want struct {
	session
	flows []*flow
	got   int
}

func newWant(flows int) *want {
	w := &want{}
	for range flows {
		w.flows = append(w.flows, &flow{session: &w.session})
	}
	return w
}

// begin enlists all flows of the sessions.
func begin(r *rota, all ...*want) {
	for _, w := range all {
		for _, f := range w.flows {
			r.add(f)
		}
	}
}

// serve takes the next flow's turn, of so many bytes, and enlists it again if it goes on.
func serve(r *rota, bytes int, on bool) *session {
	f := r.next()
	if f == nil {
		return nil
	}
	f.session.share -= bytes
	if on {
		r.add(f)
	}
	return f.session
}

// TestRotaIsFair: a session with one flow has as much as one with fifty, also where its
// flows move less at a time, and the flows of a session have equal parts.
func TestRotaIsFair(t *testing.T) {
	r := rota{turn: 1000}
	crowd, lone := newWant(50), newWant(1)
	begin(&r, crowd, lone)
	runs := map[*flow]int{}
	for range 5000 {
		f := r.next()
		n := 1000
		if f.session == &lone.session {
			n = 300
			lone.got += n
		} else {
			crowd.got += n
			runs[f]++
		}
		f.session.share -= n
		r.add(f)
	}
	if d := crowd.got - lone.got; max(d, -d) > 2000 {
		t.Errorf("50 flows have %d bytes, the other session's one has %d", crowd.got, lone.got)
	}
	for _, f := range crowd.flows {
		if d := runs[f] - runs[crowd.flows[0]]; max(d, -d) > 1 {
			t.Errorf("flows have had %d and %d turns", runs[f], runs[crowd.flows[0]])
		}
	}
}

// TestRotaQuietFirst: a session that had nothing to run is next, however many others wait;
// but not again before they have had a turn, so that one that pauses all the time does not
// keep the others out.
func TestRotaQuietFirst(t *testing.T) {
	r := rota{turn: 1000}
	var busy []*want
	for range 10 {
		busy = append(busy, newWant(3))
	}
	begin(&r, busy...)
	for range 100 {
		serve(&r, 1000, true)
	}
	quiet := newWant(1)
	begin(&r, quiet)
	if s := serve(&r, 10, false); s != &quiet.session {
		t.Fatal("another is next")
	}
	first := 0
	for range 200 {
		begin(&r, quiet)
		n := 0
		for serve(&r, 1000, true) != &quiet.session {
			n++
		}
		quiet.session.run.pop() // it has paused again
		r.flows--
		if n == 0 {
			first++
		}
	}
	if first > 200/4 {
		t.Errorf("one that pauses all the time was next %d times of 200", first)
	}
}

// TestRotaEmpties: what was enlisted comes out once, and nothing of a session stays.
func TestRotaEmpties(t *testing.T) {
	r := rota{turn: 10}
	all := []*want{newWant(3), newWant(1), newWant(7)}
	for round := range 3 {
		begin(&r, all...)
		n := 0
		for serve(&r, 1000, false) != nil {
			n++
		}
		if n != 11 || r.flows != 0 || r.fresh.head != nil || r.seen.head != nil {
			t.Fatalf("round %d: %d flows, %d left", round, n, r.flows)
		}
		for i, w := range all {
			if w.listed || w.run.head != nil {
				t.Errorf("round %d: session %d stays", round, i)
			}
		}
	}
}

// spring is a well that never runs dry, of bytes that do not compress.
type spring struct{ well }

func (s *spring) Read(p []byte) (int, error) { return copy(p, s.block), nil }

// TestSessionsShareWorker: a worker's rounds are short however many flows can go on, and an
// edge with one of them has as much of the worker as one with fifty.
func TestSessionsShareWorker(t *testing.T) {
	const crowd = 50
	b := newBench(t, nil)
	lone, block := &sieve{}, content(1, 64<<10)
	for range crowd {
		b.w.Accept(&spring{well{block: block}}, serverAt, clientAt, b.tun)
	}
	b.w.Accept(&spring{well{block: block}}, serverAt, clientAt, lone)
	b.turn()
	var events []stream.Event
	for id := range crowd {
		events = append(events, stream.Event{Kind: stream.EventCredit, Flow: stream.ID(id + 2), Limit: 1 << 40, From: b.tun})
	}
	b.w.Deliver(append(events, stream.Event{Kind: stream.EventCredit, Flow: 1, Limit: 1 << 40, From: lone}))
	for _, s := range b.w.sessions {
		for _, f := range s.flows {
			f.note(party.Readable)
		}
	}
	const rounds = 100
	for round := range rounds {
		before := b.tun.sent + lone.sent
		b.turn()
		if n := b.tun.sent + lone.sent - before; n > roundMost+DefaultBudget+DefaultBudget/8 {
			t.Fatalf("round %d moves %d bytes", round, n)
		}
	}
	most := 2*DefaultBudget + crowd*DefaultWindow*(buffer.Plain+card.Overhead) // read and not sent yet
	if d := b.tun.sent - lone.sent; lone.sent < rounds*roundMost/4 || max(d, -d) > most {
		t.Errorf("%d flows have sent %d bytes, the other edge's one %d", crowd, b.tun.sent, lone.sent)
	}
}
