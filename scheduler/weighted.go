package scheduler

// Weighted is path choice by configured weights: of the links that have room,
// the one that has carried least for its weight. A link without room falls
// behind and does not catch up later: what it did not carry, others did.
type Weighted struct {
	carried []float64 // bytes by weight, by Link.ID
}

// Pick implements Path.
func (w *Weighted) Pick(links []Link, _ Chunk) (int, bool) {
	best := -1
	for i, l := range links {
		for l.ID >= len(w.carried) {
			w.carried = append(w.carried, 0)
		}
		if l.State == Up && l.Room > 0 && (best < 0 || w.carried[l.ID] < w.carried[links[best].ID]) {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	least := w.carried[links[best].ID]
	for i := range w.carried { // only the differences count
		w.carried[i] = max(0, w.carried[i]-least)
	}
	return best, true
}

// Carried implements Counter.
func (w *Weighted) Carried(l Link, n int) {
	if l.ID < len(w.carried) {
		w.carried[l.ID] += float64(n) / float64(max(l.Weight, 1))
	}
}
