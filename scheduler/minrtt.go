package scheduler

// MinRTT is path choice by the shortest smoothed round trip among the links
// that have room: the default of the first Multipath TCP implementations
// (Raiciu et al., NSDI'12).
type MinRTT struct{}

// Pick implements Path.
func (MinRTT) Pick(links []Link, _ Chunk) (int, bool) {
	_, open := fastest(links)
	return open, open >= 0
}
