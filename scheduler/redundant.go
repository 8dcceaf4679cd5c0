package scheduler

// Redundant is path choice that sends every chunk on all links that have room,
// the one where it arrives first before the others. It trades all capacity but
// one link's for the shortest stalls.
type Redundant struct{}

// Pick implements Path.
func (Redundant) Pick(links []Link, c Chunk) (int, bool) {
	best := -1
	for i, l := range links {
		if l.State == Up && l.Room > 0 && (best < 0 || l.ETA(c.Size) < links[best].ETA(c.Size)) {
			best = i
		}
	}
	return best, best >= 0
}

// Copies implements Copier.
func (Redundant) Copies(links []Link, on int) (others []int) {
	for i, l := range links {
		if i != on && l.State == Up && l.Room > 0 {
			others = append(others, i)
		}
	}
	return others
}
