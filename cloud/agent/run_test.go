package agent

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// TestBadCardChangesNothing: a card that cannot be had ends a run before anything
// else is looked at: this configuration has nothing else.
func TestBadCardChangesNothing(t *testing.T) {
	cfg := &config.Cloud{Box: config.Box{Card: config.Card{Kind: config.CardPool, CPUs: []int{1000}}}}
	err := Run(t.Context(), cfg, identity.Key{}, slog.New(slog.DiscardHandler))
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
