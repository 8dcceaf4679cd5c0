package box

import (
	"strings"
	"testing"

	"hawser/pkg/unit"
)

// TestFit: an agent takes half of what its control group or machine has, where that is less
// than what is configured, and never so little that it could do nothing but collect.
func TestFit(t *testing.T) {
	for _, c := range []struct {
		memory, group, machine, want unit.Bytes
		whose                        string
	}{
		{512 * unit.MiB, 0, 8 * unit.GiB, 512 * unit.MiB, ""},
		{512 * unit.MiB, 1 * unit.GiB, 8 * unit.GiB, 512 * unit.MiB, ""},
		{512 * unit.MiB, 128 * unit.MiB, 8 * unit.GiB, 64 * unit.MiB, "its control group has 128 MiB"},
		{512 * unit.MiB, 900 * unit.MiB, 256 * unit.MiB, 128 * unit.MiB, "this machine has 256 MiB"},
		{512 * unit.MiB, 256 * unit.MiB, 900 * unit.MiB, 128 * unit.MiB, "its control group has 256 MiB"},
		{64 * unit.MiB, 32 * unit.MiB, 8 * unit.GiB, boundLeast, "its control group has 32.0 MiB"},
		{64 * unit.MiB, 0, 0, 64 * unit.MiB, ""},
	} {
		bounds := func() (all []bound) {
			if c.group > 0 {
				all = append(all, bound{int64(c.group), "its control group"})
			}
			if c.machine > 0 {
				all = append(all, bound{int64(c.machine), "this machine"})
			}
			return all
		}
		if got, why := fit(int64(c.memory), bounds); got != int64(c.want) || why != c.whose {
			t.Errorf("%s in %s of %s: %s, %q; want %s, %q", c.memory, c.group, c.machine, unit.Bytes(got), why, c.want, c.whose)
		}
		found := judgeMemory(c.memory, bounds)
		if c.whose == "" && len(found) > 0 || c.whose != "" && (len(found) != 1 || !strings.Contains(found[0].What, c.whose) || found[0].Remedy == "") {
			t.Errorf("%s in %s of %s: check says %v", c.memory, c.group, c.machine, found)
		}
	}
}
