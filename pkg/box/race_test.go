//go:build race

package box

// The race detector makes sync.Pool drop items, so pools allocate under it.
const raceEnabled = true
