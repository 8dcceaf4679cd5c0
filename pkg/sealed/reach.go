package sealed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"hawser/pkg/names"
	"hawser/pkg/sock"
)

// How long one of a gateway's addresses is tried alone. The first of the other IP version
// waits less: a version is dead as a whole, more often than one address is (RFC 8305).
const (
	aloneSame  = 2 * time.Second
	aloneOther = 300 * time.Millisecond
)

// reach connects to the gateway, at the first of its addresses that answers.
func (d *Dialer) reach(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, sock.DialTimeout)
	defer cancel()
	at, err := d.addresses(ctx)
	if err != nil {
		return nil, err
	}
	return first(ctx, at, func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
		return (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext(ctx, "tcp", at.String())
	})
}

// addresses are the gateway's, by turns of either IP version, that of the resolver's first
// choice ahead.
func (d *Dialer) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(d.o.Remote); err == nil {
		return []netip.AddrPort{at}, nil
	}
	host, text, err := net.SplitHostPort(d.o.Remote)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	found, err := d.o.Look(ctx, "ip", host)
	if err == nil && len(found) == 0 {
		err = errors.New("the name has none")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find the address of %s: %w", host, err)
	}
	var at []netip.AddrPort
	for _, a := range names.InTurn(found, found[0].Unmap().Is6()) {
		at = append(at, netip.AddrPortFrom(a, uint16(port)))
	}
	return at, nil
}

// first dials addresses one after the other, each when the one before has failed or has had
// its time alone, and returns the first connection. All others are closed.
func first(ctx context.Context, at []netip.AddrPort, dial func(context.Context, netip.AddrPort) (net.Conn, error)) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result)
	running, begun := 0, 0
	defer func() {
		cancel()
		for range running {
			if r := <-results; r.conn != nil {
				r.conn.Close()
			}
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	var failed error
	for begun < len(at) || running > 0 {
		select {
		case <-next.C:
			if begun == len(at) {
				continue
			}
			one := at[begun]
			begun++
			running++
			go func() {
				conn, err := dial(ctx, one)
				results <- result{conn, err}
			}()
			next.Reset(alone(at, begun))
		case r := <-results:
			running--
			if r.err == nil {
				return r.conn, nil
			}
			if failed == nil || ctx.Err() == nil {
				failed = r.err
			}
			next.Reset(0)
		}
	}
	return nil, failed
}

// alone is how long the last of those that have begun is tried before the next one.
func alone(at []netip.AddrPort, begun int) time.Duration {
	if begun == 1 && len(at) > 1 && at[0].Addr().Is4() != at[1].Addr().Is4() {
		return aloneOther
	}
	return aloneSame
}
