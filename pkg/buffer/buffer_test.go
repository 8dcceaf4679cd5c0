package buffer

import (
	"bytes"
	"testing"
)

func TestSlabSizes(t *testing.T) {
	for _, c := range []struct{ n, want int }{{0, Small}, {Small, Small}, {Small + 1, 2 << 10}, {4 << 10, 4 << 10}, {4<<10 + 1, 6 << 10}, {12<<10 + 1, Plain + Slack}, {Plain + Slack + 1, 24 << 10}, {32<<10 + 1, 48 << 10}, {48<<10 + 1, Large}, {Large, Large}, {Large + 1, Large + 1}} {
		b := Get(c.n)
		if Size(c.n) != c.want {
			t.Errorf("Size(%d): %d, want %d", c.n, Size(c.n), c.want)
		}
		if len(b.Bytes()) != c.want {
			t.Errorf("Get(%d): %d bytes, want %d", c.n, len(b.Bytes()), c.want)
		}
		b.Release()
	}
}

// TestSlabsFit: what waits takes little more than it is long.
func TestSlabsFit(t *testing.T) {
	for n := 2 << 10; n <= Large; n++ {
		if size := Size(n); 2*size > 3*n+1 {
			t.Fatalf("%d bytes take a slab of %d", n, size)
		}
	}
}

func TestReferences(t *testing.T) {
	before := Live()
	s := Copy([]byte("hello, world"))
	head, tail := s.Cut(5)
	again := tail.Share()
	head.Release()
	tail.Release()
	if Live()-before != Small {
		t.Errorf("%d bytes live while a part is held", Live()-before)
	}
	if string(again.P) != ", world" || cap(head.P) != 5 {
		t.Errorf("%q, cap %d", again.P, cap(head.P))
	}
	again.Release()
	if Live() != before {
		t.Errorf("%d bytes live after the last release", Live()-before)
	}
	defer func() {
		if recover() == nil {
			t.Error("one release too many goes unnoticed")
		}
	}()
	again.Release()
}

func TestUnpooledAndZero(t *testing.T) {
	p := []byte("abc")
	w := Seg{P: p} // belongs to no pool
	a, b := w.Cut(1)
	if !bytes.Equal(a.P, p[:1]) || !bytes.Equal(b.P, p[1:]) {
		t.Error("wrong parts")
	}
	a.Release()
	b.Release()
	w.Release()
	Seg{}.Release()
}

func TestNoAllocation(t *testing.T) {
	if n := testing.AllocsPerRun(1000, func() {
		s := Get(Large).Seg(0, 100)
		h, tl := s.Cut(50)
		h.Release()
		tl.Release()
	}); n > 0.1 {
		t.Errorf("%v allocations per slab", n)
	}
}
