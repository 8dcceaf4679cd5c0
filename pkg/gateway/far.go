package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/relay"
	"hawser/pkg/sealed"
	"hawser/pkg/sock"
)

// far is a running gateway.
type far struct {
	side
	conf   *config.CloudRelay
	listen netip.AddrPort
	gate   *sealed.Gate
}

// RunFar is the gateway. It works until ctx ends (then it returns nil) or
// something fails for good.
func RunFar(ctx context.Context, cfg *config.CloudRelay, id identity.Key, log *slog.Logger) error {
	f := &far{side: side{role: card.Cloud, cfg: &cfg.Box, id: id, log: log, started: time.Now()}, conf: cfg}
	clients, err := f.addresses(ctx)
	if err != nil {
		return err
	}
	certificate, err := id.Certificate(f.started)
	if err != nil {
		return err
	}
	if err := f.reserve(f.status); err != nil {
		return err
	}
	if err := f.build(f.open); err != nil {
		f.release()
		return err
	}
	f.gate = sealed.NewGate(sealed.GateOptions{Certificate: certificate, Clients: clients, Ports: f.ports, Counters: &f.counters, Log: log})
	log.Info("relay runs", "listen", f.listen, "services", len(cfg.Services), "workers", f.workers.Count(), "key", id.String())
	err = f.run(ctx, nil)
	f.gate.Close()
	return err
}

// addresses resolves what the file names.
func (f *far) addresses(ctx context.Context) (map[[32]byte]sealed.Client, error) {
	servers := map[string]netip.AddrPort{}
	for i, s := range f.conf.Services {
		a, err := resolve(ctx, fmt.Sprintf("services[%d].to", i), s.To)
		if err != nil {
			return nil, err
		}
		servers[s.Name] = a
	}
	clients := map[[32]byte]sealed.Client{}
	for _, c := range f.conf.Clients {
		one := sealed.Client{Name: c.Name, Services: c.Services}
		for _, s := range c.Services {
			one.Targets = append(one.Targets, servers[s])
		}
		clients[c.Key] = one
	}
	var err error
	f.listen, err = resolve(ctx, "listen", f.conf.Listen)
	return clients, err
}

// open opens one worker's listener.
func (f *far) open(port *sealed.Port, p *sock.Poller, _ *relay.Worker) ([]*sock.Listener, error) {
	l, err := sock.ListenGreeted(p, f.listen, func(c *sock.Conn) { f.gate.Greet(port, c) })
	if err != nil {
		return nil, fmt.Errorf("listen: %w: stop the program that has it, or change the address", err)
	}
	return []*sock.Listener{l}, nil
}

// status is the document behind the control socket.
func (f *far) status() admin.Status {
	st := f.describe()
	for _, a := range f.gate.Associations() {
		s := admin.Session{Peer: a.Peer, Key: identity.EncodePublic(a.Key), State: "up", Since: a.Since, Protocol: st.Protocol, Links: []admin.Link{}}
		s.Flows.Opened, s.Flows.Open = a.Flows()
		st.Sessions = append(st.Sessions, s)
	}
	return st
}

// CheckFar finds out whether RunFar would work. It changes nothing.
func CheckFar(ctx context.Context, cfg *config.CloudRelay, _ identity.Key) []admin.Finding {
	f := &far{conf: cfg}
	found := checkShared(&cfg.Box)
	if _, err := f.addresses(ctx); err != nil {
		return append(found, fails(err, "give an address, or mend the name's look-up"))
	}
	return append(found, checkListen("listen", f.listen))
}
