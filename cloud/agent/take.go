package agent

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync/atomic"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// Cloud is the agent, one run at a time.
type Cloud struct{ running atomic.Pointer[agent] }

// Run works until ctx ends (then it returns nil) or something fails for good.
// Whatever it changed on the host is undone when it returns.
func (c *Cloud) Run(ctx context.Context, cfg *config.Cloud, id identity.Key, log *slog.Logger) error {
	a := newAgent(cfg, id, log)
	c.running.Store(a)
	defer c.running.Store(nil)
	return a.run(ctx)
}

// Take takes over another configuration, if it differs from that of the run in its edges
// alone, and says what it has taken over, "": nothing; it never fails. Who adds a train does not want to reset
// the others' connections. It may be called from any goroutine.
func (c *Cloud) Take(next *config.Cloud) (string, error) {
	a := c.running.Load()
	if a == nil || !takes(a.cfg, next) {
		return "", nil
	}
	a.sessions.take(next.Edges)
	a.takenOver.Store(&admin.Taken{At: time.Now(), What: "edges"})
	return "edges", nil
}

// takes says whether two configurations differ in their edges alone. Where there is one, it
// may have all places of the workers (tunnel.NewPlaces).
func takes(was, next *config.Cloud) bool {
	same := *next
	same.Edges = was.Edges
	return reflect.DeepEqual(&same, was) && len(next.Edges) > 1 == (len(was.Edges) > 1)
}

var errChanged = errors.New("its entry of edges has changed, or is no more")

// take replaces the edges that are served. The sessions of those whose entry is another one
// now, or none, end.
func (s *sessions) take(edges []config.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edges = edges
	for key, h := range s.byEdge {
		if e, ok := s.find(key); ok && reflect.DeepEqual(e, h.edge) {
			continue
		}
		h.cancel(errChanged)
		delete(s.byEdge, key) // nobody joins it while it ends
		s.left[key] = time.Now()
	}
	for key := range s.left {
		if _, ok := s.find(key); !ok {
			delete(s.left, key)
			delete(s.rivals, key)
		}
	}
}
