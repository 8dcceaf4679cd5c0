package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/names"
	"hawser/pkg/relay"
	"hawser/pkg/sealed"
	"hawser/pkg/sock"
)

// Far is the gateway, one run at a time.
type Far struct{ running atomic.Pointer[far] }

// far is a running gateway.
type far struct {
	side
	conf     atomic.Pointer[config.CloudRelay] // of which take replaces the clients
	listen   netip.AddrPort
	services []*service
	gate     *sealed.Gate

	takenOver atomic.Pointer[admin.Taken]
}

// Run works until ctx ends (then it returns nil) or something fails for good.
func (r *Far) Run(ctx context.Context, cfg *config.CloudRelay, id identity.Key, log *slog.Logger) error {
	return r.run(ctx, cfg, id, log, names.System().LookupNetIP)
}

func (r *Far) run(ctx context.Context, cfg *config.CloudRelay, id identity.Key, log *slog.Logger, look lookup) error {
	f := &far{side: side{role: card.Cloud, cfg: &cfg.Box, id: id, log: log, started: time.Now()}, listen: local(cfg.Listen)}
	f.conf.Store(cfg)
	for i, s := range cfg.Services {
		f.services = append(f.services, newService(i, s, look, log))
	}
	f.names(func(s *service) { s.follow(ctx) })
	certificate, err := id.Certificate(f.started)
	if err != nil {
		return err
	}
	if err := f.reserve(f.status); err != nil {
		return err
	}
	if err := free("listen", f.listen); err != nil {
		f.release()
		return fmt.Errorf("%w: %s", err, remedyListen)
	}
	if err := f.build(f.open); err != nil {
		f.release()
		return err
	}
	f.gate = sealed.NewGate(sealed.GateOptions{Certificate: certificate, Clients: f.clients(cfg.Clients), Ports: f.ports, Counters: &f.counters, Log: log, Most: f.workers.MostFlows()})
	log.Info("relay runs", "listen", f.listen, "services", len(cfg.Services), "workers", f.workers.Count(), "key", id.String())
	r.running.Store(f)
	defer r.running.Store(nil)
	err = f.side.run(ctx, func(ctx context.Context) error {
		f.names(func(s *service) { s.keep(ctx) })
		return nil
	})
	f.gate.Close()
	return err
}

// clients says who may reach which server.
func (f *far) clients(from []config.RelayClient) map[[32]byte]sealed.Client {
	servers := map[string]*sealed.Server{}
	for _, s := range f.services {
		servers[s.Name] = s.server
	}
	clients := map[[32]byte]sealed.Client{}
	for _, c := range from {
		one := sealed.Client{Name: c.Name, Services: c.Services}
		for _, s := range c.Services {
			one.Servers = append(one.Servers, servers[s])
		}
		clients[c.Key] = one
	}
	return clients
}

// names does something with all services that are given by name, at once, and
// returns when it is done.
func (f *far) names(do func(*service)) {
	var wg sync.WaitGroup
	for _, s := range f.services {
		if s.named() {
			wg.Go(func() { do(s) })
		}
	}
	wg.Wait()
}

// open opens one worker's listener.
func (f *far) open(port *sealed.Port, p *sock.Poller, _ *relay.Worker) ([]*sock.Listener, error) {
	l, err := sock.ListenGreeted(p, f.listen, func(c *sock.Conn) { f.gate.Greet(port, c) })
	if err != nil {
		return nil, fmt.Errorf("listen: %w: %s", err, remedyListen)
	}
	return []*sock.Listener{l}, nil
}

// status is the document behind the control socket. It has a session for each client that
// is configured, in their order: one that is not there has one that is down, and its
// connections go on.
func (f *far) status() admin.Status {
	st := f.describe()
	st.Taken = f.takenOver.Load()
	for _, c := range f.conf.Load().Clients {
		now := f.gate.Client(c.Key)
		s := admin.Session{Peer: c.Name, Key: identity.EncodePublic(c.Key), State: "down", Since: now.Since, Links: []admin.Link{}}
		if now.Up {
			s.State, s.Protocol = "up", st.Protocol
		}
		s.Flows.Opened, s.Flows.Open = now.Joined, now.Open
		s.Counters = map[string]uint64{"flows_crowded": now.Crowded}
		st.Sessions = append(st.Sessions, s)
	}
	return st
}

// CheckFar finds out whether Far.Run would work. It changes nothing.
func CheckFar(ctx context.Context, cfg *config.CloudRelay, _ identity.Key) []admin.Finding {
	found := checkShared(&cfg.Box)
	for i, s := range cfg.Services {
		if _, ok := s.To.AddrPort(); ok {
			continue
		}
		if _, err := find(ctx, names.System().LookupNetIP, field(i), s.To); err != nil {
			found = append(found, admin.Finding{Level: admin.LevelWarn, What: err.Error(), Remedy: "mend the name's look-up, or give an address: connections to " + s.Name + " are reset until it is found"})
		}
	}
	return append(found, checkListen("listen", local(cfg.Listen)))
}
