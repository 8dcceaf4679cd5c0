package box

import (
	"testing"
	"time"
)

func TestJanitor(t *testing.T) {
	const mb = 1 << 20
	now := time.Unix(1_700_000_000, 0)
	var j janitor
	allocated := uint64(0)
	look := func(heap uint64, busy bool, flows int) bool {
		now = now.Add(tidyEvery)
		if busy {
			allocated += 2 * tidyQuiet
		}
		return j.due(now, heap, allocated, 0, flows)
	}
	tidied := func(took time.Duration, heap uint64, flows int) {
		now = now.Add(took)
		j.done(now, took, heap, flows)
	}
	for range 10 {
		if look(500*mb, true, 100_000) {
			t.Fatal("collects in the middle of a rush")
		}
	}
	if look(500*mb, false, 100_000) || !look(500*mb, false, 100_000) {
		t.Fatal("does not collect after two quiet looks")
	}
	tidied(time.Second, 300*mb, 100_000)
	if j.then != allocated {
		t.Fatal("does not note what was allocated by then")
	}
	again := 0
	for range 60 {
		if look(310*mb, false, 100_000) {
			tidied(time.Second, 300*mb, 100_000)
			again++
		}
	}
	if again != 2 {
		t.Fatalf("collects %d times for little, not once more soon and once at rest", again)
	}
	// All flows end: nothing is allocated, the heap seems as large as ever.
	if !look(310*mb, false, 1000) {
		t.Fatal("does not collect after flows have ended")
	}
	tidied(time.Second, 30*mb, 1000)
	// The connections end some seconds after their flows, and little else happens.
	soon := 0
	for !look(30*mb, false, 1000) {
		if soon++; soon > tidySoon+tidyShare {
			t.Fatal("does not collect what has followed the flows")
		}
	}
	tidied(time.Second, 10*mb, 1000)
	for i := range tidyShare - 1 {
		if look(400*mb, false, 1000) {
			t.Fatalf("collects again after %d s of the %d that one second is worth", i+1, tidyShare)
		}
	}
	if look(400*mb, false, 1000); !look(400*mb, false, 1000) {
		t.Fatal("never collects again")
	}
	tidied(time.Hour, 10*mb, 1000) // on a busy machine
	for late := tidyEvery; !look(400*mb, false, 1000); late += tidyEvery {
		if late > tidyMost {
			t.Fatalf("waits for longer than %v", tidyMost)
		}
	}
	tidied(time.Millisecond, 10*mb, 10)
	look(10*mb, true, 10)
	for i := range 2 * tidyRest {
		if look(10*mb, false, 0) {
			if i < tidyPauses {
				t.Fatal("collects at the first pause")
			}
			return
		}
	}
	t.Fatal("does not collect at rest, after less than a rush")
}

// TestJanitorLeavesTraffic: the buffers of bulk are not given back while it lasts.
func TestJanitorLeavesTraffic(t *testing.T) {
	const mb = 1 << 20
	now := time.Unix(1_700_000_000, 0)
	var j janitor
	moved := uint64(0)
	look := func(more uint64, flows int) bool {
		now, moved = now.Add(tidyEvery), moved+more
		return j.due(now, 60*mb, 3*mb, moved, flows)
	}
	for range 2 * tidyRest {
		if look(100*mb, 1000) {
			t.Fatal("collects while bytes move")
		}
	}
	if !look(100*mb, 10) {
		t.Fatal("does not collect what ended flows have left, because others go on")
	}
	j.done(now, time.Millisecond, 30*mb, 10)
	if look(100*mb, 10) || !look(0, 10) {
		t.Fatal("does not collect as soon as they have ended")
	}
}
