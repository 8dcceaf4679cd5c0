package tunnel

import (
	"math"
	"math/bits"
)

// lefts is what all flows have left to send. It tells a flow how much goes before its last
// byte while flows take turns. Only flows that have no more left than the asking one count:
// they avoid a slow link for the same reason as it does, and all of them together may leave
// that link idle; flows with more left use it. Flows are counted by the magnitude of what
// they have left, so that a change and a question cost the same with one flow as with
// thousands. Weights and classes do not count.
type lefts [leftSizes]struct{ flows, bytes int }

// leftSizes is one more than the bits of the most that is left of a flow; more counts as
// that.
const leftSizes = 33

func leftSize(left int) int { return min(bits.Len(uint(left)), leftSizes-1) }

// move notes that a flow has to bytes left, and not from; 0: none, it is not among these.
func (c *lefts) move(from, to int) {
	if from > 0 {
		at := &c[leftSize(from)]
		at.flows--
		at.bytes -= from
	}
	if to > 0 {
		at := &c[leftSize(to)]
		at.flows++
		at.bytes += to
	}
}

// work is how many bytes go until the last of left, of a flow that is counted with so
// many. Flows of the same magnitude count as many bytes as it has itself, at most.
func (c *lefts) work(left, counted int) int {
	sum, own := left, leftSize(counted)
	for k := range leftSize(left) + 1 {
		flows, bytes := c[k].flows, c[k].bytes
		if k == own && counted > 0 {
			flows, bytes = flows-1, bytes-counted
		}
		sum += min(bytes, flows*left)
	}
	return sum
}

// recount tells the session what is left of a flow now.
func (s *Session) recount(f *flow) {
	left := 0
	if f.node.Active() {
		left = min(f.left(), math.MaxInt32)
	}
	s.lefts.move(int(f.counted), left)
	f.counted = int32(left)
}
