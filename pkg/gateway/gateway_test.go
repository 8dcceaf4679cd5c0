package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// ample is the patience for what must happen, however busy the machine is.
const ample = time.Minute

func testKey(t *testing.T, fill string) identity.Key {
	t.Helper()
	k, err := identity.Generate(strings.NewReader(strings.Repeat(fill, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testBox(t *testing.T, name string) config.Box {
	t.Helper()
	return config.Box{Control: filepath.Join(t.TempDir(), name), Workers: 1, Memory: 64 << 20, Card: config.Card{Kind: config.CardInline, Queue: config.DefaultQueue}}
}

// loopback is a free port of the loopback interface.
func loopback(t *testing.T) config.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return config.Endpoint{Addr: at.Addr(), Port: at.Port()}
}

// during runs a side for as long as the test, which must then end without error.
func during(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(ample):
			t.Error("a side does not stop")
		}
	})
}

// echo is a server that says what it hears.
func echo(t *testing.T) config.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return config.Endpoint{Addr: at.Addr(), Port: at.Port()}
}

// named are both sides of a relay whose gateway is named so, with a service that echoes, and
// their keys.
func named(t *testing.T, host string) (far *config.CloudRelay, near *config.EdgeRelay, client, gateway identity.Key) {
	client, gateway = testKey(t, "c"), testKey(t, "g")
	listen, at := loopback(t), loopback(t)
	far = &config.CloudRelay{
		Box: testBox(t, "far"), Listen: listen,
		Services: []config.Service{{Name: "echo", To: echo(t)}},
		Clients:  []config.RelayClient{{Name: "bus", Key: client.Public(), Services: []string{"echo"}}},
	}
	near = &config.EdgeRelay{
		Box:     testBox(t, "near"),
		Gateway: config.Gateway{Address: config.Endpoint{Host: host, Port: listen.Port}, Key: gateway.Public(), KeepAlive: 45},
		Forward: []config.Forward{{Listen: at, Service: "echo"}},
	}
	return far, near, client, gateway
}

// TestGatewayByName: flows go where the gateway's name was found.
func TestGatewayByName(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	far, near, clientKey, gatewayKey := named(t, "localhost")
	at := near.Forward[0].Listen
	during(t, func(ctx context.Context) error { return new(Far).Run(ctx, far, gatewayKey, log) })
	during(t, func(ctx context.Context) error { return RunNear(ctx, near, clientKey, log) })
	var err error
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = says(netip.AddrPortFrom(at.Addr, at.Port), "hello"); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	usedAgain(t, netip.AddrPortFrom(at.Addr, at.Port), far.Control, near.Control)
}

// TestGatewayFoundElsewhere: a gateway whose name the system's resolver does not know is found
// as names are found where that is dead, by check, too, also behind an address of its that is.
func TestGatewayFoundElsewhere(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	far, near, clientKey, gatewayKey := named(t, "gateway.invalid")
	at := near.Forward[0].Listen
	look := func(_ context.Context, network, host string) ([]netip.Addr, error) {
		if network != "ip" || host != "gateway.invalid" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("127.9.9.9"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	during(t, func(ctx context.Context) error { return new(Far).Run(ctx, far, gatewayKey, log) })
	var found []admin.Finding
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found = checkNear(t.Context(), near, clientKey, look)
		if found[len(found)-1].Level == admin.LevelOK {
			break
		}
	}
	if last := found[len(found)-1]; !strings.HasPrefix(last.What, "gateway gateway.invalid:") || !strings.HasSuffix(last.What, "answers and accepts this client") {
		t.Errorf("check: %+v", last)
	}
	during(t, func(ctx context.Context) error { return runNear(ctx, near, clientKey, log, look) })
	var err error
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = says(netip.AddrPortFrom(at.Addr, at.Port), "hello"); err == nil {
			return
		}
	}
	t.Error(err)
}

// usedAgain holds that connections one after the other need one to the gateway.
func usedAgain(t *testing.T, at netip.AddrPort, controls ...string) {
	t.Helper()
	for end := time.Now().Add(ample); ; { // an end may not be through as the next one begins
		if err := says(at, "hello"); err != nil {
			t.Fatal(err)
		}
		st, err := admin.Fetch(t.Context(), controls[0])
		if err != nil {
			t.Fatal(err)
		}
		if st.Counters["relay_again"] >= 10 || time.Now().After(end) {
			break
		}
	}
	for _, c := range controls {
		st, err := admin.Fetch(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if n := st.Counters["relay_again"]; n < 10 || st.Counters["relay_tampered"]+st.Counters["relay_truncated"] > 0 {
			t.Errorf("%d of %d flows by a connection that an earlier one had left: %v", n, st.Counters["relay_joined"], st.Counters)
		}
	}
}

// TestCheckAsksGateway: check tells a client whether its gateway answers, whether it knows
// the client, and which service it does not grant.
func TestCheckAsksGateway(t *testing.T) {
	clientKey, gatewayKey := testKey(t, "c"), testKey(t, "g")
	far := &config.CloudRelay{
		Box: testBox(t, "far"), Listen: loopback(t),
		Services: []config.Service{{Name: "web", To: loopback(t)}, {Name: "mail", To: loopback(t)}},
		Clients:  []config.RelayClient{{Name: "bus", Key: clientKey.Public(), Services: []string{"web"}}},
	}
	near := &config.EdgeRelay{
		Box: testBox(t, "near"), Gateway: config.Gateway{Address: far.Listen, Key: gatewayKey.Public()},
		Forward: []config.Forward{{Listen: loopback(t), Service: "web"}, {Listen: loopback(t), Service: "mail"}},
	}
	// told are the findings about the gateway.
	told := func(key identity.Key) (all []string) {
		for _, f := range CheckNear(t.Context(), near, key) {
			if strings.Contains(f.What, "gateway") {
				all = append(all, string(f.Level)+" "+f.What)
			}
			if f.Level != admin.LevelOK && f.Remedy == "" {
				t.Errorf("no remedy: %s", f.What)
			}
		}
		return all
	}
	expect := func(when string, key identity.Key, want ...string) {
		t.Helper()
		got := told(key)
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %q", when, got, want)
			return
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q, want %q", when, got[i], want[i])
			}
		}
	}
	expect("nobody listens", clientKey, "connection refused")
	during(t, func(ctx context.Context) error {
		return new(Far).Run(ctx, far, gatewayKey, slog.New(slog.DiscardHandler))
	})
	for end := time.Now().Add(ample); ; time.Sleep(20 * time.Millisecond) {
		if got := told(clientKey); !strings.Contains(got[0], "refused") || time.Now().After(end) {
			break
		}
	}
	expect("without a key", identity.Key{})
	expect("a gateway", clientKey, "ok gateway "+far.Listen.String()+" answers and accepts this client", "warn forward[1].service: the gateway does not grant mail")
	expect("a stranger", testKey(t, "s"), "warn gateway "+far.Listen.String()+": the gateway refuses: this client's key "+testKey(t, "s").String()+" is not configured")
	near.Gateway.Key = testKey(t, "o").Public()
	expect("another gateway", clientKey, "warn gateway "+far.Listen.String()+": the gateway shows key "+gatewayKey.String())
}

// says sends a text and wants it back.
func says(at netip.AddrPort, text string) error {
	c, err := net.DialTimeout("tcp", at.String(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, len(text)))
	return err
}

// TestGatewayNotFoundYet: a client starts without a name service, says what it
// lacks and goes on; its check warns.
func TestGatewayNotFoundYet(t *testing.T) {
	cfg := &config.EdgeRelay{
		Box:     testBox(t, "near"),
		Gateway: config.Gateway{Address: config.Endpoint{Host: "gateway.invalid", Port: 4600}, Key: testKey(t, "g").Public()},
		Forward: []config.Forward{{Listen: loopback(t), Service: "web"}},
	}
	found := CheckNear(t.Context(), cfg, testKey(t, "c"))
	if last := found[len(found)-1]; last.Level != admin.LevelWarn || !strings.Contains(last.What, "gateway.invalid") {
		t.Errorf("check: %+v", last)
	}
	during(t, func(ctx context.Context) error {
		return RunNear(ctx, cfg, testKey(t, "c"), slog.New(slog.DiscardHandler))
	})
	var trouble string
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		st, err := admin.Fetch(t.Context(), cfg.Control)
		if err != nil {
			continue // not there yet
		}
		if trouble = st.Sessions[0].Links[0].LastError; strings.Contains(trouble, "gateway.invalid") {
			return
		}
	}
	t.Errorf("status says %q", trouble)
}

// TestOneRelayPerAddress: a second one does not share the address of the first, which
// the kernel would allow.
func TestOneRelayPerAddress(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), ample)
	defer cancel()
	near := func() *config.EdgeRelay {
		return &config.EdgeRelay{Box: testBox(t, "near"), Gateway: config.Gateway{Address: loopback(t), Key: testKey(t, "g").Public()}}
	}
	at := loopback(t)
	first, second := near(), near()
	first.Forward = []config.Forward{{Listen: at, Service: "web"}}
	second.Forward = []config.Forward{{Listen: loopback(t), Service: "web"}, {Listen: at, Service: "web"}}
	during(t, func(ctx context.Context) error { return RunNear(ctx, first, testKey(t, "c"), log) })
	for ctx.Err() == nil {
		if _, err := admin.Fetch(ctx, first.Control); err == nil {
			break // it runs
		}
		time.Sleep(5 * time.Millisecond)
	}
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := RunNear(soon, second, testKey(t, "d"), log); err == nil || !strings.HasPrefix(err.Error(), "forward[1].listen: ") {
		t.Errorf("a second client side on the same address: %v", err)
	}
	far := &config.CloudRelay{Box: testBox(t, "far"), Listen: at}
	soon, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := new(Far).Run(soon, far, testKey(t, "g"), log); err == nil || !strings.HasPrefix(err.Error(), "listen: ") {
		t.Errorf("a gateway on the same address: %v", err)
	}
}
