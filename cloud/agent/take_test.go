package agent

import (
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/stream"
	"hawser/pkg/unit"
)

// TestTakeEdges: sessions of edges whose entry is as it was go on, the others end at once; an
// edge that is new has one.
func TestTakeEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		defer s.stop()
		var ended atomic.Int32
		s.ended = func(stream.Tunnel) { ended.Add(1) }
		s.take([]config.Client{
			{Name: "train", Key: [32]byte{1}, Policies: []config.Policy{{Name: "crew"}}}, {Name: "bus", Key: [32]byte{2}},
			{Name: "tram", Key: [32]byte{3}}, {Name: "ship", Key: [32]byte{4}},
		})
		secrets := map[byte][32]byte{}
		for key := byte(1); key <= 4; key++ {
			a, err := s.Admit(hello(key, 7, false))
			if err != nil {
				t.Fatalf("edge %d: %v", key, err)
			}
			secrets[key] = a.Secret
		}
		s.take([]config.Client{
			{Name: "ferry", Key: [32]byte{5}}, {Name: "train", Key: [32]byte{1}, Policies: []config.Policy{{Name: "crew"}}},
			{Name: "coach", Key: [32]byte{2}}, {Name: "tram", Key: [32]byte{3}, Limit: unit.BitRate(1e6)},
		})
		if a, err := s.Admit(hello(1, 7, true)); err != nil || a.Secret != secrets[1] {
			t.Errorf("an edge whose entry is the same: %v", err)
		}
		for key, name := range map[byte]string{2: "coach", 3: "tram"} {
			if _, err := s.Admit(hello(key, 7, true)); !errors.Is(err, link.ErrNoSession) {
				t.Errorf("a changed edge's former session: %v", err)
			}
			if a, err := s.Admit(hello(key, 8, false)); err != nil || a.Edge != name {
				t.Errorf("a changed edge's next session: %+v, %v", a, err)
			}
		}
		if _, err := s.Admit(hello(4, 7, true)); !errors.Is(err, link.ErrUnknownEdge) {
			t.Errorf("an edge that is no longer there: %v", err)
		}
		if a, err := s.Admit(hello(5, 7, false)); err != nil || a.Edge != "ferry" {
			t.Errorf("a new edge: %+v, %v", a, err)
		}
		synctest.Wait()
		if n := ended.Load(); n != 3 {
			t.Errorf("%d sessions have ended, want those of three edges", n)
		}
		var names []string
		for _, session := range s.status() {
			names = append(names, session.Peer)
		}
		if want := []string{"ferry", "train", "coach", "tram"}; !slices.Equal(names, want) {
			t.Errorf("status has %q, want %q", names, want)
		}
		if len(s.left) != 2 || len(s.rivals) != 4 {
			t.Errorf("kept of edges: %v, %v", s.left, s.rivals)
		}
	})
}

// TestTakesEdgesAlone: all else needs a new start, and so does whether an edge is the only one.
func TestTakesEdgesAlone(t *testing.T) {
	edges := []config.Client{{Name: "train", Key: [32]byte{1}}, {Name: "bus", Key: [32]byte{2}}, {Name: "tram", Key: [32]byte{3}}}
	was := config.Cloud{Edges: edges[:2], Egress: config.Egress{Mode: config.EgressSocket}}
	for name, c := range map[string]struct {
		change func(*config.Cloud)
		want   bool
	}{
		"another edge": {func(c *config.Cloud) { c.Edges = edges }, true},
		"a limit": {func(c *config.Cloud) {
			c.Edges = []config.Client{edges[0], {Name: "bus", Key: [32]byte{2}, Limit: 1e6}}
		}, true},
		"only one edge":    {func(c *config.Cloud) { c.Edges = edges[:1] }, false},
		"another port":     {func(c *config.Cloud) { c.Edges, c.Listen.Port = edges, 1 }, false},
		"more memory":      {func(c *config.Cloud) { c.Memory = 1 }, false},
		"fewer for egress": {func(c *config.Cloud) { c.Egress.Limits.EdgeFlows = 1 }, false},
	} {
		next := was
		c.change(&next)
		cloud := new(Cloud)
		if got, err := cloud.Take(&next); got != "" || err != nil {
			t.Errorf("%s: taken while nothing runs", name)
		}
		cloud.running.Store(newAgent(&was, identity.Key{}, slog.New(slog.DiscardHandler)))
		if got, err := cloud.Take(&next); (got == "edges") != c.want || err != nil {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
