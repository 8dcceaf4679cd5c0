package agent

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// TestNoneBesideOneThatGoesOn: an attempt that hears from the cloud has the line for itself;
// others come when it hears nothing any more, and where the uplink was lost just now.
func TestNoneBesideOneThatGoesOn(t *testing.T) {
	for _, c := range []struct {
		name        string
		old         serving
		hears       bool
		after       time.Duration
		least, most int
	}{
		{"goes on", serving{}, true, 10 * time.Second, 1, 1},
		{"hears nothing", serving{}, false, 5 * time.Second, 8, 25},
		{"lost just now", serving{session: new(tunnel.Session)}, true, raceSoon - raceEager, 15, 70},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := newUplink(0, "lte", &tunnels{term: newTerm(), log: slog.New(slog.DiscardHandler)})
			var dialled atomic.Int32
			u.dial = func(ctx context.Context, _ wire.Hello) (*link.Conn, wire.Welcome, error) {
				dialled.Add(1)
				<-ctx.Done()
				return nil, wire.Welcome{}, ctx.Err()
			}
			u.hears = func() bool { return c.hears }
			ctx, cancel := context.WithTimeout(t.Context(), c.after)
			defer cancel()
			if _, err := u.race(ctx, c.old, 0); err == nil {
				t.Error("the race has been won")
			}
			if attempts := int(dialled.Load()); attempts < c.least || attempts > c.most {
				t.Errorf("%s: %d attempts in %v, want %d to %d", c.name, attempts, c.after, c.least, c.most)
			}
		})
	}
}
