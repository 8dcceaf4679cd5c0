package agent

import (
	"context"
	"net/netip"
	"time"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/quiet"
)

const (
	// deadGrace is how long no link may speak before new connections go around
	// the tunnel. Most silences are shorter, and who has begun around the tunnel
	// stays there.
	deadGrace = 300 * time.Millisecond
	// pauseEvery is how often pauseWhileDown looks.
	pauseEvery = 100 * time.Millisecond
)

// failOpen says whether new connections go around the tunnel while it is down.
// Unless the file says so they do only where the host forwards for its clients
// anyway: no way is opened that was not open without us.
func failOpen(cfg *config.Edge) bool {
	if cfg.Steer.FailOpen != nil {
		return *cfg.Steer.FailOpen
	}
	return netns.Forwards(cfg.Steer.Interfaces)
}

// directPolicy says that some policy sends connections around the tunnel.
func directPolicy(cfg *config.Edge) bool {
	for _, p := range cfg.Policies {
		if p.Action == config.ActionDirect {
			return true
		}
	}
	return false
}

// direct says that a new connection goes around the tunnel. The workers call it.
func (a *agent) direct(client, server netip.AddrPort) bool {
	return a.policies.Load().Match(client.Addr(), server).Direct || a.failOpen && !a.tunnels.usable(time.Now())
}

// pauseWhileDown keeps an edge without a hub from taking connections that it
// has no tunnel for, until ctx ends.
func (a *agent) pauseWhileDown(ctx context.Context) error {
	a.tunnels.whileDown(ctx, a.pauser(a.host.PauseTaking))
	return nil
}

// pauser has connections taken or not. What fails is tried again each time that it is
// called, and told when it is news.
func (a *agent) pauser(pause func(bool) error) func(down bool) {
	var news quiet.News
	return func(down bool) {
		if err := pause(down); err != nil {
			if news.Fresh(err.Error(), time.Now()) {
				a.log.Error("fail-open", "error", err)
			}
			return
		}
		news.Forget()
		a.paused.Store(down)
	}
}

// whileDown tells now and then whether the tunnel is down, and at once that it no
// longer is, until ctx ends: who begins around it stays there.
func (t *tunnels) whileDown(ctx context.Context, tell func(down bool)) {
	look := time.NewTicker(pauseEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-t.spoken:
		}
		tell(!t.usable(time.Now()))
	}
}

// detour says whether new connections go around the tunnel now: by a hub it is
// decided for each, without one by the host's rules.
func (a *agent) detour() bool {
	if a.cfg.Steer.Intercept == config.InterceptTPROXY {
		return a.paused.Load()
	}
	return a.failOpen && !a.tunnels.usable(time.Now())
}

// usable says that new connections can go through the tunnel: there is a
// session, and one of its links speaks or did a moment ago.
func (t *tunnels) usable(now time.Time) bool {
	if s, _ := t.current(); s == nil {
		return false
	}
	since := t.deadSince.Load()
	return since == nil || now.Sub(*since) < deadGrace
}

// judge notes since when no link speaks. A cloud that is found mute has been so
// for longer than the grace. One at a time: who has looked before another link fell
// silent must not have the last word.
func (t *tunnels) judge() {
	t.judging.Lock()
	defer t.judging.Unlock()
	since, mute := time.Now(), false
	for u := range t.all {
		switch {
		case u.serves.Load() == 0 || u.silent.Load():
		case !u.mute.Load():
			t.deadSince.Store(nil)
			select {
			case t.spoken <- struct{}{}:
			default: // told already
			}
			return
		default:
			mute = true
		}
	}
	if mute {
		since = since.Add(-deadGrace)
	}
	t.deadSince.CompareAndSwap(nil, &since)
}

// served counts the connections of a link that are at work.
func (u *uplink) served(n int32) {
	u.serves.Add(n)
	u.tunnels.judge()
}
