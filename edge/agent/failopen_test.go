package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/simlink"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// TestUsable: the tunnel counts as down when its last link is silent for longer
// than the grace, or connected to a cloud that has been mute for long.
func TestUsable(t *testing.T) {
	r := newRig(t, 2)
	a, b := r.tunnels.uplinks[0], r.tunnels.uplinks[1]
	dead := func() bool {
		since := r.tunnels.deadSince.Load()
		return since != nil && time.Since(*since) >= deadGrace
	}
	a.served(1)
	b.served(1)
	for _, c := range []struct {
		what string
		do   func()
		dead bool // at once
	}{
		{"both links work", func() {}, false},
		{"one is silent", func() { r.tunnels.silent(0, true) }, false},
		{"the other, too", func() { r.tunnels.silent(1, true) }, false}, // the grace begins
		{"one speaks", func() { r.tunnels.silent(0, false) }, false},
		{"and is mute", func() { r.tunnels.mute(0, true) }, true},
		{"and answers", func() { r.tunnels.mute(0, false) }, false},
		{"and is lost", func() { a.served(-1) }, false},
		{"the silent one speaks", func() { r.tunnels.silent(1, false) }, false},
	} {
		began := time.Now()
		c.do()
		if down := dead(); down != c.dead && (!down || time.Since(began) < deadGrace) { // else the machine was busy
			t.Errorf("%s: down at once is %v", c.what, down)
		}
	}
	r.tunnels.silent(1, true)
	time.Sleep(deadGrace + 20*time.Millisecond)
	if !dead() {
		t.Error("up after the grace")
	}
}

// TestBackAtOnce: an edge without a hub that has let connections go around a dead tunnel
// is told in the moment in which a link speaks, not when it looks next.
func TestBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := &tunnels{term: newTerm(), log: slog.New(slog.DiscardHandler), sink: nowhere{}, budget: tunnel.NewBudget(1 << 20), ended: func(stream.Tunnel) {}, spoken: make(chan struct{}, 1)}
		ts.uplinks = []*uplink{newUplink(0, "lte", ts)}
		ctx, cancel := context.WithCancel(t.Context())
		down := make(chan bool, 100)
		go ts.whileDown(ctx, func(is bool) { down <- is })
		time.Sleep(pauseEvery)
		synctest.Wait()
		if !<-down {
			t.Fatal("up without a session")
		}
		time.Sleep(pauseEvery / 2)
		ts.join(ts.term, wire.Welcome{Version: wire.VersionMax})
		ts.uplinks[0].served(1)
		synctest.Wait()
		select {
		case is := <-down:
			if is {
				t.Error("down though a link speaks")
			}
		default:
			t.Error("not told that a link speaks")
		}
		cancel()
		ts.retire(ts.term)
		ts.wg.Wait()
	})
}

// TestUsableAndClocks: what goes around a dead tunnel goes on doing so although the clock
// is set back meanwhile.
func TestUsableAndClocks(t *testing.T) {
	r := newRig(t, 1)
	u := r.tunnels.uplinks[0]
	r.tunnels.join(r.tunnels.term, wire.Welcome{Version: wire.VersionMax})
	defer func() {
		r.tunnels.retire(r.tunnels.term)
		r.tunnels.wg.Wait()
	}()
	u.served(1)
	u.served(-1)
	later := time.Now().Add(2 * deadGrace)
	for _, seconds := range []int{0, 3600, -3600} {
		if r.tunnels.usable(simlink.Stepped(later, seconds)) {
			t.Errorf("with a clock set by %d s a dead tunnel can be used", seconds)
		}
	}
}

// TestUsableTogether: links that fall silent at the same moment, each found out by a
// goroutine of its own, leave the tunnel down, and one that speaks then brings it up.
func TestUsableTogether(t *testing.T) {
	r := newRig(t, 2)
	both := func(n int32) {
		var wg sync.WaitGroup
		for _, u := range r.tunnels.uplinks {
			wg.Go(func() { u.served(n) })
		}
		wg.Wait()
	}
	for i := range 20_000 {
		both(1)
		if r.tunnels.deadSince.Load() != nil {
			t.Fatalf("turn %d: down though both links work", i)
		}
		both(-1)
		if r.tunnels.deadSince.Load() == nil {
			t.Fatalf("turn %d: up though no link works", i)
		}
	}
}

// TestPauseFails: what keeps the host's rules from being changed is told once while it
// lasts, though it is tried ten times a second, and again when it had passed.
func TestPauseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := &agent{log: slog.New(slog.NewTextHandler(&out, nil))}
		failure := errors.New("iptables: resource temporarily unavailable")
		tell := a.pauser(func(bool) error { return failure })
		for range 2 {
			out.Reset()
			for range 1000 {
				tell(true)
				time.Sleep(pauseEvery)
			}
			if n := strings.Count(out.String(), "\n"); n != 1 || a.paused.Load() {
				t.Errorf("%d lines, paused is %v:\n%.300s", n, a.paused.Load(), &out)
			}
			failure = nil
			if tell(true); !a.paused.Load() {
				t.Error("not paused")
			}
			tell(false)
			failure = errors.New("iptables: resource temporarily unavailable")
		}
	})
}
