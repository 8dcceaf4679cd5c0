package config

import (
	"fmt"
	"strconv"
)

func (c *Card) schema() setter {
	return object(fields{
		"kind":    enum(&c.Kind, cardKinds[:]),
		"workers": parsed(&c.Workers, ranged(0, MaxCardWorkers, " (0: one per relay worker)")),
		"queue":   parsed(&c.Queue, ranged(1, MaxQueue, "")),
		"cpus":    sequence(&c.CPUs, one(ranged(0, MaxCPU, ", as `nproc` and `lscpu` count"))),
	})
}

// ranged makes the parse function of a number from least to most; note is what
// its error says about the range.
func ranged(least, most int, note string) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%s is not a number from %d to %d%s", shown(s), least, most, note)
		}
		return n, nil
	}
}
