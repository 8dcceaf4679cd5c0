package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// TestServiceNews: addresses that have their turns make a line each, not one each time; that
// the name is lost, and found again, is told each time.
func TestServiceNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		answer := netip.Addr{}
		s := newService(0, config.Service{Name: "web", To: config.Endpoint{Host: "web.test", Port: 80}}, func(context.Context, string, string) ([]netip.Addr, error) {
			if !answer.IsValid() {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{answer}, nil
		}, slog.New(slog.NewTextHandler(&out, nil)))
		look := func(what netip.Addr) {
			answer = what
			s.follow(t.Context())
			time.Sleep(lookupPause)
		}
		said := func(has, keeps int) {
			t.Helper()
			a, b := strings.Count(out.String(), "has its address"), strings.Count(out.String(), "keeps its address")
			if a != has || b != keeps {
				t.Errorf("%d and %d lines, want %d and %d:\n%s", a, b, has, keeps, &out)
			}
		}
		one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		for range 300 {
			look(one)
			look(other)
		}
		said(2, 0)
		look(netip.Addr{})
		look(netip.Addr{})
		said(2, 1)
		look(other)
		said(3, 1)
		look(netip.Addr{})
		said(3, 2)
	})
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
	during(t, func(ctx context.Context) error { return new(Far).run(ctx, far, gatewayKey, log, look) })
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
