package box

import (
	"errors"
	"strings"
	"testing"

	"hawser/pkg/admin"
)

// TestCheckCongestion: who checks a host whose kernel has no BBR is told what TCP links
// use in its place; where there is nothing to say nothing is said.
func TestCheckCongestion(t *testing.T) {
	if found := judgeCongestion("bbr", true, nil); len(found) > 0 {
		t.Errorf("with BBR: %+v", found)
	}
	for text, found := range map[string][]admin.Finding{
		"send by cubic":      judgeCongestion("cubic", false, nil),
		"too many open file": judgeCongestion("", false, errors.New("too many open files")),
	} {
		if len(found) != 1 || found[0].Level != admin.LevelWarn || !strings.Contains(found[0].What, text) {
			t.Errorf("%+v, want a warning: %s", found, text)
		}
	}
}
