package egress

import (
	"testing"
	"time"

	"hawser/pkg/stream"
)

// TestSharedServer: an edge that asks a server as often as it can leaves others room there, in
// rate and in attempts under way, and has all that they leave.
func TestSharedServer(t *testing.T) {
	for name, limits := range map[string]Limits{
		"rate": {EdgeRate: 1000, ServerRate: 500, Shared: true},
		"open": {EdgeOpen: 1000, ServerOpen: 500, Shared: true},
	} {
		l := New(limits)
		took := map[string]int{}
		ask := func(edge string, now time.Time) {
			if l.Ask(edge, web, now) != stream.CodeNone {
				return
			}
			took[edge]++
			if limits.ServerOpen == 0 {
				l.End(edge, web, stream.CodeNone, now)
			}
		}
		const seconds, quiet = 10, 10
		for i := range seconds * 1000 {
			now := t0.Add(time.Duration(i) * time.Millisecond)
			ask("greedy", now)
			ask("greedy", now)
			if now.After(t0.Add(2*time.Second)) && i%(1000/quiet) == 0 {
				ask("quiet", now)
			}
		}
		if n := took["quiet"]; n < quiet*(seconds-2)-1 {
			t.Errorf("%s: %d of %d attempts of a quiet edge beside a greedy one", name, n, quiet*(seconds-2))
		}
		switch n := took["greedy"]; {
		case limits.ServerRate > 0 && n < limits.ServerRate*seconds*95/100:
			t.Errorf("%s: the greedy one has %d connections, the server takes %d", name, n, limits.ServerRate*seconds)
		case limits.ServerOpen > 0 && (n < limits.ServerOpen*70/100 || n > limits.ServerOpen*76/100):
			t.Errorf("%s: the greedy one has %d attempts of %d", name, n, limits.ServerOpen)
		}
		for range took["greedy"] {
			l.End("greedy", web, stream.CodeAbort, t0)
		}
		l.sweep(t0.Add(time.Hour))
		if s := l.servers[web.Addr()]; s != nil && s.by["greedy"] != nil {
			t.Errorf("%s: who has gone is remembered: %+v", name, s.by["greedy"])
		}
	}
}
