package box

import (
	"fmt"
	"log/slog"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/unit"
)

// Memory is what an agent takes of `memory`: less than that where the control group or the
// machine has not so much. The kernel kills who takes more, and then what he has put on the
// host stays.
func Memory(cfg *config.Box, log *slog.Logger) int64 {
	fits, of := fit(int64(cfg.Memory), bounds)
	if of != "" {
		log.Warn("less memory is used than the configuration says", "memory", cfg.Memory, "used", unit.Bytes(fits), "why", of)
	}
	return fits
}

// CheckMemory says whether there is as much memory as is configured.
func CheckMemory(cfg *config.Box) []admin.Finding { return judgeMemory(cfg.Memory, bounds) }

func judgeMemory(memory unit.Bytes, bounds func() []bound) []admin.Finding {
	fits, of := fit(int64(memory), bounds)
	if of == "" {
		return nil
	}
	remedy := "give it more, such as by MemoryMax= of the unit"
	if unit.Bytes(fits) >= config.MinMemory {
		remedy += fmt.Sprintf(", or set memory: %dMiB", fits>>20)
	}
	return []admin.Finding{{Level: admin.LevelWarn,
		What: fmt.Sprintf("memory: %s is more than can be had, as %s: %s is used", memory, of, unit.Bytes(fits)), Remedy: remedy}}
}

// bound is memory that the process cannot exceed.
type bound struct {
	bytes int64
	whose string
}

// The kernel counts more than the process itself: sockets, BPF maps and page tables are a
// control group's, too, and a machine has other programs. In 128 MB an edge with 96 was
// killed within seconds by 60 clients that read slowly; with 64 the group had 70 at most.
const (
	boundShare = 0.5
	boundLeast = programMemory + 8<<20 // with less an agent would do nothing but collect
)

// fit is what of memory a process may take, and why it is less; "" where it is not.
func fit(memory int64, bounds func() []bound) (fits int64, why string) {
	fits = memory
	for _, b := range bounds() {
		if most := max(int64(boundShare*float64(b.bytes)), boundLeast); most < fits {
			fits, why = most, fmt.Sprintf("%s has %s", b.whose, unit.Bytes(b.bytes))
		}
	}
	return fits, why
}

// bounds are those of this process. One that cannot be read bounds nothing.
func bounds() (found []bound) {
	if n, err := memlimit.FromCgroup(); err == nil {
		found = append(found, bound{int64(n), "its control group"})
	}
	if n, err := memlimit.FromSystem(); err == nil {
		found = append(found, bound{int64(n), "this machine"})
	}
	return found
}
