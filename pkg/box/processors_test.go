package box

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"hawser/pkg/simlink"
)

// TestProcessors: after a second of little to do one processor is left, and at the
// end there are all again.
func TestProcessors(t *testing.T) {
	all := runtime.GOMAXPROCS(0)
	if all == 1 {
		t.Skip("there is only one processor")
	}
	p := newProcessors(all)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.run(ctx, slog.New(slog.DiscardHandler)) }()
	now := time.Now()
	for range 3 {
		now = now.Add(time.Hour) // of which the process has used milliseconds
		p.note(now)
	}
	if want := p.want.Load(); want != 1 {
		t.Errorf("%d processors wanted, want 1", want)
	}
	for runtime.GOMAXPROCS(0) != 1 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	if n := runtime.GOMAXPROCS(0); n != all {
		t.Errorf("%d processors afterwards, %d before", n, all)
	}
	if n := testing.AllocsPerRun(100, func() { now = now.Add(time.Hour); p.note(now) }); n != 0 {
		t.Errorf("%v allocations per look, want 0", n)
	}
}

// TestProcessorsAndClocks: the load is looked at although the clock is set.
func TestProcessorsAndClocks(t *testing.T) {
	for _, seconds := range []int{-86400, 86400} {
		p := newProcessors(2)
		now := time.Now()
		p.note(now)
		for range 3 {
			now = now.Add(time.Hour)
			p.note(simlink.Stepped(now, seconds))
		}
		if want := p.want.Load(); want != 1 {
			t.Errorf("after a clock was set by %d s %d processors are wanted for nothing", seconds, want)
		}
		p.probe.Stop()
	}
}
