package sealed

import (
	"log/slog"
	"testing"
)

// TestClientStatus: connections that have joined an association are counted for their client
// until they end, whatever becomes of the association; and a client is up while any stands.
func TestClientStatus(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	own, stranger := testKey(t, 1), testKey(t, 2)
	g, gateway, at := gateOf(t, log, own, stranger)
	d := NewDialer(DialerOptions{Remote: at.String(), Certificate: certificateOf(t, own), Gateway: gateway.Public(), Counters: &Counters{}, Log: log})
	b := newBench(t)
	wanted := func(when string, want ClientStatus) {
		t.Helper()
		eventually(t, when, func() bool {
			s := g.Client(own.Public())
			want.Since = s.Since
			return s == want
		})
	}
	wanted("nothing is known", ClientStatus{})
	var all []*held
	for range 2 {
		h, err := d.associate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	began := g.Client(own.Public()).Since
	a := g.find(all[0].a.ID)
	lane := newLane(b.port, a)
	c := lane.add(7, b.conn.sock)
	wanted("a connection has joined", ClientStatus{Up: true, Joined: 1, Open: 1})
	all[0].close()
	eventually(t, "the end of the association", func() bool { return g.find(a.ID) == nil })
	wanted("the keys are renewed", ClientStatus{Up: true, Joined: 1, Open: 1})
	if since := g.Client(own.Public()).Since; began.IsZero() || !since.Equal(began) {
		t.Errorf("up since %v, and since %v when the keys are renewed", began, since)
	}
	all[1].close()
	wanted("the client has left", ClientStatus{Joined: 1, Open: 1})
	if since := g.Client(own.Public()).Since; !since.After(began) {
		t.Errorf("down since %v", since)
	}
	lane.forget(c)
	wanted("the connection has ended", ClientStatus{Joined: 1})
	if s := g.Client(stranger.Public()); s != (ClientStatus{}) {
		t.Errorf("of a client that was never there: %+v", s)
	}
}
