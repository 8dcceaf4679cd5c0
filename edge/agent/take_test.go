package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hawser/netns"
	"hawser/pkg/box"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/policy"
	"hawser/pkg/tunnel"
	"hawser/scheduler"
)

// TestChanges: what can be taken over, and that all else, alone or besides, cannot.
func TestChanges(t *testing.T) {
	base := func() *config.Edge {
		yes := true
		return &config.Edge{
			Links: []config.Link{{Name: "lte", Interface: "wwan0"}, {Name: "wifi", Interface: "wlan0"}},
			Steer: config.Steer{Interfaces: []string{"lan0"}, FailOpen: &yes},
		}
	}
	for name, c := range map[string]struct {
		change func(*config.Edge)
		want   string
	}{
		"nothing":       {func(*config.Edge) {}, ""},
		"another link":  {func(c *config.Edge) { c.Links = append(c.Links, config.Link{Name: "dsl"}) }, "links"},
		"one less":      {func(c *config.Edge) { c.Links = c.Links[:1] }, "links"},
		"a tier":        {func(c *config.Edge) { c.Links[0].Tier = config.TierStandby }, "links"},
		"the order":     {func(c *config.Edge) { slices.Reverse(c.Links) }, "links"},
		"policies":      {func(c *config.Edge) { c.Policies = []config.Policy{{Name: "guests"}} }, "policies"},
		"users":         {func(c *config.Edge) { c.Users.IPv4 = 24 }, "users"},
		"handshake":     {func(c *config.Edge) { c.Handshake = config.HandshakeFast }, "handshake"},
		"strict":        {func(c *config.Edge) { c.Handshake = config.HandshakeStrict }, ""},
		"client limits": {func(c *config.Edge) { c.Limits.PendingClient, c.Limits.OpenClient = 1, 2 }, "limits.pending_per_client limits.open_per_client"},
		"first flights": {func(c *config.Edge) { c.Limits.FirstFlights = 1 }, "limits.first_flights"},
		"other limits":  {func(c *config.Edge) { c.Limits.Pending = 1 }, ""},
		"exclude":       {func(c *config.Edge) { c.Steer.Exclude = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, "steer.exclude"},
		"ports":         {func(c *config.Edge) { c.Steer.Ports = []config.PortRange{{First: 80, Last: 80}} }, "steer.ports"},
		"hints":         {func(c *config.Edge) { c.Hints = "/run/hints" }, "hints"},
		"much":          {func(c *config.Edge) { c.Links, c.Hints, c.Users.IPv6 = c.Links[:1], "/x", 64 }, "links users hints"},
		"interfaces":    {func(c *config.Edge) { c.Steer.Interfaces = []string{"lan1"} }, ""},
		"fail open":     {func(c *config.Edge) { c.Steer.FailOpen = nil }, ""},
		"a cloud key":   {func(c *config.Edge) { c.Cloud.Key[0] = 1 }, ""},
		"memory":        {func(c *config.Edge) { c.Memory = 1 }, ""},
		"link and more": {func(c *config.Edge) { c.Links, c.Workers = c.Links[:1], 3 }, ""},
	} {
		next := base()
		c.change(next)
		if got := strings.Join(changes(base(), next), " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if got, err := new(Edge).Take(next); got != "" || err != nil {
			t.Errorf("%s: taken while nothing runs", name)
		}
	}
}

// taker is an edge at work whose links are on the loopback, without a host.
type taker struct {
	*rig
	edge  Edge
	agent *agent
	plan  netns.Plan // the host's
	fail  error      // why it cannot be changed
	wrong error      // what is found before

	carried atomic.Uint64 // by the second place's interface
}

func newTaker(t *testing.T, links ...config.Link) *taker {
	if os.Geteuid() != 0 {
		t.Skip("needs root: marks its sockets")
	}
	k := &taker{rig: newRig(t, 0)}
	cfg := k.config(links...)
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{
		cfg: cfg, present: cfg, id: k.rig.edge, log: slog.New(slog.DiscardHandler), started: time.Now(), places: map[string]int{},
		plan: plan(ctx, cfg), budget: k.tunnels.budget, working: ctx,
		lead:   func(p netns.Plan) error { k.plan = p; return k.fail },
		admits: func(netns.Plan) error { return k.wrong },
	}
	a.policies.Store(policy.New(nil, policy.Users{}))
	a.hints.Store(&cfg.Hints)
	var err error
	if a.workers, err = box.NewWorkers(box.Options{Role: card.Edge, Count: 1, Log: a.log, Rules: a.rules(cfg)}); err != nil {
		t.Fatal(err)
	}
	if err := a.makeTunnels(); err != nil {
		t.Fatal(err)
	}
	a.tunnels.sink, a.tunnels.ended = k.tunnels.sink, k.tunnels.ended
	a.quotas.begin(func() ([]*netns.Traffic, error) {
		return []*netns.Traffic{nil, {Index: 1, SentBytes: k.carried.Load()}}, nil
	})
	k.agent, k.tunnels = a, a.tunnels
	a.tunnels.begin(ctx)
	t.Cleanup(func() {
		cancel()
		a.tunnels.wait()
		if err := a.workers.Discard(); err != nil {
			t.Error(err)
		}
	})
	k.edge.running.Store(a)
	return k
}

func (k *taker) config(links ...config.Link) *config.Edge {
	cfg := &config.Edge{Box: config.Box{Memory: 1 << 30}, State: filepath.Join(k.t.TempDir(), "state")}
	cfg.Cloud.Key = k.cloud.Public()
	cfg.Steer.Interfaces = []string{"lan0"}
	no := false
	cfg.Steer.FailOpen = &no
	for _, l := range links {
		l.Cloud, l.Interface, l.Lanes, l.Weight = config.Endpoint{Addr: k.listener.Addr().Addr(), Port: k.listener.Addr().Port()}, "lo", max(l.Lanes, 1), 1
		cfg.Links = append(cfg.Links, l)
	}
	return cfg
}

// take takes links over, which must be said so, and waits until they stand.
func (k *taker) take(want string, links ...config.Link) {
	k.t.Helper()
	next := k.config(links...)
	next.State = k.agent.present.State
	if got, err := k.edge.Take(next); got != want || err != nil {
		k.t.Fatalf("taken over: %q, %v, want %q", got, err, want)
	}
	k.stand(links...)
}

func (k *taker) stand(links ...config.Link) {
	k.t.Helper()
	var names []string
	for i, u := range k.tunnels.list() {
		names = append(names, u.name)
		if entry, index := u.says(); index != i || entry.Name != u.name {
			k.t.Errorf("%s has entry %+v of index %d", u.name, entry, index)
		}
		k.eventually("the links", func() bool { return u.serves.Load() == 1 && !u.silent.Load() })
	}
	if len(names) != len(links) {
		k.t.Fatalf("links %q, want %+v", names, links)
	}
	for i, l := range links {
		if names[i] != l.Name {
			k.t.Errorf("links %q, want %+v", names, links)
		}
	}
}

// cloudSees waits until the cloud's session, the only one, has so many links, all of which
// are as they should be.
func (k *taker) cloudSees(n int, well func(tunnel.LinkStatus) bool) {
	k.t.Helper()
	k.mu.Lock()
	if len(k.clouds) != 1 {
		k.t.Fatalf("%d sessions", len(k.clouds))
	}
	var s *tunnel.Session
	for _, s = range k.clouds {
	}
	k.mu.Unlock()
	k.eventually("the cloud's links", func() bool {
		st, _ := s.Status()
		return len(st.Links) == n && !slices.ContainsFunc(st.Links, func(l tunnel.LinkStatus) bool { return !well(l) })
	})
}

// TestTakeLinks: links are added, removed, changed and come back, down to the last one, in
// one session; a link's figures go on under its name, and the cloud forgets who has gone.
func TestTakeLinks(t *testing.T) {
	tcp := func(name string) config.Link { return config.Link{Name: name, Transport: config.TransportTCP} }
	a, b, c := tcp("a"), tcp("b"), tcp("c")
	k := newTaker(t, a)
	k.stand(a)
	first := k.tunnels.list()[0]
	k.take("links (b added)", a, b)
	if k.tunnels.list()[0] != first || len(k.plan.Links) != 2 {
		t.Errorf("who stays is another one, of plan %+v", k.plan.Links)
	}
	up := func(l tunnel.LinkStatus) bool {
		return l.State == scheduler.Up && !l.Terms.Removed && !l.Terms.Leaving
	}
	k.cloudSees(2, up)
	b.Tier = config.TierStandby
	k.take("links (a removed, b changed)", b)
	k.cloudSees(1, func(l tunnel.LinkStatus) bool { return up(l) && l.ID == 1 && l.Terms.Tier == scheduler.Standby })
	if k.plan.Links[0].Name != "" || k.plan.Links[1].Name != "b" {
		t.Errorf("the host has %+v", k.plan.Links)
	}
	b.Transport = config.TransportQUIC
	k.take("links (b made anew)", b)
	k.cloudSees(1, func(l tunnel.LinkStatus) bool {
		return up(l) && l.Connections == 2 && l.Terms.Tier == scheduler.Standby
	})
	a.Lanes = 2
	k.take("links (a added)", a, b)
	k.cloudSees(3, up)
	a.Lanes = 1
	k.take("links (a made anew)", a, b)
	k.cloudSees(2, up)
	k.take("links", b, a)
	b.Quota, b.QuotaDay = 1e9, 1
	k.take("links (b changed)", b, a)
	k.carried.Store(5e9)
	k.agent.quotas.count(time.Now())
	if u := k.tunnels.list()[0]; u.quotaStatus(time.Now()).Used != 5e9 || u.termsNow().Tier != scheduler.LastResort {
		t.Errorf("a quota that came later: %+v", u.quotaStatus(time.Now()))
	}
	k.take("links (c added, b and a removed)", c)
	k.take("links (b added)", c, b)
	if b := k.tunnels.list()[1]; b.quotaStatus(time.Now()).Used != 5e9 || b.id != 1 {
		t.Errorf("who comes back has %+v and ID %d", b.quotaStatus(time.Now()), b.id)
	}
	b.Quota, b.QuotaDay = 0, 0
	k.take("links (b changed)", c, b)
	if u := k.tunnels.list()[1]; u.quotaStatus(time.Now()) != nil || u.termsNow().Tier != scheduler.Standby {
		t.Errorf("without its quota: %+v", u.termsNow())
	}
	k.cloudSees(2, up)
	if _, err := k.agent.hint([]byte(`{"link":"a","usable":true,"valid_s":1}`), time.Now()); err == nil {
		t.Error("a hint for a link that was removed")
	}
}

// TestTakeFails: a host that cannot be changed has the agent start anew, which undoes what
// was done; so has an end meanwhile. What no agent could start by has it go on as it was.
func TestTakeFails(t *testing.T) {
	a, b := config.Link{Name: "a", Transport: config.TransportTCP}, config.Link{Name: "b", Transport: config.TransportTCP}
	k := newTaker(t, a)
	k.stand(a)
	next := k.config(a, b)
	next.State = k.agent.present.State
	k.wrong = errors.New("another name")
	if got, err := k.edge.Take(next); got != "" || err != k.wrong || k.agent.present == next || len(k.plan.Links) > 2 {
		t.Errorf("what the host does not admit: %q, %v", got, err)
	}
	k.stand(a)
	k.wrong = nil
	file := k.config(a)
	file.State, file.Links[0].Quota = k.agent.present.State, 1e9
	if err := os.Mkdir(file.State, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := k.edge.Take(file); got != "" || err == nil {
		t.Errorf("a quota whose file is a directory: %q, %v", got, err)
	}
	k.stand(a)
	k.fail = errors.New("no room")
	if got, err := k.edge.Take(next); got != "" || err != nil || k.agent.takenOver.Load() != nil {
		t.Errorf("taken over: %q, %v", got, err)
	}
	k.fail = nil
	ended, end := context.WithCancel(context.Background())
	end()
	k.agent.working = ended
	if got, err := k.edge.Take(next); got != "" || err != nil {
		t.Errorf("at its end it has taken over %q, %v", got, err)
	}
}
