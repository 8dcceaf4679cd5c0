package split

import (
	"sync/atomic"
	"testing"
	"time"
)

// order counts the frames that a stack sends between Attend and Settle.
type order struct {
	stack  atomic.Pointer[Stack] // nil: not counted yet
	before uint64
	valid  bool // before is of this round
	rounds atomic.Uint64
	early  atomic.Uint64
}

func (o *order) attend() {
	if s := o.stack.Load(); s != nil {
		o.before, o.valid = s.count.framesOut.Load(), true
	}
}

func (o *order) settle() {
	if o.valid {
		o.rounds.Add(1)
		o.early.Add(o.stack.Load().count.framesOut.Load() - o.before)
	}
}

// TestAcknowledgedAfterwards: what netstack answers to a small message leaves when
// the owner has seen to the message, and does leave.
func TestAcknowledgedAfterwards(t *testing.T) {
	l := newLab(t, true)
	var order order
	o := l.options(0, 1)
	o.Attend, o.Settle = order.attend, order.settle
	s, client, w := accepted(t, l, o)
	order.stack.Store(s)
	for range 20 {
		answered := s.count.framesOut.Load() + 1
		_, err := client.Write([]byte("ping"))
		must(t, err)
		_, err = w.read(4)
		must(t, err)
		for end := time.Now().Add(ample); s.count.framesOut.Load() < answered; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatal("a message was not acknowledged")
			}
		}
	}
	if order.rounds.Load() == 0 || order.early.Load() > 0 {
		t.Errorf("%d frames left before the owner had its turn, in %d rounds; want none", order.early.Load(), order.rounds.Load())
	}
}
