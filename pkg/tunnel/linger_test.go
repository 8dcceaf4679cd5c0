package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/simlink"
	"hawser/pkg/stream"
)

// wordsOnce is the most that a test sends at once.
const wordsOnce = 16 << 10

// openEndless opens a flow that nobody has anything to send on yet.
func (w *world) openEndless() *user {
	id := w.edge.s.NewFlow(0)
	w.edge.mu.Lock()
	u := w.edge.newUser(id)
	w.edge.mu.Unlock()
	w.edge.s.Post([]stream.Command{{Kind: stream.CmdOpen, Flow: id, Dst: server, Src: client}})
	return u
}

// say is the next n bytes of a flow.
func (u *user) say(n int) (out []stream.Command) {
	for ; n > 0; n -= wordsOnce {
		k := min(n, wordsOnce)
		b := buffer.Get(k)
		copy(b.Bytes(), patternAt(u.sent, k))
		u.sent += uint64(k)
		out = append(out, stream.Command{Kind: stream.CmdSend, Flow: u.id, Seg: b.Seg(0, k)})
	}
	return out
}

// lastly sends n bytes of a flow and resets it.
func (u *user) lastly(n int) {
	u.side.mu.Lock()
	u.end()
	u.side.mu.Unlock()
	u.side.s.Post(append(u.say(n), stream.Command{Kind: stream.CmdReset, Flow: u.id, Code: stream.CodeAbort}))
}

// TestLastWords: a RESET because the party has reset its connection comes after what the
// party sent just before, by whichever link; but not for the sake of much, nor for ever.
func TestLastWords(t *testing.T) {
	const rtt = 100 * time.Millisecond
	for _, c := range []struct {
		name        string
		byEdge      bool
		size        int
		stuck       bool
		got         bool
		atLeast, at time.Duration
	}{
		{"server's", false, 1000, false, true, rtt / 2, 3 * rtt},
		{"client's", true, 1000, false, true, rtt / 2, 3 * rtt},
		{"that nobody takes", false, 1000, true, false, lingerTime, lingerTime + rtt},
		{"too much", true, lastWords + wordsOnce, true, false, 0, 3 * rtt},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T) {
				w := newWorld(t, simlink.Spec{Rate: 20 * mbit, Delay: rtt / 2}, simlink.Spec{Rate: 2 * mbit, Delay: rtt / 2})
				defer w.close()
				w.cloud.accept = func(u *user) {
					w.cloud.s.Post([]stream.Command{{Kind: stream.CmdAccepted, Flow: u.id}})
				}
				u := w.openEndless()
				time.Sleep(time.Second)
				from, to := w.peerOf(u), u
				if c.byEdge {
					from, to = to, from
				}
				to.side.mu.Lock()
				to.stuck = c.stuck
				to.side.mu.Unlock()
				if c.size > wordsOnce {
					from.side.s.Post(from.say(c.size - wordsOnce))
				}
				from.lastly(min(c.size, wordsOnce))
				took := to.await(time.Minute)
				if got := to.total() == uint64(c.size); got != c.got || to.resetCode() != stream.CodeAbort {
					t.Errorf("%d bytes came, reset %v", to.total(), to.resetCode())
				}
				if took < c.atLeast || took > c.at {
					t.Errorf("reset after %v", took)
				}
				w.gone()
			})
		})
	}
}
