package agent

import (
	"log/slog"
	"strings"
	"testing"

	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// TestBadCardChangesNothing: a card that cannot be had ends a run before anything
// else is looked at: this configuration has nothing else.
func TestBadCardChangesNothing(t *testing.T) {
	cfg := &config.Edge{Box: config.Box{Card: config.Card{Kind: config.CardPool, CPUs: []int{1000}}}}
	err := new(Edge).Run(t.Context(), cfg, identity.Key{}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "card.cpus: CPU 1000 ") {
		t.Error(err)
	}
}
