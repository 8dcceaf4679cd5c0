package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/simlink"
)

// TestStuckHead: what one line has under way as it nearly dies comes by the other soon,
// although it was sent with no better prediction than that it takes long.
func TestStuckHead(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
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

// TestStuckBehindMany: a chunk that is late gets its copy however many others, whose
// contents went elsewhere long ago, wait before it for a transport that is stuck.
func TestStuckBehindMany(t *testing.T) {
	for _, before := range []int{0, 2 * lateScan} {
		m := newSim(1, []simLink{{20, 40 * time.Millisecond}, {20, 40 * time.Millisecond}})
		f := m.request(1, endless)
		s := m.cloud.s
		m.Run(m.Now().Add(time.Second), nil)
		for s.links[0].conn.bulk.batch() == nil || s.links[1].conn.bulk.batch() == nil {
			m.Run(m.Now().Add(100*time.Microsecond), nil)
		}
		late := s.flows[f.id].send.block
		found := false
		for i, l := range s.links {
			st := l.conn.bulk
			log := sentLog{count: st.log.count}
			for range before {
				log.push(entry{at: m.Now().Add(-5 * time.Second), size: 1000, moved: true})
			}
			at := -1
			for k := range st.log.n {
				if st.log.at(k).piece == late {
					at = log.n
				}
				log.push(*st.log.at(k))
			}
			if at < 0 {
				continue
			}
			found, st.log = true, log
			s.now = s.now.Add(400 * time.Millisecond)
			s.links[1-i].conn.inFlight = 0 // it has room
			s.refreshViews()
			s.resendLateOn(i, st)
			if !st.log.at(at).moved {
				t.Errorf("a chunk with %d before it got no copy", at)
			}
			break
		}
		if !found {
			t.Fatal("nothing blocks the flow")
		}
		m.end()
	}
}
