package sealed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/sock"
)

func addressesAt(list ...string) (out []netip.AddrPort) {
	for _, a := range list {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(a), 4600))
	}
	return out
}

// TestAddresses: a gateway's address is used as it is given, and a name's are tried by turns
// of either IP version.
func TestAddresses(t *testing.T) {
	d := NewDialer(DialerOptions{Remote: "192.0.2.1:4600"})
	if at, err := d.addresses(t.Context()); err != nil || !slices.Equal(at, addressesAt("192.0.2.1")) {
		t.Errorf("%v, %v", at, err)
	}
	var found []netip.Addr
	var failed error
	d = NewDialer(DialerOptions{Remote: "gateway.test:4600", Look: func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" || host != "gateway.test" {
			t.Errorf("looks up %s of %s", network, host)
		}
		return found, failed
	}})
	for _, a := range addressesAt("2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1") {
		found = append(found, a.Addr())
	}
	if at, err := d.addresses(t.Context()); err != nil || !slices.Equal(at, addressesAt("2001:db8::1", "192.0.2.1", "2001:db8::2")) {
		t.Errorf("%v, %v", at, err)
	}
	found = nil
	if _, err := d.reach(t.Context()); err == nil || err.Error() != "cannot find the address of gateway.test: the name has none" {
		t.Error(err)
	}
	if failed = errors.New("no such host"); true {
		if _, err := d.reach(t.Context()); !errors.Is(err, failed) {
			t.Error(err)
		}
	}
}

// TestFirst: addresses that do not answer cost two seconds each at most, a dead IP version 300
// ms, those that refuse nothing; the first connection counts, and no other is left open.
func TestFirst(t *testing.T) {
	dead, refused := errors.New("dead"), errors.New("refused")
	for name, c := range map[string]struct {
		answers map[string]error // nil: after 20 ms; no entry: after 3 s
		at      []netip.AddrPort
		want    string
		took    time.Duration
	}{
		"one":                {map[string]error{"192.0.2.1": nil}, addressesAt("192.0.2.1"), "192.0.2.1", 20 * time.Millisecond},
		"the first of two":   {map[string]error{"192.0.2.1": nil, "192.0.2.2": nil}, addressesAt("192.0.2.1", "192.0.2.2"), "192.0.2.1", 20 * time.Millisecond},
		"the first refuses":  {map[string]error{"192.0.2.1": refused, "192.0.2.2": nil}, addressesAt("192.0.2.1", "192.0.2.2"), "192.0.2.2", 40 * time.Millisecond},
		"the first is dead":  {map[string]error{"192.0.2.1": dead, "192.0.2.2": nil}, addressesAt("192.0.2.1", "192.0.2.2"), "192.0.2.2", aloneSame + 20*time.Millisecond},
		"IPv6 is dead":       {map[string]error{"2001:db8::1": dead, "192.0.2.1": nil}, addressesAt("2001:db8::1", "192.0.2.1"), "192.0.2.1", aloneOther + 20*time.Millisecond},
		"the first is slow":  {map[string]error{"192.0.2.2": dead}, addressesAt("192.0.2.1", "192.0.2.2"), "192.0.2.1", 3 * time.Second},
		"both are, together": {nil, addressesAt("2001:db8::1", "192.0.2.1"), "2001:db8::1", 3 * time.Second},
		"all refuse":         {map[string]error{"192.0.2.1": refused, "192.0.2.2": refused}, addressesAt("192.0.2.1", "192.0.2.2"), "refused", 40 * time.Millisecond},
		"all are dead":       {map[string]error{"192.0.2.1": dead, "192.0.2.2": dead}, addressesAt("192.0.2.1", "192.0.2.2"), "context deadline exceeded", sock.DialTimeout},
		"one is dead":        {map[string]error{"192.0.2.1": dead, "192.0.2.2": refused}, addressesAt("192.0.2.1", "192.0.2.2"), "refused", sock.DialTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			open := 0
			ctx, cancel := context.WithTimeout(t.Context(), sock.DialTimeout)
			defer cancel()
			begin := time.Now()
			conn, err := first(ctx, c.at, func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
				err, quick := c.answers[at.Addr().String()]
				takes := 20 * time.Millisecond
				switch {
				case !quick:
					takes = 3 * time.Second
				case err == dead:
					takes = time.Hour
				}
				select {
				case <-time.After(takes):
				case <-ctx.Done():
					if quick { // the other is just about to stand
						return nil, ctx.Err()
					}
				}
				if err != nil {
					return nil, err
				}
				mu.Lock()
				defer mu.Unlock()
				open++
				return &counted{at: at, closed: func() { open-- }}, nil
			})
			got := fmt.Sprint(err)
			if conn != nil {
				got = conn.(*counted).at.Addr().String()
				conn.Close()
			}
			if took := time.Since(begin); got != c.want || took != c.took || open != 0 {
				t.Errorf("%s: %s after %v, want %s after %v; %d are open", name, got, took, c.want, c.took, open)
			}
		})
	}
}

// counted is a connection that tells of its end.
type counted struct {
	net.Conn
	at     netip.AddrPort
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return nil
}
