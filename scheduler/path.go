package scheduler

// NewPath returns a path choice.
func NewPath(k PathKind) Path {
	switch k {
	case PathMinRTT:
		return MinRTT{}
	case PathWeighted:
		return &Weighted{}
	case PathRedundant:
		return Redundant{}
	case PathBLEST:
		return NewBLEST()
	case PathECF:
		return &ECF{}
	case PathRoundRobin:
		return &RoundRobin{}
	}
	return Earliest{}
}

// Copier is a path choice that sends every chunk more than once.
type Copier interface {
	Path
	// Copies returns the indexes of the links that take a copy of a chunk that
	// links[on] has taken. The slice is valid until the next call.
	Copies(links []Link, on int) []int
}

// Counter is a path choice that goes by what links have carried. A chunk is cut to what
// suits the link that takes it, so that its Size when the link was chosen says too much.
type Counter interface {
	Path
	// Carried notes that a link has taken n bytes, once for each chunk.
	Carried(l Link, n int)
}

// fastest returns the index of the link with the shortest smoothed round trip
// among those that are up, and of those that have room too; -1: there is none.
func fastest(links []Link) (all, open int) {
	all, open = -1, -1
	for i, l := range links {
		if l.State != Up {
			continue
		}
		if all < 0 || l.SRTT < links[all].SRTT {
			all = i
		}
		if l.Room > 0 && (open < 0 || l.SRTT < links[open].SRTT) {
			open = i
		}
	}
	return all, open
}

// window is what the link may have in flight, in bytes.
func (l Link) window() int { return max(l.InFlight+max(l.Room, 0), packet) }

// packet stands for a full packet where a published rule counts packets.
const packet = 1448
