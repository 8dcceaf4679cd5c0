package slim

import (
	"runtime"
	"testing"
)

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMapGivesMemoryBack(t *testing.T) {
	const n = 100_000
	var peak Peak
	before := heap()
	m := map[int]int{}
	for i := range n {
		m[i] = i
	}
	full := heap() - before
	for i := range n - 10 {
		delete(m, i)
		m = Map(m, &peak)
		if i == n/2 && len(m) != n-i-1 {
			t.Fatalf("%d entries, want %d", len(m), n-i-1)
		}
	}
	for i := n - 10; i < n; i++ {
		if m[i] != i {
			t.Errorf("entry %d is %d", i, m[i])
		}
	}
	if left := heap() - before; left > full/50 {
		t.Errorf("%d bytes of %d are kept for %d entries", left, full, len(m))
	}
	runtime.KeepAlive(m)
}

func TestSmallMapIsLeftAlone(t *testing.T) {
	var peak Peak
	m := map[int]int{1: 1, 2: 2}
	delete(m, 1)
	same := Map(m, &peak)
	same[3] = 3
	if m[3] != 3 {
		t.Error("a small map was copied")
	}
}

func TestEmptied(t *testing.T) {
	s := Emptied([]*int{new(int)})
	if len(s) != 0 || cap(s) == 0 || s[:1][0] != nil {
		t.Errorf("%d of %d, %v", len(s), cap(s), s[:1])
	}
	if s := Emptied(make([]int, 1, 5000)); s != nil {
		t.Errorf("%d entries are kept for one", cap(s))
	}
	if s := Emptied(make([]int, 2000, 5000)); s == nil {
		t.Error("memory in use was given away")
	}
}

func TestRested(t *testing.T) {
	if s := Rested(make([]int, 1, 100)); s != nil {
		t.Errorf("room for %d is kept", cap(s))
	}
	if s := Rested([]*int{new(int)}); len(s) != 0 || cap(s) == 0 || s[:1][0] != nil {
		t.Errorf("%d of %d, %v", len(s), cap(s), s[:1])
	}
}
