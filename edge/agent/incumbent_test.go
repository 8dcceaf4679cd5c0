package agent

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
)

// TestRaceGoesOn: an old connection that speaks again, by TCP or QUIC, ends a race that
// has just begun, and no other: it is silent still, or the path was dead for so long that
// no attempt came through.
func TestRaceGoesOn(t *testing.T) {
	s := tunnel.New(tunnel.Config{Secret: make([]byte, 32), Sink: nowhere{}, Budget: tunnel.NewBudget(1 << 20), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	for _, by := range []link.Transport{link.TCP, link.QUIC} {
		for _, k := range []struct {
			silent bool
			raced  time.Duration
			over   bool
		}{{false, -time.Minute, true}, {true, -time.Minute, false}, {false, 2 * raceFirm, false}} {
			u := &uplink{}
			u.silent.Store(k.silent)
			i := incumbent{serving: serving{session: s, transport: by, ended: make(chan struct{})}, uplink: u}
			if over := i.spoke(time.Now().Add(-k.raced)); over != k.over || (i.until != nil) != (!k.over && !k.silent) {
				t.Errorf("%s, silent %v, raced for %v: over %v, goes on for a while %v", by, k.silent, k.raced, over, i.until != nil)
			}
			if i.late() == k.silent {
				t.Errorf("%s, silent %v: late %v", by, k.silent, !k.silent)
			}
		}
	}
}
