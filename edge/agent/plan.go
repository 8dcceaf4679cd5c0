package agent

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/names"
)

// plan says what the virtual host must be for a configuration. Where clouds are that
// are given by name shows later (whereabouts).
func plan(ctx context.Context, cfg *config.Edge) netns.Plan {
	p := netns.Plan{
		Role: netns.RoleEdge, Namespace: cfg.Namespace, Clients: cfg.Steer.Interfaces,
		Local: cfg.Steer.Local, Exclude: cfg.Steer.Exclude, Intercept: cfg.Steer.Intercept.String(),
	}
	p.Direct = cfg.Steer.Intercept == config.InterceptHub && (failOpen(cfg) || directPolicy(cfg))
	for _, r := range cfg.Steer.Ports {
		p.Ports = append(p.Ports, netns.PortRange{First: r.First, Last: r.Last})
	}
	known := knownNames(ctx, cfg)
	for _, l := range cfg.Links {
		r := netns.LinkRoute{Name: l.Name, Interface: l.Interface, Gateway: l.Gateway}
		var given bool
		if r.Cloud, given = l.Cloud.AddrPort(); !given {
			r.Cloud, r.Named, r.Known = netip.AddrPort{}, true, known[l.Cloud.Host]
		}
		p.Links = append(p.Links, r)
	}
	return p
}

// knownTime bounds what a start waits for a resolver.
const knownTime = 2 * time.Second

// knownNames are the addresses that clouds' names have now, where it matters: this
// host's own connections to them are not steered.
func knownNames(ctx context.Context, cfg *config.Edge) map[string][]netip.Addr {
	found := map[string][]netip.Addr{}
	if !cfg.Steer.Local {
		return found
	}
	ctx, cancel := context.WithTimeout(ctx, knownTime)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	seen := map[string]bool{}
	for _, l := range cfg.Links {
		host := l.Cloud.Host
		if _, given := l.Cloud.AddrPort(); given || seen[host] {
			continue
		}
		seen[host] = true
		asked.Go(func() {
			addrs, _ := names.System().LookupNetIP(ctx, "ip", host)
			mu.Lock()
			defer mu.Unlock()
			found[host] = addrs
		})
	}
	asked.Wait()
	return found
}
