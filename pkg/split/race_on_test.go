//go:build race

package split

// raceDetector says that the race detector watches.
const raceDetector = true
