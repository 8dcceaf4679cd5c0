//go:build race

package link

// raceDetector says that the test runs under the race detector, where
// sync.Pool drops slabs at random.
const raceDetector = true
