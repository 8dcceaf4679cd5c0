package guard

import "testing"

// TestSix: by IPv6 nobody is accepted before his server is there until one was, nor after
// three in a row could not be reached; IPv4 is as ever.
func TestSix(t *testing.T) {
	g := NewGate(Auto, Limits{})
	at := func(first byte) Server { return Server{Addr: [16]byte{first}, Port: 80} }
	four := Server{Addr: [16]byte{10: 0xff, 0xff, 192, 0, 2, 1}, Port: 80}
	want := func(when string, v6 Mode) {
		t.Helper()
		if s := g.Status(t0); s.Mode != Fast || s.Mode6 != v6 {
			t.Errorf("%s: %v, by IPv6 %v", when, s.Mode, s.Mode6)
		}
	}
	reach := func(s Server) {
		if v := g.Admit(addr(1), s, t0); v != Admitted || !g.Ask(s, t0) {
			t.Fatalf("%v", v)
		}
		g.Connected(addr(1), s, t0)
	}
	want("at first", Strict)
	reach(four)
	want("after a server by IPv4", Strict)
	reach(at(0x20))
	want("after a server", Fast)
	for n := range byte(lostAfter) {
		want("some missed", Fast)
		g.Silent(four, t0)
		g.Silent(at(0x30+n), t0)
	}
	want("several missed", Strict)
	reach(at(0x20))
	want("after a server again", Fast)
	g.Silent(at(0x40), t0)
	reach(at(0x20))
	for n := range byte(lostAfter - 1) {
		g.Silent(at(0x50+n), t0)
	}
	want("not in a row", Fast)
	for n := range DefaultPending / 8 {
		g.Admit(addr(n), Server{}, t0)
	}
	for n := range byte(lostAfter) {
		g.Silent(at(0x60+n), t0)
	}
	if s := g.Status(t0); s.Mode6 != ZeroWindow {
		t.Errorf("in a crowd by IPv6 %v", s.Mode6)
	}
}
