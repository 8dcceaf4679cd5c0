package agent

import (
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// TestBadCardChangesNothing: a card that cannot be had ends a run before anything
// else is looked at: this configuration has nothing else.
func TestBadCardChangesNothing(t *testing.T) {
	cfg := &config.Cloud{Box: config.Box{Card: config.Card{Kind: config.CardPool, CPUs: []int{1000}}}}
	err := new(Cloud).Run(t.Context(), cfg, identity.Key{}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "card.cpus: CPU 1000 ") {
		t.Error(err)
	}
}

// TestHubIsNoServer: the addresses of hub0 and of the stack are denied with the loopback.
func TestHubIsNoServer(t *testing.T) {
	addr := netip.MustParseAddr
	hub := netns.Hub{Host4: addr("198.19.255.5"), Hub4: addr("198.19.255.6"), Host6: addr("fd68:6177:7365::5")}
	loopback := config.Egress{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, c := range []struct {
		egress config.Egress
		addr   string
		want   bool
	}{
		{loopback, "198.19.255.5", false},
		{loopback, "::ffff:198.19.255.6", false},
		{loopback, "fd68:6177:7365::5", false},
		{loopback, "198.19.255.4", true},
		{loopback, "127.0.0.2", false},
		{config.Egress{}, "198.19.255.5", true},
	} {
		if got := allows(c.egress, hub)(addr(c.addr)); got != c.want {
			t.Errorf("%s: %v, want %v", c.addr, got, c.want)
		}
	}
}

// TestCheckTakenPort: a port that a program has, be it the cloud that runs, is told as taken.
func TestCheckTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	id, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	cfg := &config.Cloud{Egress: config.Egress{Mode: config.EgressSocket}, Listen: config.Endpoint{Host: at.IP.String(), Port: uint16(at.Port)}}
	found := Check(t.Context(), cfg, id)
	if last := found[len(found)-1]; last.Level != admin.LevelFail || !last.Taken {
		t.Errorf("%+v", last)
	}
}
