package box

import (
	"os"
	"runtime/debug"
)

// ceiling tells Go's collector how much memory the process may have: two of the
// agent's budgets, since slabs are up to twice their contents, and what flows take
// beside their payload. Without it the heap is twice what is in use, whatever that
// is. Near the ceiling the collector runs more often, with at most half of the
// processors' time; so it must not be what thousands of stuck flows need: with one
// budget both processors did nothing else. Nothing fails above it. And it has the heap
// grow by half, not to twice, of what is in use, unless GOGC says another: payload is
// not allocated anew, so that the collector has little to do, and a flood of connections
// costs less.
type ceiling struct {
	budget  int64 // 0: there is none, or GOMEMLIMIT is set
	before  int64 // what was set when it was made
	percent int   // the same
	flows   int   // of the limit that is set
}

const (
	ceilingBudgets = 2
	ceilingFlow    = 8 << 10  // bytes per flow
	ceilingLeast   = 64 << 20 // bytes that any agent may have
	ceilingStep    = 128      // flows more or fewer that are worth a new limit
	ceilingPercent = 50       // by which the heap may grow over what is in use
)

func newCeiling(budget int64) *ceiling {
	c := &ceiling{budget: budget, before: debug.SetMemoryLimit(-1), flows: -ceilingStep}
	if os.Getenv("GOMEMLIMIT") != "" {
		c.budget = 0
	}
	c.percent = debug.SetGCPercent(ceilingPercent)
	if os.Getenv("GOGC") != "" {
		debug.SetGCPercent(c.percent)
	}
	return c
}

// limit is the memory limit with so many flows, in bytes.
func (c *ceiling) limit(flows int) int64 {
	return max(ceilingBudgets*c.budget, ceilingLeast) + ceilingFlow*int64(flows)
}

// follow sets the limit for so many flows. It stops the world for some
// microseconds, and is called once a second.
func (c *ceiling) follow(flows int) {
	if c.budget == 0 || max(flows-c.flows, c.flows-flows) < ceilingStep {
		return
	}
	c.flows = flows
	debug.SetMemoryLimit(c.limit(flows))
}

// lift sets what was there before.
func (c *ceiling) lift() {
	debug.SetMemoryLimit(c.before)
	debug.SetGCPercent(c.percent)
}
