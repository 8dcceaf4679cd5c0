package scheduler

import (
	"testing"
	"time"
)

// lullLine is a busy link of 50 Mbit/s and 20 ms of which something comes every millisecond.
type lullLine struct {
	e    Estimator
	now  time.Time
	came uint64
}

func newLullLine() *lullLine {
	l := &lullLine{now: time.Unix(1000, 0)}
	l.e.full, l.e.bw, l.e.minRTT = true, 6.25e6, 20*ms
	return l
}

// goes on for d: every so often n bytes come, and so many are in the network.
func (l *lullLine) goes(d, every time.Duration, n, flying int) (doubted bool) {
	for range d / every {
		for range every / ms {
			l.now = l.now.Add(ms)
			l.look(flying)
			doubted = doubted || l.e.Doubted()
		}
		l.came += uint64(n)
	}
	return doubted
}

func (l *lullLine) look(flying int) {
	l.e.lull.look(l.now, View{RTT: 25 * ms, Delivered: l.came, InFlight: flying, Flying: flying}, l.e.holds())
}

const lullFull = 150_000

// TestLull: after what silence a link is doubted goes by its own history.
func TestLull(t *testing.T) {
	for _, c := range []struct {
		name    string
		history func(*lullLine)
		doubted time.Duration // after this much silence; 0: never
	}{
		{"steady", func(l *lullLine) { l.goes(3*time.Second, ms, 6250, lullFull) }, 41 * ms},
		{"with gaps of 20 ms", func(l *lullLine) { l.goes(3*time.Second, 20*ms, 125_000, lullFull) }, 81 * ms},
		{"long ago", func(l *lullLine) {
			l.goes(3*time.Second, 20*ms, 125_000, lullFull)
			l.goes(9*time.Second, ms, 6250, lullFull)
		}, 41 * ms},
		{"unknown", func(l *lullLine) { l.goes(time.Second, ms, 6250, lullFull) }, 0},
		{"little to do", func(l *lullLine) {
			l.goes(3*time.Second, ms, 6250, lullFull)
			l.goes(20*ms, ms, 6250, 20_000)
			l.goes(20*ms, ms, 6250, lullFull)
		}, 0},
		{"drained for a moment", func(l *lullLine) { // the gap that this makes is the sender's
			l.goes(2*time.Second, ms, 6250, lullFull)
			l.goes(60*ms, 30*ms, 60_000, 60_000)
			l.goes(30*ms, 30*ms, 60_000, lullFull)
			l.goes(time.Second, ms, 6250, lullFull)
		}, 41 * ms},
		{"after an outage", func(l *lullLine) {
			l.goes(3*time.Second, ms, 6250, lullFull)
			l.goes(time.Second, time.Second, 6250, lullFull)
			l.goes(300*ms, 30*ms, 100_000, lullFull)
			l.goes(500*ms, ms, 6250, lullFull)
		}, 41 * ms},
		{"another connection", func(l *lullLine) {
			l.goes(3*time.Second, ms, 6250, lullFull)
			l.e.Renew()
			l.came, l.e.full, l.e.bw = 0, true, 6.25e6
			l.goes(time.Second, ms, 6250, lullFull)
		}, 41 * ms},
	} {
		l := newLullLine()
		c.history(l)
		l.goes(ms, ms, 0, lullFull) // takes in what has come
		after := time.Duration(0)
		for at := ms; at < 300*ms && after == 0; at += ms {
			if at == 20*ms {
				l.came += packet // the last one's answer comes late
			}
			if l.goes(ms, ms, 0, lullFull) {
				after = at
			}
		}
		if after != c.doubted {
			t.Errorf("%s: doubted after %v, wanted %v", c.name, after, c.doubted)
		}
	}
}

// TestLullUnwatched: time in which this end did not look is no silence of the line's.
func TestLullUnwatched(t *testing.T) {
	l := newLullLine()
	l.goes(3*time.Second, ms, 6250, lullFull)
	l.now = l.now.Add(100 * ms)
	if l.look(lullFull); l.e.Doubted() {
		t.Error("doubted at the first look after 100 ms without any")
	}
}
