package bbr

import (
	"testing"
	"time"
)

// TestRecall: half of the largest product of the last half minute or so, and 64
// packets at most.
func TestRecall(t *testing.T) {
	var r Recall
	now := time.Unix(1000, 0)
	want := func(what string, n int) {
		if got := r.Packets(now, 1000); got != n {
			t.Errorf("%s: %d packets, wanted %d", what, got, n)
		}
	}
	want("nothing is known", 0)
	r.Note(now, 1e6, 50*time.Millisecond) // 50 packets
	want("half of 50", 25)
	if got := r.Packets(now, 0); got != 0 {
		t.Errorf("packets without bytes: %d", got)
	}
	r.Note(now, 1e6, 20*time.Millisecond)
	want("a slower connection since", 25)
	for range 14 {
		now = now.Add(time.Second)
		r.Note(now, 1e6, 20*time.Millisecond)
	}
	want("14 s later", 25)
	for range 32 {
		now = now.Add(time.Second)
		r.Note(now, 1e6, 20*time.Millisecond)
	}
	want("another half minute later", 10)
	r.Note(now, 100e6, 20*time.Millisecond)
	want("a fast path", 64)
	now = now.Add(31 * time.Second)
	want("silent for half a minute", 0)
	r.Note(now, 1e6, 10*time.Millisecond)
	want("what was known before is forgotten", 5)
}
