package egress

import (
	"net/netip"
	"testing"
	"time"

	"hawser/pkg/stream"
)

var (
	t0  = time.Unix(1000, 0)
	web = netip.MustParseAddrPort("192.0.2.1:80")
)

func port(n int) netip.AddrPort { return netip.AddrPortFrom(web.Addr(), uint16(n)) }
func host(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 80)
}

// TestRates: an edge and a server's address each have a rate, and a burst of
// two seconds of it; other edges and servers are not affected.
func TestRates(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		server func(i int) netip.AddrPort
		count  func(*Limiter) uint64
	}{
		"edge":             {Limits{EdgeRate: 10}, host, func(l *Limiter) uint64 { return l.Counts.Edge }},
		"server, any port": {Limits{ServerRate: 10}, port, func(l *Limiter) uint64 { return l.Counts.Server }},
	} {
		l := New(c.limits)
		dial := func(edge string, now time.Time, n int) (ok int) {
			for i := range n {
				if l.Ask(edge, c.server(i+1), now) == stream.CodeNone {
					l.End(edge, c.server(i+1), stream.CodeNone, now)
					ok++
				}
			}
			return ok
		}
		if n := dial("a", t0, 100); n != 20 {
			t.Errorf("%s: a burst of %d", name, n)
		}
		if n := dial("a", t0.Add(500*time.Millisecond), 100); n != 5 {
			t.Errorf("%s: %d after half a second", name, n)
		}
		if n := dial("a", t0.Add(time.Hour), 100); n != 20 {
			t.Errorf("%s: %d after an hour", name, n)
		}
		if c.count(l) != 80+95+80 {
			t.Errorf("%s: counted %+v", name, l.Counts)
		}
		if name == "edge" {
			if n := dial("b", t0.Add(time.Hour), 100); n != 20 {
				t.Errorf("another edge gets %d", n)
			}
		} else if l.Ask("a", host(1), t0.Add(time.Hour)) != stream.CodeNone {
			t.Error("another server is refused")
		}
	}
}

// TestOpen: attempts under way are bounded until they end.
func TestOpen(t *testing.T) {
	l := New(Limits{EdgeOpen: 3, ServerOpen: 2})
	ask := func(edge string, s netip.AddrPort, want stream.Code) {
		t.Helper()
		if got := l.Ask(edge, s, t0); got != want {
			t.Fatalf("%s to %v: %v, want %v", edge, s, got, want)
		}
	}
	ask("a", port(1), stream.CodeNone)
	ask("a", port(2), stream.CodeNone)
	ask("b", port(3), stream.CodeResources) // the server has two
	ask("a", host(1), stream.CodeNone)
	ask("a", host(2), stream.CodeResources) // the edge has three
	ask("b", host(2), stream.CodeNone)
	l.End("a", port(1), stream.CodeAbort, t0)
	ask("b", port(3), stream.CodeNone)
	ask("a", host(3), stream.CodeNone)
	if l.Counts.Open != 2 {
		t.Errorf("counted %+v", l.Counts)
	}
}

// TestRefusals: a refusal answers for the server for a while, longer each
// time, until it accepts or enough time has passed.
func TestRefusals(t *testing.T) {
	l := New(Limits{Memory: time.Second})
	now := t0
	refuse := func(lasts time.Duration) {
		t.Helper()
		if c := l.Ask("a", web, now); c != stream.CodeNone {
			t.Fatalf("at %v: %v", now.Sub(t0), c)
		}
		l.End("a", web, stream.CodeRefused, now)
		if c := l.Ask("b", web, now.Add(lasts-1)); c != stream.CodeRefused {
			t.Fatalf("the refusal is forgotten before %v: %v", lasts, c)
		}
		now = now.Add(lasts)
	}
	for _, d := range []time.Duration{1, 2, 4, 8, 8} {
		refuse(d * time.Second)
	}
	if l.Ask("a", port(81), now) != stream.CodeNone {
		t.Error("another port is refused")
	}
	if l.Ask("a", web, now) != stream.CodeNone {
		t.Fatal("not asked again")
	}
	l.End("a", web, stream.CodeNone, now)
	refuse(time.Second) // the first in a row again
	now = now.Add(time.Minute)
	l.Ask("a", host(1), now) // sweeps
	refuse(time.Second)
	if l.Counts.Recalled != 7 {
		t.Errorf("counted %+v", l.Counts)
	}
}

// TestBoundedMemory: a scan of the whole network does not fill the memory, and
// what is over is forgotten.
func TestBoundedMemory(t *testing.T) {
	l := New(Limits{EdgeRate: 1 << 30, ServerRate: 10, ServerOpen: 5, Memory: time.Second})
	for i := range most + 1000 {
		if c := l.Ask("a", host(i), t0); c != stream.CodeNone {
			t.Fatalf("host %d: %v", i, c)
		}
		l.End("a", host(i), stream.CodeUnreachable, t0)
	}
	if len(l.servers) > most || len(l.refused) > most {
		t.Errorf("%d servers, %d refusals are remembered", len(l.servers), len(l.refused))
	}
	l.Ask("b", web, t0.Add(time.Minute))
	if len(l.servers) != 1 || len(l.refused) != 0 || len(l.edges) != 1 {
		t.Errorf("after a minute %d servers, %d refusals, %d edges", len(l.servers), len(l.refused), len(l.edges))
	}
}

// TestUnkeptAccount: an attempt that began while there was no room for its server's
// account takes nothing from the one that the server has when it ends.
func TestUnkeptAccount(t *testing.T) {
	l := New(Limits{ServerOpen: 1})
	for i := range most {
		l.Ask("a", host(i), t0)
	}
	l.Ask("a", web, t0) // not kept
	for i := range most {
		l.End("a", host(i), stream.CodeNone, t0)
	}
	now := t0.Add(time.Minute)
	if c := l.Ask("b", web, now); c != stream.CodeNone {
		t.Fatal(c)
	}
	l.End("b", web, stream.CodeNone, now)
	l.End("a", web, stream.CodeNone, now)
	l.Ask("b", web, now)
	if c := l.Ask("b", web, now); c != stream.CodeResources {
		t.Errorf("a second attempt at once: %v", c)
	}
	l.End("b", web, stream.CodeNone, now)
	l.Ask("b", port(1), now.Add(time.Hour))
	l.End("b", port(1), stream.CodeNone, now.Add(time.Hour))
	l.Ask("b", host(1), now.Add(2*time.Hour))
	if len(l.servers) != 1 {
		t.Errorf("%d servers are remembered for good", len(l.servers))
	}
}
