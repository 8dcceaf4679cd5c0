package guard

import (
	"testing"
	"time"
)

// TestRecent: an answer is sent again twice, unless its ACK comes, and a flood
// does not make the memory grow.
func TestRecent(t *testing.T) {
	r := NewRecent()
	sent := map[uint16]int{}
	each := func(after time.Duration) (time.Time, bool) {
		return r.Each(t0.Add(after), func(e *Ends, _ bool, s *Segment) {
			if s.Ack != uint32(e.ClientPort) {
				t.Errorf("the answer to %d goes to port %d", s.Ack, e.ClientPort)
			}
			sent[e.ClientPort]++
		})
	}
	add := func(port uint16, at time.Duration) {
		e := ends4()
		e.ClientPort = port
		r.Add(e, false, &Segment{Ack: uint32(port)}, t0.Add(at))
	}
	settle := func(port uint16) {
		e := ends4()
		e.ClientPort = port
		r.Settle(e)
	}
	if _, ok := each(0); ok {
		t.Error("something is due from the start")
	}
	add(1, 0)
	add(2, 0)
	add(1, 500*time.Millisecond) // the SYN came again: the times stay
	if next, ok := each(999 * time.Millisecond); !ok || next.Sub(t0) != time.Second || len(sent) > 0 {
		t.Errorf("next at %v, %v; sent %v", next.Sub(t0), ok, sent)
	}
	settle(2)
	each(time.Second)
	each(2999 * time.Millisecond)
	if next, ok := each(3 * time.Second); ok || sent[1] != 2 || sent[2] != 0 {
		t.Errorf("sent %v, next %v, %v", sent, next, ok)
	}
	for i := range 10 * recents {
		add(uint16(i), 0)
	}
	if len(r.index) != recents {
		t.Errorf("%d answers are remembered", len(r.index))
	}
	clear(sent)
	each(time.Second)
	if len(sent) != recents || sent[10*recents-1] != 1 {
		t.Errorf("%d answers were sent again", len(sent))
	}
}
