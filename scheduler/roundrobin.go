package scheduler

// RoundRobin is path choice by turns among the links that have room.
type RoundRobin struct{ last int }

// Pick implements Path.
func (r *RoundRobin) Pick(links []Link, _ Chunk) (int, bool) {
	for k := range links {
		i := (r.last + 1 + k) % len(links)
		if links[i].State == Up && links[i].Room > 0 {
			r.last = i
			return i, true
		}
	}
	return 0, false
}
