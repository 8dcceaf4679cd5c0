package relay

import (
	"context"
	"testing"
	"testing/synctest"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// sleeper is a poller that counts how often its worker is woken.
type sleeper struct {
	*bell
	wakes int
}

func (s *sleeper) Wake() {
	s.wakes++
	s.bell.Wake()
}

// guest is a worker at rest with one flow, to whom the test brings mail.
type guest struct {
	*sleeper
	w     *Worker
	tun   *sieve
	conn  *well
	f     *flow
	seal  *sealer
	count uint32
}

// visiting runs a worker at rest in virtual time.
func visiting(t *testing.T, test func(g *guest)) {
	synctest.Test(t, func(t *testing.T) {
		g := &guest{sleeper: &sleeper{bell: newBell()}, tun: &sieve{}, conn: &well{}, seal: newSealer(t)}
		var err error
		if g.w, err = New(Options{Poller: g.sleeper, Card: inlineCard(t), Ring: card.NewRings(card.Edge).Get}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- g.w.Run(ctx) }()
		g.w.Accept(g.conn, serverAt, clientAt, g.tun)
		synctest.Wait()
		g.f = g.w.find(g.tun, 1)
		g.wakes = 0
		test(g)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// data is a record of n bytes for the flow.
func (g *guest) data(n int) []stream.Event {
	g.count++
	return []stream.Event{{Kind: stream.EventData, Flow: 1, Seg: g.seal.record(g.count-1, make([]byte, n)), From: g.tun}}
}

// TestVisit: a small message passes a sleeping worker without a wake-up.
func TestVisit(t *testing.T) {
	visiting(t, func(g *guest) {
		for i := range 10 {
			g.w.Leave(g.data(64))
			if g.conn.taken != i*64 {
				t.Fatalf("%d bytes written before Settle, want %d", g.conn.taken, i*64)
			}
			g.w.Settle()
			if want := (i + 1) * 64; g.conn.taken != want || g.tun.consumed == 0 {
				t.Fatalf("%d bytes written, %d consumed, want %d and some", g.conn.taken, g.tun.consumed, want)
			}
		}
		if g.wakes != 0 || g.w.Status().Visits != 10 {
			t.Errorf("10 messages took %d wake-ups and %d visits, want 0 and 10", g.wakes, g.w.Status().Visits)
		}
	})
}

// TestAttended: so does a message of a party's, while somebody attends.
func TestAttended(t *testing.T) {
	visiting(t, func(g *guest) {
		g.conn.block = make([]byte, 64)
		g.w.Attend()
		g.w.Leave([]stream.Event{{Kind: stream.EventCredit, Flow: 1, Limit: 1 << 20, From: g.tun}})
		g.f.note(party.Readable)
		g.w.Settled()
		if g.tun.records != 1 || g.wakes != 0 {
			t.Errorf("%d records, %d wake-ups, want 1 and 0", g.tun.records, g.wakes)
		}
		g.f.note(party.Readable) // nobody attends any more
		synctest.Wait()
		if g.tun.records != 2 || g.wakes != 1 {
			t.Errorf("then %d records, %d wake-ups, want 2 and 1", g.tun.records, g.wakes)
		}
	})
}

// TestTooMuchForAVisit: the worker is woken for what takes longer than that.
func TestTooMuchForAVisit(t *testing.T) {
	visiting(t, func(g *guest) {
		g.w.Leave(g.data(littleBytes))
		if g.wakes != 1 {
			t.Errorf("%d wake-ups for much, want 1 at once", g.wakes)
		}
		g.w.Settle()
		synctest.Wait()
		if g.conn.taken != littleBytes || g.w.Status().Visits != 0 {
			t.Errorf("%d bytes written, %d visits", g.conn.taken, g.w.Status().Visits)
		}
	})
}

// TestVisitToABusyWorker: who finds the worker at work leaves it alone.
func TestVisitToABusyWorker(t *testing.T) {
	visiting(t, func(g *guest) {
		g.w.turn.Lock()
		g.w.Leave(g.data(64))
		g.w.Settle()
		if g.conn.taken != 0 || g.wakes != 1 {
			t.Errorf("%d bytes written, %d wake-ups, want none and 1", g.conn.taken, g.wakes)
		}
		g.w.turn.Unlock()
		synctest.Wait()
		if g.conn.taken != 64 {
			t.Errorf("%d bytes written, want 64", g.conn.taken)
		}
	})
}

// TestVisitAfterTheEnd: what comes too late is given back.
func TestVisitAfterTheEnd(t *testing.T) {
	live := buffer.Live()
	var late *guest
	visiting(t, func(g *guest) { late = g })
	late.w.Leave(late.data(64))
	late.w.Settle()
	if now := buffer.Live(); now != live {
		t.Errorf("%d bytes of slabs are not released", now-live)
	}
}
