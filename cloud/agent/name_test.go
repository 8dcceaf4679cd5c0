package agent

import (
	"strings"
	"testing"

	"hawser/pkg/wire"
)

// TestSpokenName: a cloud whose host has a name that no welcome may bear is joined all the same.
func TestSpokenName(t *testing.T) {
	for name, want := range map[string]string{
		"vm": "vm", "schiff-7.example": "schiff-7.example", "": "cloud",
		"vm\xe9": "cloud", "vm\x1b[1m": "cloud", "vm\n": "cloud", strings.Repeat("x", wire.MaxName+1): "cloud",
	} {
		got := spoken(name)
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
		if _, err := wire.AppendWelcome(nil, wire.Welcome{Name: got, Version: 1, VersionMin: 1, VersionMax: wire.VersionMax}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}
