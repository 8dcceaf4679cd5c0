package box

import (
	"os"
	"runtime/debug"
)

// ceiling tells Go's collector how much memory the process may have: the agent's `memory`,
// or more where there are so many flows that they need it. Near the ceiling the collector
// runs more often, and takes up to half of the processors' time; so the ceiling must not be
// as low as what thousands of stuck flows need. Nothing fails above it.
//
// It also has the heap grow by half of what is in use, not by all of it, unless GOGC says
// otherwise: payload is not allocated anew, so the collector has little to do, and a flood
// of connections costs less.
type ceiling struct {
	memory  int64 // the agent's, in bytes; 0: there is no bound, or GOMEMLIMIT is set
	before  int64 // what was set when it was made
	percent int   // the same
	flows   int   // of the limit that is set
}

const (
	ceilingOutside = 16 << 20 // bytes that the process takes and Go's runtime does not count
	ceilingStep    = 128      // flows more or fewer that are worth a new limit
	ceilingPercent = 50       // by which the heap may grow over what is in use
)

func newCeiling(memory int64) *ceiling {
	c := &ceiling{memory: memory, before: debug.SetMemoryLimit(-1), flows: -ceilingStep}
	if os.Getenv("GOMEMLIMIT") != "" {
		c.memory = 0
	}
	c.percent = debug.SetGCPercent(ceilingPercent)
	if os.Getenv("GOGC") != "" {
		debug.SetGCPercent(c.percent)
	}
	return c
}

// limit is the memory limit with so many flows, in bytes.
func (c *ceiling) limit(flows int) int64 {
	need := int64(payloadBytes*float64(Payload(c.memory, flows))) + flowMemory*int64(flows)
	return max(c.memory-ceilingOutside, need)
}

// follow sets the limit for so many flows. It stops the world for some
// microseconds, and is called once a second.
func (c *ceiling) follow(flows int) {
	if c.memory == 0 || max(flows-c.flows, c.flows-flows) < ceilingStep {
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
