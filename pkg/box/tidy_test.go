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
	tidied := func(took time.Duration, heap uint64) {
		now = now.Add(took)
		j.done(now, took, heap)
	}
	for range 10 {
		if look(500*mb, true, 100_000) {
			t.Fatal("collects in the middle of a rush")
		}
	}
	if look(500*mb, false, 100_000) || !look(500*mb, false, 100_000) {
		t.Fatal("does not collect after two quiet looks")
	}
	tidied(time.Second, 300*mb)
	if j.then != allocated {
		t.Fatal("does not note what was allocated by then")
	}
	again := func(looks int, each uint64) (n int) {
		for range looks {
			if allocated += each; look(310*mb, false, 100_000) {
				tidied(time.Second, 300*mb)
				n++
			}
		}
		return n
	}
	if n := again(60, 0); n != 1 {
		t.Fatalf("collects %d times for little, not once more soon", n)
	}
	if n := again(30, mb); n != 0 {
		t.Fatalf("collects %d times for a tenth of what is in use", n)
	}
	if n := again(90, mb); n != 2 {
		t.Fatalf("collects %d times for four tenths of what is in use, which take a second each, not twice", n)
	}
	// All flows end: nothing is allocated, the heap seems as large as ever.
	if !look(310*mb, false, 1000) {
		t.Fatal("does not collect after flows have ended")
	}
	tidied(time.Second, 30*mb)
	// The connections end some seconds after their flows, and little else happens.
	soon := 0
	for !look(30*mb, false, 1000) {
		if soon++; soon > tidySoon+tidyShare {
			t.Fatal("does not collect what has followed the flows")
		}
	}
	tidied(time.Second, 10*mb)
	for i := range tidyShare - 1 {
		if look(400*mb, false, 1000) {
			t.Fatalf("collects again after %d s of the %d that one second is worth", i+1, tidyShare)
		}
	}
	if look(400*mb, false, 1000); !look(400*mb, false, 1000) {
		t.Fatal("never collects again")
	}
	tidied(time.Hour, 10*mb) // on a busy machine
	for late := tidyEvery; !look(400*mb, false, 1000); late += tidyEvery {
		if late > tidyMost {
			t.Fatalf("waits for longer than %v", tidyMost)
		}
	}
	tidied(time.Millisecond, 10*mb)
	if look(10*mb, false, 10); !look(10*mb, false, 10) {
		t.Fatal("takes no notice of the last flows' end")
	}
	tidied(time.Millisecond, 10*mb)
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

// TestJanitorFollows: what flows leave that end is collected once more soon and once at
// rest, though nothing is allocated meanwhile.
func TestJanitorFollows(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var j janitor
	n := 0
	for i := range 100 {
		now = now.Add(tidyEvery)
		flows := 1000
		if i < 10 {
			flows = 100_000
		}
		if j.due(now, 1<<20, 0, 0, flows) {
			j.done(now, 100*time.Millisecond, 1<<20)
			n++
		}
	}
	if n != 3 {
		t.Errorf("collects %d times, want three times", n)
	}
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
	j.done(now, time.Millisecond, 30*mb)
	if look(100*mb, 10) || !look(0, 10) {
		t.Fatal("does not collect as soon as they have ended")
	}
}

// TestJanitorMeanwhile: what flows have left that ended while it was at work is collected,
// although the heap is no larger than after that.
func TestJanitorMeanwhile(t *testing.T) {
	const mb = 1 << 20
	now := time.Unix(1_700_000_000, 0)
	var j janitor
	look := func(flows int) bool {
		now = now.Add(tidyEvery)
		return j.due(now, 50*mb, 0, 0, flows)
	}
	if look(5000); !look(5000) {
		t.Fatal("does not collect after a rush")
	}
	now = now.Add(5 * time.Second)
	j.done(now, 100*time.Millisecond, 50*mb)
	if look(0); !look(0) || !j.ended {
		t.Fatal("takes no notice of flows that have ended while it was at work")
	}
}
