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
	cfg     *config.Edge
	id      identity.Key
	log     *slog.Logger
	started time.Time

	plan     netns.Plan
	host     *netns.Host
	workers  *box.Workers
	tunnels  *tunnels
	policies *policy.Table
	failOpen bool        // new connections go around the tunnel while it is down
	paused   atomic.Bool // without a hub: they do now
	quotas   *quotas
	memory   int64 // that it may take, in bytes
	budget   *tunnel.Budget
	counters link.Counters
	windows  *resume.Windows
	control  *admin.Server
	metrics  *metrics.Server
}

// Run works until ctx ends (then it returns nil) or something fails for good.
// Whatever it changed on the host is undone when it returns.
func Run(ctx context.Context, cfg *config.Edge, id identity.Key, log *slog.Logger) error {
	a := &agent{cfg: cfg, id: id, log: log, started: time.Now(), memory: box.Memory(cfg.Settings(), log)}
	a.budget = tunnel.NewBudget(box.Payload(a.memory, 0))
	a.control = &admin.Server{Path: cfg.Control, Source: a.status, Commands: map[string]admin.Command{"hint": a.takeHint}}
	a.metrics = box.Metrics(cfg.Settings(), a.status)
	a.policies, a.failOpen = policy.New(cfg.Policies, policy.Users{Bits4: cfg.Users.IPv4, Bits6: cfg.Users.IPv6}), failOpen(cfg)
	// Everything that can fail without touching the host comes first.
	if err := box.TryCard(cfg.Card); err != nil {
		return err
	}
	a.plan = plan(ctx, cfg)
	a.windows = box.Windows(log)
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
		u, d, err := a.lane(i, 0, r)
		if err != nil {
			return err
		}
		u.terms = tunnel.LinkTerms{Serial: 1, Tier: scheduler.Tier(a.cfg.Links[i].Tier), Weight: a.cfg.Links[i].Weight}
		u.chooser.trials = trialsEvery(time.Duration(a.cfg.Links[i].TrialSeconds) * time.Second)
		if a.cfg.Links[i].Transport == config.TransportAuto {
			u.chooser.dialer = d
		}
		a.tunnels.uplinks = append(a.tunnels.uplinks, u)
		for n := 1; n < a.cfg.Links[i].Lanes; n++ {
			lane, _, err := a.lane(i, n, r)
			if err != nil {
				return err
			}
			lane.terms, lane.chooser.trials = u.terms, u.chooser.trials
			u.lanes = append(u.lanes, lane)
		}
	}
	var err error
	a.quotas, err = newQuotas(a.cfg, a.tunnels.uplinks, a.log)
	return err
}

// lane makes a lane of link i and its dialer.
func (a *agent) lane(i, n int, r netns.LinkRoute) (*uplink, *link.Dialer, error) {
	index := wire.LinkIndex(i, n)
	u := newUplink(int(index), r.Name, a.tunnels)
	u.where = newWhereabouts(a.cfg.Links[i], func() (four, six bool) { return u.versions(r) })
	d, err := a.dialer(i, index, r, u.where, nil)
	if err != nil {
		return nil, nil, err
	}
	u.dial, u.hears = d.Dial, d.Hears
	u.advise = func(err error) string {
		return advice(err, i, a.cfg.Links[i], around(r))
	}
	if n > 0 {
		u.log = u.log.With("lane", n+1)
	}
	return u, d, nil
}

// dialer makes the dialer of a lane of link i; where is nil if the cloud's address is given and can be used as it is.
func (a *agent) dialer(i int, index uint16, r netns.LinkRoute, where *whereabouts, heard func(link.Transport)) (*link.Dialer, error) {
	certificate, err := a.id.Certificate(a.started)
	if err != nil {
		return nil, err
	}
	o := link.DialerOptions{
		Link: r.Name, Index: index, Remote: r.Cloud, Interface: r.Interface, Mark: netns.BypassMark,
		Transport:   link.Transport(a.cfg.Links[i].Transport.String()),
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
		Session: a.session, Handshake: a.cfg.Handshake, Limits: a.cfg.Limits, Strict: box.StrictDestinations(a.cfg.Policies), Policies: a.policies, NoCompress: a.cfg.Compress == config.CompressOff, Card: a.cfg.Card,
	}
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
	if a.cfg.Hints != "" {
		part(a.watchHints)
	}
	if len(a.quotas.links) > 0 {
		a.quotas.begin(a.host.Traffic)
		part(a.quotas.watch)
	}
	links.Go(func() { a.tunnels.run(linksCtx) })
	a.log.Info("edge runs", "links", len(a.cfg.Links), "workers", a.workers.Count(), "intercept", a.plan.Intercept, "key", a.id.String())
	<-ctx.Done()
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
