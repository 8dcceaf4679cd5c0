package link

import (
	"context"
	"net"
	"net/netip"

	"hawser/pkg/names"
)

// NameServers dials name servers so that questions leave as the sockets of a link do: by its
// interface, with its mark. A host whose only routes are its uplinks', in tables of
// their own, can ask no other way. What runs on this host itself is asked as always.
func NameServers(device string, mark uint32) names.Dial {
	bound := net.Dialer{Control: socket{device: device, mark: mark}.control}
	return func(ctx context.Context, network, server string) (net.Conn, error) {
		if at, err := netip.ParseAddrPort(server); err == nil && at.Addr().IsLoopback() {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
		return bound.DialContext(ctx, network, server)
	}
}
