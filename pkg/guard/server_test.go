package guard

import (
	"testing"
	"time"
)

// throng admits n clients of a server, from number first on, and returns for how
// many the server is asked.
func throng(t *testing.T, g *Gate, s Server, first, n int, now time.Time) (asked int) {
	t.Helper()
	for i := range n {
		if v := g.Admit(addr(first+i), s, now); v != Admitted {
			t.Fatalf("client %d of %d: %v", i, n, v)
		}
		if g.Ask(s, now) {
			asked++
		}
	}
	return asked
}

// TestServerAsked: a server that has not answered is asked for a few clients at
// a time, one that has for a crowd, until it has said nothing for a while.
func TestServerAsked(t *testing.T) {
	g, s := NewGate(Auto, Limits{}), Server{Port: 80}
	now := t0
	if n := throng(t, g, s, 0, 1000, now); n != trials {
		t.Fatalf("asked for %d of 1000, want %d", n, trials)
	}
	if other := (Server{Port: 81}); throng(t, g, other, 5000, 1, now) != 1 {
		t.Error("another server has to wait for its own turn")
	}
	// One gives up, another one's turn comes.
	if !g.Refused(addr(0), s, true) {
		t.Error("nobody waits")
	}
	if !g.Ask(s, now) || g.Ask(s, now) {
		t.Error("not one for one")
	}
	if !g.Refused(addr(999), s, false) || g.Ask(s, now) {
		t.Error("one that has waited had been asked for")
	}
	// It answers one.
	now = now.Add(5 * time.Second)
	if !g.Connected(addr(1), s, now) {
		t.Error("nobody waits for it")
	}
	n := trials - 1
	for g.servers[s].asked < g.servers[s].pending && g.Ask(s, now) {
		n++
	}
	if n != crowd {
		t.Errorf("asked for %d at a time after the answer, want %d", n, crowd)
	}
	now = now.Add(heardFor - 1)
	g.Refused(addr(2), s, true)
	if !g.Ask(s, now) {
		t.Error("not asked shortly after an answer")
	}
	now = now.Add(1)
	if g.Ask(s, now) {
		t.Error("asked for many more though it has not answered for a while")
	}
}

// TestServerSilent: nobody waits for a server that was just found silent, unless
// it has answered somebody else; later it is tried again.
func TestServerSilent(t *testing.T) {
	g, s := NewGate(Auto, Limits{}), Server{Port: 80}
	now := t0
	throng(t, g, s, 0, 1, now)
	now = now.Add(10 * time.Second)
	g.Refused(addr(0), s, true)
	if !g.Silent(s, now) || g.Admit(addr(1), s, now) != SilentServer || g.Admit(addr(1), Server{Port: 81}, now) != Admitted {
		t.Error("a silent server, and only it, is not to be waited for")
	}
	now = now.Add(silentFor - 1)
	if v := g.Admit(addr(2), s, now); v != SilentServer {
		t.Errorf("just before the end: %v", v)
	}
	now = now.Add(1)
	if throng(t, g, s, 2, 1, now) != 1 {
		t.Error("not tried again")
	}
	g.Connected(addr(2), s, now)
	if g.Silent(s, now.Add(heardFor-1)) || g.Admit(addr(3), s, now.Add(1)) != Admitted {
		t.Error("a server that answers others counts as silent")
	}
	g.Refused(addr(3), s, false)
	g.Closed(addr(2))
	g.sweep(now.Add(time.Minute))
	if len(g.servers) != 1 { // port 81's
		t.Errorf("%d servers are remembered", len(g.servers))
	}
}
