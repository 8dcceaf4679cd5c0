package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
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

// near is a running client side.
type near struct {
	side
	conf   *config.EdgeRelay
	listen []netip.AddrPort // by forward
	dialer *sealed.Dialer
}

// RunNear is the client side. It works until ctx ends (then it returns nil) or
// something fails for good.
func RunNear(ctx context.Context, cfg *config.EdgeRelay, id identity.Key, log *slog.Logger) error {
	return runNear(ctx, cfg, id, log, names.System().LookupNetIP)
}

func runNear(ctx context.Context, cfg *config.EdgeRelay, id identity.Key, log *slog.Logger, look lookup) error {
	n := &near{side: side{role: card.Edge, cfg: &cfg.Box, id: id, log: log, started: time.Now()}, conf: cfg}
	for _, f := range cfg.Forward {
		n.listen = append(n.listen, local(f.Listen))
	}
	certificate, err := id.Certificate(n.started)
	if err != nil {
		return err
	}
	if err := n.reserve(n.status); err != nil {
		return err
	}
	for i, at := range n.listen {
		if err := free(fmt.Sprintf("forward[%d].listen", i), at); err != nil {
			n.release()
			return fmt.Errorf("%w: %s", err, remedyListen)
		}
	}
	if err := n.build(n.open); err != nil {
		n.release()
		return err
	}
	n.dialer = sealed.NewDialer(sealed.DialerOptions{
		Remote: cfg.Gateway.Address.String(), Look: look, Certificate: certificate, Gateway: cfg.Gateway.Key, Ports: n.ports, Counters: &n.counters, Log: log,
	})
	log.Info("relay runs", "gateway", cfg.Gateway.Address, "forwards", len(cfg.Forward), "workers", n.workers.Count(), "key", id.String())
	return n.run(ctx, n.dialer.Run)
}

// open opens one worker's listeners, one per forward.
func (n *near) open(port *sealed.Port, p *sock.Poller, r *relay.Worker) (open []*sock.Listener, err error) {
	if after := n.conf.Gateway.KeepAlive; after > 0 {
		p.Idle = time.Duration(after) * time.Second
	}
	for i, at := range n.listen {
		service := n.conf.Forward[i].Service
		l, err := sock.Listen(p, at, func(c *sock.Conn) { n.take(c, service, port.Worker(), r) })
		if err != nil {
			return open, fmt.Errorf("forward[%d].listen: %w: %s", i, err, remedyListen)
		}
		open = append(open, l)
	}
	return open, nil
}

// take gives a client's connection to the worker. Without an association, or
// where it does not grant the service, it is reset.
func (n *near) take(c *sock.Conn, service string, worker int, r *relay.Worker) {
	a, _, _ := n.dialer.Current()
	if a == nil {
		n.counters.Refused.Add(1)
		c.Abort()
		return
	}
	i := slices.Index(a.Services, service)
	if i < 0 {
		n.counters.Refused.Add(1)
		n.log.Debug("connection refused: the gateway does not grant the service", "service", service)
		c.Abort()
		return
	}
	r.Accept(c, sealed.Service(i), c.Remote(), a.Lane(worker))
}

// status is the document behind the control socket.
func (n *near) status() admin.Status {
	st := n.describe()
	s := admin.Session{Peer: n.conf.Gateway.Address.String(), Key: identity.EncodePublic(n.conf.Gateway.Key), State: "down", Links: []admin.Link{}}
	a, since, trouble := n.dialer.Current()
	s.Since = since
	l := admin.Link{Name: "gateway", State: "down", Since: since, Transport: "tcp", Remote: s.Peer, LastError: trouble}
	if a != nil {
		s.State, l.State, s.Protocol = "up", "up", st.Protocol
	}
	s.Flows.Opened, s.Flows.Open = n.dialer.Flows()
	s.Links = append(s.Links, l)
	st.Sessions = append(st.Sessions, s)
	return st
}

// CheckNear finds out whether RunNear would work, and asks the gateway, unless id is zero.
// It changes nothing.
func CheckNear(ctx context.Context, cfg *config.EdgeRelay, id identity.Key) []admin.Finding {
	return checkNear(ctx, cfg, id, names.System().LookupNetIP)
}

func checkNear(ctx context.Context, cfg *config.EdgeRelay, id identity.Key, look lookup) []admin.Finding {
	found := checkShared(&cfg.Box)
	for i, f := range cfg.Forward {
		found = append(found, checkListen(fmt.Sprintf("forward[%d].listen", i), local(f.Listen)))
	}
	if _, ok := cfg.Gateway.Address.AddrPort(); !ok {
		if _, err := find(ctx, look, "gateway.address", cfg.Gateway.Address); err != nil {
			return append(found, admin.Finding{Level: admin.LevelWarn, What: err.Error(), Remedy: "mend the name's look-up, or give an address: nothing is carried until it is found"})
		}
	}
	if id.IsZero() {
		return found
	}
	return append(found, askGateway(ctx, cfg, id, look)...)
}

// askTime bounds how long the gateway is waited for.
const askTime = 5 * time.Second

// askGateway says whether the gateway answers, knows this client, and grants what is to be
// forwarded to it.
func askGateway(ctx context.Context, cfg *config.EdgeRelay, id identity.Key, look lookup) (found []admin.Finding) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var granted []string
	certificate, err := id.Certificate(time.Now())
	if err == nil {
		granted, err = sealed.NewDialer(sealed.DialerOptions{Remote: cfg.Gateway.Address.String(), Look: look, Certificate: certificate, Gateway: cfg.Gateway.Key}).Try(ctx)
	}
	if err != nil {
		return []admin.Finding{{Level: admin.LevelWarn, What: fmt.Sprintf("gateway %s: %v", cfg.Gateway.Address, err),
			Remedy: "start hawser-cloud relay there, let its port in, or correct the address and both keys: the relay goes on trying"}}
	}
	found = append(found, admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf("gateway %s answers and accepts this client", cfg.Gateway.Address)})
	for i, f := range cfg.Forward {
		if !slices.Contains(granted, f.Service) {
			found = append(found, admin.Finding{Level: admin.LevelWarn, What: fmt.Sprintf("forward[%d].service: the gateway does not grant %s: connections are reset", i, f.Service),
				Remedy: fmt.Sprintf("add %s to this client's services at the gateway, or name another", f.Service)})
		}
	}
	return found
}
