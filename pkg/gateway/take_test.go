package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/config"
)

// TestTakeClients: a client that is added is let in, and who is there already notices nothing;
// one that is removed, or gets other services, loses its connections, and the others none.
func TestTakeClients(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	conf, near, clientKey, gatewayKey := named(t, "127.0.0.1")
	far := new(Far)
	during(t, func(ctx context.Context) error { return far.Run(ctx, conf, gatewayKey, log) })
	during(t, func(ctx context.Context) error { return RunNear(ctx, near, clientKey, log) })
	at := near.Forward[0].Listen
	reaches(t, netip.AddrPortFrom(at.Addr, at.Port))
	open, err := net.Dial("tcp", netip.AddrPortFrom(at.Addr, at.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	goesOn := func() {
		t.Helper()
		_ = open.SetDeadline(time.Now().Add(ample))
		if _, err := io.WriteString(open, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	goesOn()

	tram := testKey(t, "t")
	next := *conf
	next.Clients = append([]config.RelayClient{{Name: "tram", Key: tram.Public(), Services: []string{"echo"}}}, conf.Clients...)
	if got, err := far.Take(&next); got != "clients" || err != nil {
		t.Fatalf("a further client is not taken over: %v", err)
	}
	second := *near
	second.Box, second.Forward = testBox(t, "second"), []config.Forward{{Listen: loopback(t), Service: "echo"}}
	during(t, func(ctx context.Context) error { return RunNear(ctx, &second, tram, log) })
	at = second.Forward[0].Listen
	tramAt := netip.AddrPortFrom(at.Addr, at.Port)
	reaches(t, tramAt)
	goesOn()
	if st := far.running.Load().status(); st.Taken == nil || st.Taken.What != "clients" || len(st.Sessions) != 2 || st.Sessions[0].Peer != "tram" || st.Sessions[0].State != "up" {
		t.Errorf("status has %+v", st.Sessions)
	}

	renamed, without := next, *conf
	renamed.Clients = append([]config.RelayClient{{Name: "metro", Key: tram.Public(), Services: []string{"echo"}}}, conf.Clients...)
	for step, conf := range map[string]*config.CloudRelay{"with another name": &renamed, "removed": &without} {
		ended := atRest(t, tramAt)
		if got, err := far.Take(conf); got != "clients" || err != nil {
			t.Fatalf("%s: not taken over: %v", step, err)
		}
		ended(step)
		goesOn()
		if conf == &without {
			if err := says(tramAt, "hello"); err == nil {
				t.Error("who was removed is served")
			}
			_, _ = far.Take(&next)
		}
		reaches(t, tramAt)
		goesOn()
	}
}

// atRest has a connection to an echo that stands; ended waits until it is reset.
func atRest(t *testing.T, at netip.AddrPort) (ended func(step string)) {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(ample))
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return func(step string) {
		t.Helper()
		if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %d bytes, %v", step, n, err)
		}
	}
}

// reaches waits until what is said to a service comes back.
func reaches(t *testing.T, at netip.AddrPort) {
	t.Helper()
	var err error
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = says(at, "hello"); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// TestTakesClientsAlone: all else needs a new start.
func TestTakesClientsAlone(t *testing.T) {
	bus := config.RelayClient{Name: "bus", Key: [32]byte{1}, Services: []string{"a", "b"}}
	tram := config.RelayClient{Name: "tram", Key: [32]byte{2}, Services: []string{"a"}}
	less := config.RelayClient{Name: "bus", Key: [32]byte{1}, Services: []string{"a"}}
	other := config.RelayClient{Name: "bus", Key: [32]byte{3}, Services: []string{"a", "b"}}
	was := config.CloudRelay{Services: []config.Service{{Name: "a"}, {Name: "b"}}, Clients: []config.RelayClient{bus}}
	for name, c := range map[string]struct {
		change func(*config.CloudRelay)
		want   bool
	}{
		"one more":          {func(c *config.CloudRelay) { c.Clients = []config.RelayClient{tram, bus} }, true},
		"none":              {func(c *config.CloudRelay) { c.Clients = nil }, true},
		"another one":       {func(c *config.CloudRelay) { c.Clients = []config.RelayClient{tram} }, true},
		"a service less":    {func(c *config.CloudRelay) { c.Clients = []config.RelayClient{less, tram} }, true},
		"another key":       {func(c *config.CloudRelay) { c.Clients = []config.RelayClient{other, tram} }, true},
		"another service":   {func(c *config.CloudRelay) { c.Clients, c.Services = []config.RelayClient{bus, tram}, was.Services[:1] }, false},
		"another port, too": {func(c *config.CloudRelay) { c.Clients, c.Listen.Port = []config.RelayClient{bus, tram}, 1 }, false},
	} {
		next := was
		c.change(&next)
		if got := takes(&was, &next); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got, err := new(Far).Take(&was); got != "" || err != nil {
		t.Error("taken while nothing runs")
	}
}
