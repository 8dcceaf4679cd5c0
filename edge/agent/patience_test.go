package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/wire"
)

// TestPatience: check soon says that a link is dead, and waits for a line of 10 kbit/s.
func TestPatience(t *testing.T) {
	const s, never = time.Second, time.Duration(0)
	type transport struct{ heard, done, over time.Duration } // over: wanted
	for _, c := range []struct {
		name      string
		tcp, quic transport
	}{
		{"dead", transport{over: 6 * s}, transport{over: 6 * s}},
		{"UDP blocked", transport{s / 10, s / 5, never}, transport{over: 6 * s}},
		{"TCP mangled", transport{heard: s / 10, over: 6 * s}, transport{s / 10, s / 5, never}},
		{"TCP mangled, 0.6 s away", transport{heard: s, over: 9 * s}, transport{s, 3 * s, never}},
		{"nothing large passes", transport{heard: s / 10, over: 20 * s}, transport{over: 20 * s}},
		{"10 kbit/s", transport{s, 8 * s, never}, transport{5 * s, 19 * s, never}},
		{"10 kbit/s, QUIC late", transport{s, 8 * s, never}, transport{7 * s, 19 * s, never}},
		{"10 kbit/s, UDP blocked", transport{s, 8 * s, never}, transport{over: 8 * s}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPatience()
			begin := time.Now()
			var both sync.WaitGroup
			defer both.Wait()
			for kind, k := range map[link.Transport]transport{link.TCP: c.tcp, link.QUIC: c.quic} {
				ctx := p.wait(t.Context(), kind)
				both.Go(func() {
					if k.heard > 0 {
						time.AfterFunc(k.heard, func() { p.hear(kind) })
					}
					after(ctx, k.done)
					p.done(kind, ctx.Err() == nil)
					if over := time.Since(begin); ctx.Err() == nil && k.over != never || ctx.Err() != nil && over != k.over {
						t.Errorf("%s: waited %v for %s, wanted %v", c.name, over, kind, k.over)
					}
				})
			}
		})
	}
}

// after waits for so long, or until ctx ends; 0: only that.
func after(ctx context.Context, d time.Duration) {
	var done <-chan time.Time
	if d > 0 {
		done = time.After(d)
	}
	select {
	case <-ctx.Done():
	case <-done:
	}
}

// TestCheckWaits: check waits for a slow line that answers.
func TestCheckWaits(t *testing.T) {
	const ms = time.Millisecond
	r := newRig(t, 0)
	r.answer(wire.StatusNoSession)
	far := r.far(150 * ms)
	for _, cloud := range []config.Endpoint{{Host: "localhost", Port: far.Port()}, {Addr: far.Addr(), Port: far.Port()}} {
		cfg := &config.Edge{Links: []config.Link{{Name: "a", Cloud: cloud, Transport: config.TransportTCP}}}
		cfg.Cloud.Key = r.cloud.Public()
		a := &agent{cfg: cfg, id: r.edge, started: time.Now()}
		p := newPatience()
		p.dead = 100 * ms
		run := a.try(p.wait(t.Context(), link.TCP), 0, plan(t.Context(), cfg).Links[0], link.TCP, p.hear)
		p.done(link.TCP, run.works())
		if !run.works() || run.took < p.dead {
			t.Errorf("cloud %v: %v after %v", cloud, run.err, run.took)
		}
	}
}

// TestCheckGivesUp: what check says where nothing comes back is what a dial would say.
func TestCheckGivesUp(t *testing.T) {
	mute, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	at := mute.LocalAddr().(*net.UDPAddr).AddrPort()
	cfg := &config.Edge{Links: []config.Link{{Name: "a", Cloud: config.Endpoint{Addr: at.Addr(), Port: at.Port()}, Transport: config.TransportQUIC}}}
	id, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{cfg: cfg, id: id, started: time.Now()}
	p := newPatience()
	p.dead = 100 * time.Millisecond
	run := a.try(p.wait(t.Context(), link.QUIC), 0, plan(t.Context(), cfg).Links[0], link.QUIC, p.hear)
	p.done(link.QUIC, false)
	if !errors.Is(run.err, link.ErrSilent) || !strings.HasSuffix(run.err.Error(), "tls handshake: no answer in time") {
		t.Errorf("got %v", run.err)
	}
}
