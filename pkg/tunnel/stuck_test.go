package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/simlink"
)

// TestStuckHead: what one line has under way as it nearly dies comes by the other soon,
// although it was sent with no better prediction than that it takes long.
func TestStuckHead(t *testing.T) {
	const ms = time.Millisecond
	radio := lineSpec{mbit: 5, rtt: 60 * ms, queue: 500 * ms}
	g := terrain{name: "dying", lines: []lineSpec{radio, radio}, d: 12 * time.Second, bare: true, script: func(m *sim, lines [][2]*simlink.Line) {
		set := func(i int, at time.Duration, mbit float64) {
			m.After(at, func() { lines[i][1].Rate = mbit * 125_000 })
		}
		set(1, 3*time.Second, 0.05)
		set(1, 9*time.Second, 5)
	}}
	v := everything
	v.beside = true
	o := g.run(v, 1, 2, 3, 4)
	t.Logf("%.1f Mbit/s, longest stalls %.0f ms, extra %.2f %%", o.goodput, o.stall, o.extra)
	if mean(o.stall) > 300 || mean(o.extra) > 3 {
		t.Errorf("longest stalls of %.0f ms, wanted at most 300 in the mean; %.2f %% were received twice, wanted at most 3", o.stall, o.extra)
	}
}

// TestBlocks: a flow counts as stuck since what blocks it has last changed.
func TestBlocks(t *testing.T) {
	_, q := queueOf(4)
	ps := sendAll(q, 1000)
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	arrives := func(i, ms int) {
		ps[i].acked(0)
		if q.block == ps[i] {
			q.advance(at(ms))
		}
	}
	want := func(p *piece, now int, stuck time.Duration) {
		t.Helper()
		if got := q.stuck(at(now), time.Second); q.block != p || got != stuck {
			t.Errorf("stuck for %v, want %v; block %p, want %p", got, stuck, q.block, p)
		}
	}
	want(ps[0], 0, time.Second)
	arrives(0, 10)
	want(ps[1], 15, 5*time.Millisecond)
	arrives(2, 20)
	want(ps[1], 30, 20*time.Millisecond)
	arrives(1, 40)
	want(ps[3], 60, 20*time.Millisecond)
	q.resendFrom(2500)
	q.advance(at(70))
	want(ps[2], 70, 30*time.Millisecond)
	q.consumed(3000)
	q.advance(at(80))
	want(ps[3], 85, 5*time.Millisecond)
	q.clear()
	if q.block != nil {
		t.Error("nothing is left that could block")
	}
}
