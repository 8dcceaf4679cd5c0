package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/stream"
)

// TestStride: while memory is scarce a slow reader's flow is given what his party takes, up
// to a stride, and that does not leave at once. What others have, and what he has while
// there is memory, does not change, nor does a limit ever fall.
func TestStride(t *testing.T) {
	const read = 1 << 10
	for _, c := range []struct {
		name   string
		scarce bool
		room   uint16
		want   int // credit beyond what was consumed
		waits  bool
	}{
		{"quick", true, 0, leastWindow, false},
		{"slow", true, 3000, 3000, true},
		{"slow, with much room", true, 60_000, stride, true},
		{"slow, without room", true, 1, leastWindow, true},
		{"slow, while there is memory", false, 3000, openWindow, false},
	} {
		b := NewBudget(64 << 20)
		s := New(Config{Budget: b})
		if c.scarce {
			s.cfg.Budget.move(0, int(b.pool()))
		}
		s.now = time.Unix(1000, 0)
		f := s.makeFlow(1, 0)
		f.opened, f.credit.limit = true, leastWindow // what was told before
		s.flows[f.id] = f
		s.obey(&stream.Command{Kind: stream.CmdConsumed, Flow: f.id, Bytes: read, Room: c.room})
		if waits := len(s.ctrl.sizes) == 0; waits != c.waits {
			t.Errorf("%s: waits is %v", c.name, waits)
		}
		s.now = s.now.Add(tellDelay)
		if s.tellCredit(); len(s.ctrl.sizes) != 1 || f.credit.limit != uint64(read+c.want) {
			t.Errorf("%s: told %d times, the limit is %d, want once and %d", c.name, len(s.ctrl.sizes), f.credit.limit, read+c.want)
		}
		before := f.credit.limit
		f.room = 0
		if s.grant(f); f.credit.limit < before {
			t.Errorf("%s: the limit falls from %d to %d", c.name, before, f.credit.limit)
		}
	}
}

// TestKeepStride: what a peer allows that is short of memory itself may all be sent, and of
// what one allows that is not no more than there is memory for.
func TestKeepStride(t *testing.T) {
	b := NewBudget(64 << 20)
	s := New(Config{Budget: b})
	s.cfg.Budget.keepMore(int(b.pool()))
	f := s.makeFlow(1, 0)
	for peer, want := range map[uint64]uint64{leastWindow: leastWindow, stride: stride, stride + 1: leastWindow, openWindow: leastWindow} {
		f.send.base = provenPart * leastWindow
		f.peer = f.send.base + peer
		if got := s.keep(f) - f.send.base; got != want {
			t.Errorf("of %d that the peer allows %d may be sent", peer, got)
		}
	}
}
