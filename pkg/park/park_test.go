package park

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestLookersEnd: many goroutines that look in vain, each of which finds that the others
// have much to do, park in the end.
func TestLookersEnd(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const lookers, look, limit = 256, 2 * time.Microsecond, 100 * patience
	var all sync.WaitGroup
	begin := time.Now()
	for range lookers {
		all.Go(func() {
			for l := (Look{}); time.Since(begin) < limit; {
				for at := time.Now(); time.Since(at) < look; { // a system call
				}
				if !l.Again() {
					return
				}
			}
		})
	}
	all.Wait()
	if took := time.Since(begin); took >= limit {
		t.Errorf("after %v they still keep each other awake", took)
	}
}

// TestIdleParks: where nobody else has anything to do there is no second look.
func TestIdleParks(t *testing.T) {
	again := 0
	for range 100 {
		if l := (Look{}); l.Again() {
			again++
		}
	}
	if again > 50 {
		t.Errorf("of 100 looks %d are followed by another", again)
	}
}
