package agent

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// zone is a name server whose answer tests change.
type zone struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	takes time.Duration
	asked int
}

func (z *zone) set(err error, list ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs, z.err = addrs(list...), err
}

func (z *zone) look(ctx context.Context, _ string, _ func(netip.Addr) bool) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if !wait(ctx, nil, z.takes) {
		return nil, ctx.Err()
	}
	return z.addrs, z.err
}

// seek makes whereabouts that ask z, for an uplink with some IP versions.
func seek(t *testing.T, z *zone, four, six bool) *whereabouts {
	w := &whereabouts{host: "cloud.example.org", device: "wlan0", port: 7443, look: z.look, versions: func() (bool, bool) { return four, six }}
	w.nat64.look = new(zone).look
	ctx, cancel := context.WithCancel(t.Context())
	w.begin(ctx)
	t.Cleanup(func() { cancel(); w.wait() })
	return w
}

// given are the next n addresses.
func given(t *testing.T, w *whereabouts, n int) string {
	t.Helper()
	var out []string
	for range n {
		a, err := w.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a.Addr().String())
	}
	return strings.Join(out, " ")
}

// TestAddressesInTurn: attempts take all addresses of a version that the uplink has.
func TestAddressesInTurn(t *testing.T) {
	for name, c := range map[string]struct {
		four, six bool
		want      string
	}{
		"IPv4 alone": {true, false, "192.0.2.1 192.0.2.2 192.0.2.1 192.0.2.2"},
		"IPv6 alone": {false, true, "2001:db8::1 2001:db8::1 2001:db8::1 2001:db8::1"},
		"both":       {true, true, "2001:db8::1 192.0.2.1 192.0.2.2 2001:db8::1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			z := &zone{takes: time.Second}
			z.set(nil, "192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1", "192.0.2.1")
			if got := given(t, seek(t, z, c.four, c.six), 4); got != c.want || z.asked != 1 {
				t.Errorf("%s: %s, want %s; %d look-ups", name, got, c.want, z.asked)
			}
		})
	}
}

// TestNoAddress: the error names the name, the uplink and what to do; the name is
// looked up again soon, but not by every attempt.
func TestNoAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		w := seek(t, z, false, true)
		says := func(words ...string) {
			t.Helper()
			_, err := w.next(t.Context())
			for _, word := range append(words, "cloud.example.org", "wlan0") {
				if !errors.Is(err, errNowhere) || !strings.Contains(err.Error(), word) {
					t.Errorf("%q lacks %q", err, word)
				}
			}
		}
		z.set(errors.New("no such host"))
		says("no such host", "/etc/resolv.conf")
		says("no such host")
		z.set(nil, "192.0.2.1")
		time.Sleep(lookSoon)
		says("only IPv4", "no NAT64")
		z.set(nil, "2001:db8::1")
		time.Sleep(lookSoon)
		if got := given(t, w, 1); got != "2001:db8::1" || z.asked != 3 {
			t.Errorf("%s after %d look-ups", got, z.asked)
		}
		z.takes = time.Hour
		w = seek(t, z, true, true)
		begin := time.Now()
		says("deadline exceeded")
		if took := time.Since(begin); took != lookTime {
			t.Errorf("a resolver that does not answer is waited for for %v", took)
		}
	})
}

// TestNameMoves: attempts stay with the address that has worked, for a while, and the
// name is looked up again when none succeeds.
func TestNameMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.set(nil, "192.0.2.1", "192.0.2.2")
		w := seek(t, z, true, true)
		given(t, w, 2)
		w.works(netip.MustParseAddrPort("[::ffff:192.0.2.2]:7443"))
		time.Sleep(time.Hour)
		if got := given(t, w, stickTries); got != strings.TrimSpace(strings.Repeat("192.0.2.2 ", stickTries)) || z.asked != 1 {
			t.Errorf("where it was: %s, %d look-ups", got, z.asked)
		}
		z.set(nil, "198.51.100.1")
		given(t, w, 1) // asks, and does not wait
		synctest.Wait()
		if got := given(t, w, 1); got != "198.51.100.1" || z.asked != 2 {
			t.Errorf("after the move: %s, %d look-ups", got, z.asked)
		}
		z.set(errors.New("the resolver is out of reach"))
		time.Sleep(lookLater)
		given(t, w, 1)
		synctest.Wait()
		if got := given(t, w, 1); got != "198.51.100.1" || z.asked != 3 {
			t.Errorf("what was known: %s, %d look-ups", got, z.asked)
		}
	})
}

// TestLinkByName: a link connects where the first of its cloud's addresses is dead.
func TestLinkByName(t *testing.T) {
	r := newRig(t, 1)
	z := &zone{}
	z.set(nil, "127.9.9.9", "127.0.0.1")
	u := r.tunnels.uplinks[0]
	u.where = seek(t, z, true, true)
	u.where.port = r.listener.Addr().Port()
	certificate, _ := r.edge.Certificate(time.Now())
	d, err := link.NewDialer(link.DialerOptions{
		Link: "a", Where: u.where.next, Transport: link.TCP, Certificate: certificate, PeerKey: identity.PeerKey, CloudKey: r.cloud.Public(),
	})
	if err != nil {
		t.Fatal(err)
	}
	u.dial = d.Dial
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	r.eventually("the link, at the address that answers", func() bool {
		u.where.mu.Lock()
		defer u.where.mu.Unlock()
		return u.where.good.String() == "127.0.0.1"
	})
}

// TestCheckByName: check tries all addresses, and says what is wrong with a name; a
// start does not depend on the resolver.
func TestCheckByName(t *testing.T) {
	r := newRig(t, 0)
	for host, want := range map[string]admin.Level{"localhost": admin.LevelOK, "no-such-name.invalid": admin.LevelWarn} {
		cfg := &config.Edge{Links: []config.Link{{Name: "a", Cloud: config.Endpoint{Host: host, Port: r.listener.Addr().Port()}, Transport: config.TransportTCP}}}
		cfg.Cloud.Key = r.cloud.Public()
		a := &agent{cfg: cfg, id: r.edge, started: time.Now()}
		p := plan(t.Context(), cfg)
		if !p.Links[0].Named || p.Links[0].Cloud.IsValid() {
			t.Errorf("planned: %+v", p.Links[0])
		}
		if f := a.checkLink(t.Context(), 0, p.Links[0]); len(f) != 1 || f[0].Level != want || !strings.Contains(f[0].What, host) {
			t.Errorf("found: %+v", f)
		}
	}
}
