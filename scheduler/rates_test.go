package scheduler

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTimers: whatever users' times do, the one that is due first is first, and each is woken
// once, when it is due.
func TestTimers(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		start := time.Unix(0, 0)
		var heap timers[int]
		users, due := make([]user[int], 30), map[*user[int]]time.Time{}
		for step := range 400 {
			u := &users[random.IntN(len(users))]
			now := start.Add(time.Duration(step))
			switch random.IntN(8) {
			case 0:
				heap.remove(u)
				delete(due, u)
			case 1:
				heap.set(u, time.Time{})
				delete(due, u)
			case 2:
				for u := heap.expired(now); u != nil; u = heap.expired(now) {
					if at, ok := due[u]; !ok || at.After(now) || u.timer != 0 {
						t.Fatalf("seed %d: woken at %v, due at %v, %v", seed, now, at, ok)
					}
					delete(due, u)
				}
			default:
				at := now.Add(time.Duration(random.IntN(300)))
				heap.set(u, at)
				due[u] = at
			}
			var first time.Time
			for _, at := range due {
				if first.IsZero() || at.Before(first) {
					first = at
				}
			}
			if got := heap.first(); got != first || len(heap.heap) != len(due) {
				t.Fatalf("seed %d: first of %d at %v, want of %d at %v", seed, len(heap.heap), got, len(due), first)
			}
		}
	}
}
