// Package agent is the cloud: it wires the virtual host, the workers, the
// listener with the edges' sessions and the control socket, and starts and
// stops them in the right order.
//
// Goroutines: Cloud.Run owns one each for the workers (box.Workers.Run), the
// listener (link.Listener.Run), the host's routes (netns.Host.Watch), probes
// after an interface's return (box.Prober.Run), the control socket (admin.Server.Run) and metrics (metrics.Server.Run); the sessions own theirs (see sessions).
// Run returns after all have ended.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/metrics"
	"hawser/pkg/resume"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// agent is a running cloud.
type agent struct {
	cfg     *config.Cloud
	id      identity.Key
	log     *slog.Logger
	started time.Time

	listener *link.Listener
	host     *netns.Host // nil with egress by kernel sockets
	workers  *box.Workers
	sessions *sessions
	memory   int64 // that it may take, in bytes
	budget   *tunnel.Budget
	counters link.Counters
	windows  *resume.Windows
	control  *admin.Server
	metrics  *metrics.Server

	takenOver atomic.Pointer[admin.Taken]
}

func newAgent(cfg *config.Cloud, id identity.Key, log *slog.Logger) *agent {
	a := &agent{cfg: cfg, id: id, log: log, started: time.Now(), memory: box.Memory(cfg.Settings(), log)}
	a.budget = tunnel.NewBudget(box.Payload(a.memory, 0))
	a.sessions = newSessions(cfg, a.budget, log)
	a.control = &admin.Server{Path: cfg.Control, Source: a.status}
	a.metrics = box.Metrics(cfg.Settings(), a.status)
	return a
}

func (a *agent) run(ctx context.Context) error {
	// Everything that can fail without touching the host comes first.
	if err := box.TryCard(a.cfg.Card); err != nil {
		return err
	}
	a.windows = box.Windows(a.log)
	defer a.windows.Close()
	if err := a.listen(ctx); err != nil {
		return err
	}
	defer a.listener.Close()
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
	if a.host != nil {
		err = errors.Join(err, a.host.Close())
	}
	return err
}

// listen opens the sockets that edges connect to.
func (a *agent) listen(ctx context.Context) error {
	certificate, err := a.id.Certificate(a.started)
	if err != nil {
		return err
	}
	a.listener, err = link.Listen(ctx, link.ListenOptions{
		Address: a.cfg.Listen.String(), Name: hostName(), Certificate: certificate, PeerKey: identity.PeerKey,
		Admitter: a.sessions, Counters: &a.counters, Windows: a.windows, Failed: a.sessions.failed, Unaccepted: a.sessions.unaccepted,
		Ahead: a.ahead(),
	})
	return err
}

// aheadPart is the part of memory that several edges' QUIC windows may grow by, all together. It
// is promised and hardly ever taken: what waits there is what came behind a lost packet.
const aheadPart = 2

// ahead is that in bytes; 0, for one edge, is no bound.
func (a *agent) ahead() int {
	if len(a.cfg.Edges) < 2 {
		return 0
	}
	return int(a.memory / aheadPart)
}

// hostName is what edges call this cloud.
func hostName() string {
	name, _ := os.Hostname()
	return spoken(name)
}

// spoken is a host's name, if a welcome may bear it: the kernel takes any bytes.
func spoken(name string) string {
	if name == "" || len(name) > wire.MaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "cloud"
	}
	return name
}

// install changes the host and builds the workers; on failure nothing stays.
func (a *agent) install() (err error) {
	var hub netns.Hub
	if a.cfg.Egress.Mode == config.EgressHub {
		if a.host, err = netns.Install(plan(a.cfg), a.log); err != nil {
			return err
		}
		hub = a.host.Hub()
	}
	a.workers, err = box.NewWorkers(box.Options{
		Role: card.Cloud, Count: a.cfg.Workers, Adapt: true, Memory: a.memory, Budget: a.budget, Host: a.host, Log: a.log,
		Allow: allows(a.cfg.Egress, hub), Egress: a.cfg.Egress.Limits, Shared: len(a.cfg.Edges) > 1, NoCompress: a.cfg.Compress == config.CompressOff, Card: a.cfg.Card,
	})
	if err != nil && a.host != nil {
		err = errors.Join(err, a.host.Close())
	}
	if err != nil {
		return err
	}
	a.sessions.sink, a.sessions.ended = a.workers, a.workers.Forget
	a.sessions.places = tunnel.NewPlaces(a.workers.Count(), a.workers.MostFlows(), a.cfg.Egress.Limits.EdgeFlows, len(a.cfg.Edges) > 1)
	return nil
}

// allows says which servers may be dialled. The hub's addresses are this host's own, as
// the loopback's are: who has denied these, and the host's others, does not know of them.
func allows(e config.Egress, hub netns.Hub) func(netip.Addr) bool {
	own, loopback := []netip.Addr{hub.Host4, hub.Hub4, hub.Host6, hub.Hub6}, e.Allows(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	return func(addr netip.Addr) bool {
		return e.Allows(addr) && (loopback || !slices.Contains(own, addr.Unmap()))
	}
}

func plan(cfg *config.Cloud) netns.Plan {
	return netns.Plan{Role: netns.RoleCloud, Namespace: cfg.Namespace, Masquerade: true}
}

// work runs everything until ctx ends or a part fails. The order of the end:
// no more connections, flows are reset, the sessions say goodbye, then the
// stacks send their last resets.
func (a *agent) work(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts, stopParts := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	errs := make(chan error, 6)
	part := func(ctx context.Context, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				errs <- err
				cancel(err)
			}
		})
	}
	part(parts, a.workers.Run)
	part(parts, a.control.Run)
	part(parts, a.metrics.Run)
	if a.host != nil {
		prober := a.workers.Prober()
		a.host.OnReturn(prober.Ask)
		part(parts, prober.Run)
		part(parts, func(ctx context.Context) error { return a.host.Watch(ctx, nil) })
	}
	part(ctx, a.listener.Run)
	a.log.Info("cloud runs", "listen", a.listener.Addr(), "workers", a.workers.Count(), "key", a.id.String())
	<-ctx.Done()
	a.log.Info("cloud stops")
	a.workers.StopFlows()
	a.sessions.stop()
	stopParts()
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}
