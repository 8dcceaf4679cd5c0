package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/config"
)

// TestServiceByName: flows reach a server whose name has moved, whose first
// address does not answer, or whose name is found only later.
func TestServiceByName(t *testing.T) {
	dead, alive := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")
	for name, answers := range map[string][][]netip.Addr{ // by look-up, the last one for good
		"moves":            {{dead}, {alive}},
		"next address":     {{dead, alive}},
		"found afterwards": {nil, {alive}},
		"lost":             {{alive}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			at := startNamed(t, func(context.Context, string, string) ([]netip.Addr, error) {
				n := int(asked.Add(1))
				if found := answers[min(n, len(answers))-1]; found != nil {
					return found, nil
				}
				return nil, errors.New("no such host")
			})
			var err error
			for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if err = says(at, "hello"); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := says(at, "again"); err != nil {
					t.Errorf("after it was found: %v", err)
				}
			}
		})
	}
}

// startNamed runs both sides; behind what it returns is an echo server that
// the gateway knows by name.
func startNamed(t *testing.T, look lookup) netip.AddrPort {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	clientKey, gatewayKey := testKey(t, "c"), testKey(t, "g")
	listen, at := loopback(t), loopback(t)
	far := &config.CloudRelay{
		Box: testBox(t, "far"), Listen: listen,
		Services: []config.Service{{Name: "echo", To: config.Endpoint{Host: "echo.test", Port: echo(t).Port}}},
		Clients:  []config.RelayClient{{Name: "bus", Key: clientKey.Public(), Services: []string{"echo"}}},
	}
	near := &config.EdgeRelay{
		Box:     testBox(t, "near"),
		Gateway: config.Gateway{Address: listen, Key: gatewayKey.Public()},
		Forward: []config.Forward{{Listen: at, Service: "echo"}},
	}
	during(t, func(ctx context.Context) error { return runFar(ctx, far, gatewayKey, log, look) })
	during(t, func(ctx context.Context) error { return RunNear(ctx, near, clientKey, log) })
	return netip.AddrPortFrom(at.Addr, at.Port)
}

// TestFind: a name's addresses, in their order, and an error that names the field.
func TestFind(t *testing.T) {
	e := config.Endpoint{Host: "web.test", Port: 80}
	found, err := find(t.Context(), func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")}, nil
	}, "services[0].to", e)
	if err != nil || len(found) != 2 || found[1].String() != "192.0.2.1:80" {
		t.Errorf("%v, %v", found, err)
	}
	_, err = find(t.Context(), func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }, "services[0].to", e)
	if err == nil || err.Error() != "services[0].to: cannot find the address of web.test: the name has none" {
		t.Error(err)
	}
}
