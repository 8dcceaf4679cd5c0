package places

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestPlaces(t *testing.T) {
	p := New(5, 2)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	six, same, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2%eth0"), netip.MustParseAddr("2001:db8:0:1::1")
	var taken []*Place
	for i, c := range []struct {
		addr netip.Addr
		ok   bool
	}{{a, true}, {b, true}, {a, false}, {six, true}, {same, true}, {six, false}, {other, true}} {
		place := p.Enter(c.addr, func() { t.Errorf("step %d: the place is lost", i) })
		if (place != nil) != c.ok {
			t.Errorf("step %d: %v", i, c.addr)
		}
		if place != nil {
			taken = append(taken, place)
		}
	}
	if !p.Crowded() {
		t.Error("full, and not crowded")
	}
	for _, place := range taken {
		place.Leave()
		place.Leave() // once is enough
	}
	if len(p.taken) != 0 || len(p.source) != 0 || p.Crowded() {
		t.Errorf("not empty: %+v", p)
	}
}

// TestFullPlaces: where all places are taken, a newcomer gets the oldest of the source
// that has most, and not more than that.
func TestFullPlaces(t *testing.T) {
	p := New(6, 3)
	var lost []string
	enter := func(addr, name string) *Place {
		return p.Enter(netip.MustParseAddr(addr), func() { lost = append(lost, name) })
	}
	for i := range 3 {
		enter("192.0.2.1", fmt.Sprintf("a%d", i))
		enter("192.0.2.2", fmt.Sprintf("b%d", i))
	}
	for i, want := range []string{"a0", "b0", "a1", "b1"} {
		if enter(fmt.Sprintf("198.51.100.%d", i), fmt.Sprintf("new%d", i)) == nil || len(lost) != i+1 || lost[i] != want {
			t.Fatalf("newcomer %d: lost %v, want %s last", i, lost, want)
		}
	}
	// All have one each now: the oldest goes, and nobody gets a second.
	if enter("192.0.2.1", "a3") != nil {
		t.Error("who has as many as anybody gets one more")
	}
	last := enter("2001:db8::1", "six")
	if last == nil || lost[len(lost)-1] != "a2" {
		t.Errorf("lost %v", lost)
	}
	if n := len(p.taken); n != 6 || len(p.source) != 6 {
		t.Errorf("%d places are taken by %d", n, len(p.source))
	}
	last.Leave()
	if enter("192.0.2.2", "b3") == nil {
		t.Error("no place although one is free")
	}
}
