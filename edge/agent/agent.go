// Package agent is the edge: it wires the virtual host, the workers, the
// session with the cloud and the control socket, and starts and stops them in
// the right order.
//
// # Files
//
//   - agent: wires all of it; plan: the virtual host; tproxy: the same without a hub
//   - tunnel: the session; failopen: what clients do while there is none
//   - check, checklink: `check`; advice: what it says to do; patience: how long it waits
//   - status: the status document
//   - take: another configuration while connections go on; relink: uplinks that come, go or
//     change
//
// An uplink:
//   - uplink: keeps it connected; device: its interface; attempts: those of one race
//   - incumbent: when the old connection speaks again; brief: connections that end at once
//   - trial: TCP or QUIC, measured; thin: UDP that is policed
//   - whereabouts: addresses of the cloud's name; translation: NAT64
//   - quota: what it may carry in a month; statefile: that over a restart
//   - hint, hintfile: what other programs say of it
//
// # Goroutines
//
// Goroutines: Run owns one each for the workers (box.Workers.Run), the links
// (tunnels.run), the host's routes (netns.Host.Watch), the control socket
// (admin.Server.Run), metrics (metrics.Server.Run), the file of hints
// (watchHints) and quotas (quotas.watch), and returns after all have ended.
//
// Another configuration is taken over by who calls Edge.Take (take.go).
package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/metrics"
	"hawser/pkg/policy"
	"hawser/pkg/resume"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// agent is a running edge.
type agent struct {
	cfg     *config.Edge // of its start; take changes what of it may change
	id      identity.Key
	log     *slog.Logger
	started time.Time

	plan     netns.Plan
	host     *netns.Host
	lead     func(netns.Plan) error // has the host be what another plan says (netns.Host.Change)
	admits   func(netns.Plan) error // why that cannot be (netns.Host.Admits)
	workers  *box.Workers
	tunnels  *tunnels
	policies atomic.Pointer[policy.Table]
	hints    atomic.Pointer[string] // the path
	rehint   chan struct{}          // one slot: it has changed
	failOpen bool                   // new connections go around the tunnel while it is down
	paused   atomic.Bool            // without a hub: they do now
	quotas   *quotas
	memory   int64 // that it may take, in bytes
	budget   *tunnel.Budget
	counters link.Counters
	windows  *resume.Windows
	control  *admin.Server
	metrics  *metrics.Server

	takenOver atomic.Pointer[admin.Taken]
	taking    sync.Mutex // held while the agent starts and ends, and guards the following
	present   *config.Edge
	places    map[string]int  // in the host's plan, of all links that there ever were
	working   context.Context // nil: it does not
}

// Edge is the agent, one run at a time.
type Edge struct{ running atomic.Pointer[agent] }

// Run works until ctx ends (then it returns nil) or something fails for good.
// Whatever it changed on the host is undone when it returns.
func (e *Edge) Run(ctx context.Context, cfg *config.Edge, id identity.Key, log *slog.Logger) error {
	a := &agent{cfg: cfg, id: id, log: log, started: time.Now(), memory: box.Memory(cfg.Settings(), log), present: cfg, places: map[string]int{}, rehint: make(chan struct{}, 1)}
	a.taking.Lock()
	defer a.taking.Unlock()
	e.running.Store(a)
	defer e.running.Store(nil)
	return a.run(ctx)
}

func (a *agent) run(ctx context.Context) error {
	cfg := a.cfg
	a.budget = tunnel.NewBudget(box.Payload(a.memory, 0))
	a.control = &admin.Server{Path: cfg.Control, Source: a.status, Commands: map[string]admin.Command{"hint": a.takeHint}}
	a.metrics = box.Metrics(cfg.Settings(), a.status)
	a.policies.Store(policy.New(cfg.Policies, users(cfg)))
	a.hints.Store(&cfg.Hints)
	a.failOpen = failOpen(cfg)
	// Everything that can fail without touching the host comes first.
	if err := box.TryCard(cfg.Card); err != nil {
		return err
	}
	a.plan = plan(ctx, cfg)
	a.windows = box.Windows(a.log)
	defer a.windows.Close()
	if err := a.makeTunnels(); err != nil {
		return err
	}
	if err := a.control.Listen(); err != nil {
		return err
	}
	if err := a.metrics.Listen(); err != nil {
		a.control.Close()
		return err
	}
	if err := a.install(); err != nil {
		a.metrics.Close()
		a.control.Close()
		return err
	}
	err := a.work(ctx)
	return errors.Join(err, a.host.Close())
}

// makeTunnels prepares the links.
func (a *agent) makeTunnels() error {
	a.tunnels = &tunnels{log: a.log, budget: a.budget, term: newTerm(), spoken: make(chan struct{}, 1), kinds: box.Kinds(a.cfg.Scheduler)}
	for i, r := range a.plan.Links {
		a.places[r.Name] = i
		u, err := a.uplink(i, r, a.cfg.Links[i])
		if err != nil {
			return err
		}
		u.index = i
		a.tunnels.uplinks = append(a.tunnels.uplinks, u)
	}
	var err error
	a.quotas, err = newQuotas(a.cfg, a.tunnels.uplinks, a.log)
	return err
}

// uplink makes the link that has a place in the host's plan.
func (a *agent) uplink(place int, r netns.LinkRoute, l config.Link) (*uplink, error) {
	u, d, err := a.lane(place, 0, r, l)
	if err != nil {
		return nil, err
	}
	u.terms = tunnel.LinkTerms{Serial: 1, Tier: scheduler.Tier(l.Tier), Weight: l.Weight}
	u.chooser.trials = trialsEvery(time.Duration(l.TrialSeconds) * time.Second)
	if l.Transport == config.TransportAuto {
		u.chooser.dialer = d
	}
	for n := 1; n < l.Lanes; n++ {
		lane, _, err := a.lane(place, n, r, l)
		if err != nil {
			return nil, err
		}
		lane.terms, lane.chooser.trials = u.terms, u.chooser.trials
		lane.advise = u.advise
		u.lanes = append(u.lanes, lane)
	}
	return u, nil
}

// lane makes a lane of a link and its dialer.
func (a *agent) lane(place, n int, r netns.LinkRoute, l config.Link) (*uplink, *link.Dialer, error) {
	index := wire.LinkIndex(place, n)
	u := newUplink(int(index), r.Name, a.tunnels)
	u.entry = l
	u.where = newWhereabouts(l, func() (four, six bool) { return u.versions(r) })
	d, err := a.dialer(l, index, r, u.where, nil)
	if err != nil {
		return nil, nil, err
	}
	u.dial, u.hears = d.Dial, d.Hears
	u.advise = func(err error) string {
		l, index := u.says()
		return advice(err, index, l, around(r))
	}
	if n > 0 {
		u.log = u.log.With("lane", n+1)
	}
	return u, d, nil
}

// dialer makes the dialer of a lane of a link; where is nil if the cloud's address is given and can be used as it is.
func (a *agent) dialer(l config.Link, index uint16, r netns.LinkRoute, where *whereabouts, heard func(link.Transport)) (*link.Dialer, error) {
	certificate, err := a.id.Certificate(a.started)
	if err != nil {
		return nil, err
	}
	o := link.DialerOptions{
		Link: r.Name, Index: index, Remote: r.Cloud, Interface: r.Interface, Mark: netns.BypassMark,
		Transport:   link.Transport(l.Transport.String()),
		Certificate: certificate, PeerKey: peerKey, CloudKey: a.cfg.Cloud.Key, Counters: &a.counters, Windows: a.windows, Heard: heard,
	}
	if where != nil {
		o.Where = where.next
	}
	return link.NewDialer(o)
}

// install changes the host and builds the workers; on failure nothing stays.
func (a *agent) install() error {
	intercept := a.installHub
	if a.cfg.Steer.Intercept == config.InterceptTPROXY {
		intercept = a.installTransparent
	}
	if err := intercept(); err != nil {
		return err
	}
	a.tunnels.sink, a.tunnels.ended = a.workers, a.workers.Forget
	return nil
}

// installHub changes the host first: the workers work on the hub.
func (a *agent) installHub() error {
	var err error
	if a.host, err = netns.Install(a.plan, a.log); err != nil {
		return err
	}
	o := a.options()
	o.Host = a.host
	if a.plan.Direct {
		o.Direct = a.direct
	}
	if a.workers, err = box.NewWorkers(o); err != nil {
		return errors.Join(err, a.host.Close())
	}
	return nil
}

// options are what the workers need however they take connections.
func (a *agent) options() box.Options {
	return box.Options{
		Role: card.Edge, Count: a.cfg.Workers, Adapt: true, Memory: a.memory, Budget: a.budget, Log: a.log,
		Session: a.session, Rules: a.rules(a.cfg), NoCompress: a.cfg.Compress == config.CompressOff, Card: a.cfg.Card,
	}
}

// rules are what a configuration says of clients' connections.
func (a *agent) rules(cfg *config.Edge) box.Rules {
	return box.Rules{Policies: a.policies.Load(), Handshake: cfg.Handshake, Limits: cfg.Limits, Strict: box.StrictDestinations(cfg.Policies)}
}

func users(cfg *config.Edge) policy.Users {
	return policy.Users{Bits4: cfg.Users.IPv4, Bits6: cfg.Users.IPv6}
}

// session is the tunnel for a new client connection.
func (a *agent) session() stream.Tunnel {
	if s, _ := a.tunnels.current(); s != nil {
		return s
	}
	return nil
}

// work runs everything until ctx ends or a part fails. The order of the end:
// flows are reset, the session says goodbye, then the stacks send their last
// resets.
func (a *agent) work(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts, stopParts := context.WithCancel(context.Background())
	linksCtx, stopLinks := context.WithCancel(context.Background())
	var wg, links sync.WaitGroup
	errs := make(chan error, 7)
	part := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := run(parts); err != nil {
				errs <- err
				cancel(err)
			}
		})
	}
	part(a.workers.Run)
	part(func(ctx context.Context) error { return a.host.Watch(ctx, a.tunnels.event) })
	part(a.control.Run)
	if a.failOpen && a.cfg.Steer.Intercept == config.InterceptTPROXY {
		part(a.pauseWhileDown)
	}
	part(a.metrics.Run)
	part(a.watchHints)
	a.quotas.begin(a.host.Traffic)
	part(a.quotas.watch)
	a.tunnels.begin(linksCtx)
	links.Go(a.tunnels.wait)
	a.log.Info("edge runs", "links", len(a.cfg.Links), "workers", a.workers.Count(), "intercept", a.plan.Intercept, "key", a.id.String())
	a.working, a.lead, a.admits = ctx, a.host.Change, a.host.Admits
	a.taking.Unlock()
	<-ctx.Done()
	a.taking.Lock() // what is being taken over ends first
	a.working = nil
	a.log.Info("edge stops")
	a.workers.StopFlows()
	stopLinks()
	links.Wait()
	stopParts()
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}
