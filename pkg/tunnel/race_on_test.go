//go:build race

package tunnel

// raceDetector says that the race detector watches.
const raceDetector = true
