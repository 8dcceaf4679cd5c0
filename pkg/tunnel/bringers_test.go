package tunnel

import (
	"testing"

	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestBlame: of a record's bytes each counts once, for the link whose connection brought it
// first, whichever of its connections that was.
func TestBlame(t *testing.T) {
	a, b := &link{}, &link{}
	conns := map[byte]*conn{'a': {link: a}, 'A': {link: a}, 'b': {link: b}}
	type brought struct {
		by       byte
		from, to uint64
	}
	for _, c := range []struct {
		name   string
		notes  []brought
		a, b   int // of [100, 200)
		others int // bytes that nobody has brought
	}{
		{"nothing", nil, 0, 0, 100},
		{"before and behind", []brought{{'a', 0, 100}, {'b', 200, 300}}, 0, 0, 100},
		{"all by one", []brought{{'a', 0, 300}}, 100, 0, 0},
		{"each its part", []brought{{'a', 50, 130}, {'b', 130, 250}}, 30, 70, 0},
		{"in the middle", []brought{{'a', 140, 160}, {'b', 0, 300}}, 20, 80, 0},
		{"a gap", []brought{{'a', 140, 160}, {'b', 100, 120}, {'b', 190, 300}}, 20, 30, 50},
		{"twice", []brought{{'b', 100, 150}, {'a', 100, 200}, {'b', 100, 200}}, 50, 50, 0},
		{"two connections", []brought{{'a', 100, 110}, {'b', 110, 120}, {'A', 120, 200}}, 90, 10, 0},
		{"in pieces", []brought{{'b', 150, 151}, {'b', 120, 121}, {'b', 180, 181}, {'a', 100, 200}}, 97, 3, 0},
	} {
		var f flow
		for _, n := range c.notes {
			f.via = append(f.via, via{n.from, n.to, conns[n.by]})
		}
		got, sum := map[*link]int{}, 0
		for _, s := range f.blame(100, 200) {
			if got[s.link] > 0 || s.bytes <= 0 {
				t.Errorf("%s: a share of %d bytes, after one of %d", c.name, s.bytes, got[s.link])
			}
			got[s.link] += s.bytes
			sum += s.bytes
		}
		if got[a] != c.a || got[b] != c.b || sum != 100-c.others {
			t.Errorf("%s: %d and %d bytes, want %d and %d", c.name, got[a], got[b], c.a, c.b)
		}
	}
}

// TestLanesAnswerTogether: what one lane of an uplink has brought forged all of its lanes have
// to answer for, and no other uplink.
func TestLanesAnswerTogether(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	first, other := s.findLink(int(wire.LinkIndex(0, 0))), s.findLink(int(wire.LinkIndex(1, 0)))
	s.distrust([]share{{first, 1}})
	lane, far := s.findLink(int(wire.LinkIndex(0, 1))), s.findLink(int(wire.LinkIndex(1, 2)))
	if lane == first || lane.distrust.Score(s.now) != 1 {
		t.Errorf("a lane that came later answers for %v", lane.distrust.Score(s.now))
	}
	if other.distrust.Score(s.now)+far.distrust.Score(s.now) != 0 || far.distrust != other.distrust {
		t.Error("another uplink answers for it")
	}
	if s.distrust([]share{{lane, 1}}); first.distrust.Score(s.now) != 2 {
		t.Errorf("the first lane answers for %v of 2", first.distrust.Score(s.now))
	}
}
