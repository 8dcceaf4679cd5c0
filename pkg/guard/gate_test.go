package guard

import (
	"testing"
	"time"
)

func addr(n int) (a [16]byte) {
	a[10], a[11], a[13], a[14], a[15] = 0xff, 0xff, byte(n>>16), byte(n>>8), byte(n)
	return a
}

// TestGateShare: a thousand clients that take all they can leave room for one
// more, and one alone does not get everything.
func TestGateShare(t *testing.T) {
	g := NewGate(Auto, Limits{})
	for range 100 {
		for n := range 1000 {
			g.Admit(addr(n), Server{}, t0)
		}
	}
	if v := g.Admit(addr(5000), Server{}, t0); v != Admitted {
		t.Errorf("with %d pending of a thousand clients another one gets %v", g.pending, v)
	}
	alone := NewGate(Auto, Limits{Pending: 100, PendingClient: 100})
	n := 0
	for alone.Admit(addr(1), Server{}, t0) == Admitted {
		n++
	}
	if n != 50 {
		t.Errorf("one client alone gets %d of 100", n)
	}
}

// TestGateServers: servers that do not answer leave room for others, whoever
// asks for them, and what they had is free when it is over.
func TestGateServers(t *testing.T) {
	for _, tc := range []struct{ dead, most int }{{1, 50}, {4, 80}, {9, 90}} {
		g := NewGate(Auto, Limits{Pending: 100})
		got := map[int]int{} // pending, by server
		for n := range 1000 {
			if g.Admit(addr(n), Server{Port: uint16(1 + n%tc.dead)}, t0) == Admitted {
				got[n%tc.dead]++
			}
		}
		if g.pending > tc.most {
			t.Errorf("%d servers have %d of 100 places, want at most %d", tc.dead, g.pending, tc.most)
		}
		if v := g.Admit(addr(2000), Server{Port: 1}, t0); v != TooManyServer {
			t.Errorf("one more for the first of %d servers: %v", tc.dead, v)
		}
		other := Server{Port: 99}
		if v := g.Admit(addr(2000), other, t0); v != Admitted {
			t.Errorf("beside %d servers another one: %v", tc.dead, v)
		}
		if !g.Ask(other, t0) {
			t.Error("a server of which nothing is known is not asked")
		}
		g.Connected(addr(2000), other, t0)
		g.Closed(addr(2000))
		for n := range 1000 {
			if got[n%tc.dead]--; got[n%tc.dead] >= 0 {
				g.Refused(addr(n), Server{Port: uint16(1 + n%tc.dead)}, false)
			}
		}
		g.sweep(t0.Add(heardFor))
		if g.pending != 0 || len(g.servers) != 0 || len(g.clients) != 0 {
			t.Errorf("all is over, and the gate has %+v", g)
		}
	}
}

// TestGateChange: other bounds count from the next flow on, and those that are there stay.
func TestGateChange(t *testing.T) {
	g := NewGate(Auto, Limits{PendingClient: 1, OpenClient: 1})
	a := addr(1)
	admit := func(want Verdict) {
		t.Helper()
		if v := g.Admit(a, Server{}, t0); v != want {
			t.Fatalf("%v, want %v", v, want)
		}
	}
	admit(Admitted)
	admit(TooManyClient)
	g.Change(Strict, Limits{PendingClient: 2, OpenClient: 1})
	admit(Admitted)
	admit(TooManyClient)
	if g.Default() != Strict {
		t.Errorf("the mode is %v", g.Default())
	}
	g.Connected(a, Server{}, t0)
	admit(TooManyOpen)
	g.Change(Auto, Limits{PendingClient: 9, OpenClient: 9})
	admit(Admitted)
}

func TestGateBounds(t *testing.T) {
	g := NewGate(Auto, Limits{Pending: 10, PendingClient: 2, OpenClient: 3})
	a := addr(1)
	steps := []struct {
		do   func()
		want Verdict
	}{
		{func() {}, Admitted}, {func() {}, Admitted}, {func() {}, TooManyClient},
		{func() { g.Connected(a, Server{}, t0); g.Connected(a, Server{}, t0) }, Admitted},
		{func() { g.Connected(a, Server{}, t0) }, TooManyOpen},
		{func() { g.Closed(a) }, Admitted},
		{func() { g.Refused(a, Server{}, false) }, Admitted},
	}
	for i, s := range steps {
		s.do()
		if v := g.Admit(a, Server{}, t0); v != s.want {
			t.Fatalf("step %d: %v, want %v", i, v, s.want)
		}
	}
	g.Refused(a, Server{}, false)
	g.Closed(a)
	g.Closed(a)
	if st := g.Status(t0); st.Clients != 0 || st.Pending != 0 {
		t.Errorf("all flows are over, and the gate has %+v", st)
	}
	// Neighbours in an IPv6 network are one client; IPv4 neighbours are not.
	x, y := [16]byte{0xfd, 15: 1}, [16]byte{0xfd, 15: 2}
	g.Admit(x, Server{}, t0)
	g.Admit(x, Server{}, t0)
	if v := g.Admit(y, Server{}, t0); v != TooManyClient {
		t.Errorf("an IPv6 neighbour gets %v", v)
	}
	if v := g.Admit(addr(2), Server{}, t0); v != Admitted {
		t.Errorf("another IPv4 client gets %v", v)
	}
}

// TestGateAuto: Auto changes at the thresholds, and back only after a calm
// second below half of them.
func TestGateAuto(t *testing.T) {
	g := NewGate(Auto, Limits{Pending: 1000, PendingClient: 1000, AutoFlows: 10, FirstFlights: 1000, AutoBytes: 500})
	now := t0
	mode := func(after time.Duration, want Mode) {
		t.Helper()
		now = now.Add(after)
		if m := g.Resolve(Auto, false, now); m != want {
			t.Fatalf("%v with %d flows and %d bytes, want %v", m, g.pending, g.bytes, want)
		}
	}
	for n := range 10 {
		mode(0, Fast)
		g.Admit(addr(n), Server{}, t0)
	}
	mode(0, ZeroWindow)
	for n := range 4 {
		g.Refused(addr(n), Server{}, false)
	}
	mode(0, ZeroWindow) // 6 are more than half
	mode(time.Hour, ZeroWindow)
	g.Refused(addr(4), Server{}, false)
	mode(0, ZeroWindow)
	mode(calm-1, ZeroWindow)
	mode(1, Fast)
	dead, live := Server{Port: 1}, Server{Port: 2}
	g.Admit(addr(100), live, now)
	g.Ask(live, now)
	g.Connected(addr(100), live, now)
	if !g.Take(500, dead, now) || g.Take(1, dead, now) || g.Take(501, live, now) || !g.Take(500, live, now) || g.Take(1, live, now) {
		t.Fatal("the bound of first flights is not 1000 bytes, 500 for servers that have not answered")
	}
	mode(0, ZeroWindow)
	g.Give(1000)
	mode(0, ZeroWindow)
	mode(calm/2, ZeroWindow)
	g.Take(300, live, now)
	mode(calm, ZeroWindow) // not calm: begins anew
	g.Give(300)
	mode(calm, ZeroWindow)
	mode(calm, Fast)
	if s := g.Status(now); s.Switches != 4 || s.Peak != 1000 {
		t.Errorf("status %+v", s)
	}
	if g.Resolve(Strict, false, now) != Strict || g.Resolve(ZeroWindow, true, now) != ZeroWindow {
		t.Error("the load changes modes that are not auto")
	}
}
