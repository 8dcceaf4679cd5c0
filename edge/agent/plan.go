package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"hawser/netns"
	"hawser/pkg/config"
)

// plan says what the virtual host must be for a configuration.
func plan(cfg *config.Edge) (netns.Plan, error) {
	p := netns.Plan{
		Role: netns.RoleEdge, Namespace: cfg.Namespace, Clients: cfg.Steer.Interfaces,
		Local: cfg.Steer.Local, Exclude: cfg.Steer.Exclude, Intercept: cfg.Steer.Intercept.String(),
	}
	p.Direct = cfg.Steer.Intercept == config.InterceptHub && (failOpen(cfg) || directPolicy(cfg))
	for _, r := range cfg.Steer.Ports {
		p.Ports = append(p.Ports, netns.PortRange{First: r.First, Last: r.Last})
	}
	for _, l := range cfg.Links {
		remote, err := resolve(l.Cloud)
		if err != nil {
			return p, fmt.Errorf("link %s: %w", l.Name, err)
		}
		p.Links = append(p.Links, netns.LinkRoute{Name: l.Name, Interface: l.Interface, Gateway: l.Gateway, Cloud: remote})
	}
	return p, nil
}

// resolve returns the address of a cloud that may be given by name.
func resolve(e config.Endpoint) (netip.AddrPort, error) {
	if ap, ok := e.AddrPort(); ok {
		return ap, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", e.Host)
	if err != nil || len(addrs) == 0 {
		return netip.AddrPort{}, fmt.Errorf("cloud: cannot resolve %q: give an address, or check the resolver: %w", e.Host, err)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), e.Port), nil
}
