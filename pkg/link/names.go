package link

import (
	"context"
	"net"
	"net/netip"
)

// Names returns a resolver whose questions leave as the sockets of a link do: by its
// interface, with its mark. A host whose only routes are its uplinks', in tables of
// their own, can ask no other way. What runs on this host itself is asked as always.
func Names(device string, mark uint32) *net.Resolver {
	bound := net.Dialer{Control: socket{device: device, mark: mark}.control}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, server string) (net.Conn, error) {
		if at, err := netip.ParseAddrPort(server); err == nil && at.Addr().IsLoopback() {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
		return bound.DialContext(ctx, network, server)
	}}
}
