package scheduler

import (
	"testing"
	"time"
)

// TestEbb: a line that becomes thirty times slower takes little more once a round trip
// or two have passed, whatever its window was; one that pauses for a moment, or whose
// path becomes longer, carries on.
func TestEbb(t *testing.T) {
	steady := weather{4 * 125_000, 60 * ms}
	slow := func(at time.Duration) weather {
		if at > 3*time.Second {
			return weather{steady.rate / 30, steady.base}
		}
		return steady
	}
	u := &tube{limit: 1}
	u.run(3300*ms, slow)
	if got, window := u.e.NetCap(), u.e.netCap(); got > 8000 || window < 3*got {
		t.Errorf("%d bytes may be in flight 300 ms after a line has become thirty times slower; the window has %d", got, window)
	}
	if got := u.e.Rate(); got > steady.rate/10 {
		t.Errorf("%.0f bytes per second are predicted, %.0f are carried", got, steady.rate/30)
	}
	for _, c := range []struct {
		name string
		at   func(time.Duration) weather
	}{
		{"a pause of 200 ms each second", func(at time.Duration) weather {
			if at%time.Second > 800*ms {
				return weather{0, steady.base}
			}
			return steady
		}},
		{"a path that becomes longer each other second", func(at time.Duration) weather {
			if at/time.Second%2 == 1 {
				return weather{steady.rate, 2 * steady.base}
			}
			return steady
		}},
	} {
		with := &tube{limit: 1}
		with.run(10*time.Second, c.at)
		if used, _, p95 := with.result(); used < 0.93 {
			t.Errorf("%s: %.3f used, queue p95 %v", c.name, used, p95)
		}
	}
}

// TestEbbLonger: a path has become longer where the round trip that was measured with little
// in flight is the same with much. It is not where that varies, as a queue does, or becomes
// longer by what is in flight; and what comes by it then shows no ebb.
func TestEbbLonger(t *testing.T) {
	type state struct {
		rtt    time.Duration
		flying int
		lasts  time.Duration
	}
	for _, c := range []struct {
		name   string
		states []state
		far    bool
	}{
		{"longer", []state{{200 * ms, 100_000, time.Second}}, true},
		{"longer, filled slowly", []state{{200 * ms, 20_000, time.Second}, {205 * ms, 40_000, time.Second}}, true},
		{"little in flight still", []state{{200 * ms, 30_000, 5 * time.Second}}, false},
		{"a queue", []state{{210 * ms, 20_000, 200 * ms}, {400 * ms, 40_000, time.Second}}, false},
		{"a queue that goes", []state{{150 * ms, 20_000, 200 * ms}, {200 * ms, 100_000, time.Second}}, false},
		{"less than a round with much", []state{{200 * ms, 100_000, 150 * ms}, {20 * ms, 100_000, time.Second}}, false},
	} {
		var b ebb
		now, came, told, on := time.Unix(1000, 0), 0.0, 0, 0
		look := func(s state) {
			for end := now.Add(s.lasts); now.Before(end); now = now.Add(ms) {
				came += float64(s.flying) * float64(ms) / float64(s.rtt)
				v := View{RTT: s.rtt, Delivered: uint64(came), InFlight: s.flying, Flying: s.flying}
				if b.prove(now, v) {
					told++
				}
				if b.look(now, v); b.on {
					on++
				}
			}
		}
		look(state{20 * ms, 50_000, time.Second})
		look(state{200 * ms, 50_000, 500 * ms})
		if on == 0 {
			t.Fatal("no ebb shows where it is not known that the path has become longer")
		}
		look(state{200 * ms, 8000, 400 * ms})
		b.measured(200*ms, 8000)
		for _, s := range c.states {
			look(s)
		}
		if far := told > 0; far != c.far || told > 1 || far && b.base < 190*ms {
			t.Errorf("%s: told %d times, base %v", c.name, told, b.base)
		}
		if on = 0; c.far {
			if look(state{205 * ms, 100_000, time.Second}); on > 0 {
				t.Errorf("%s: it ebbs for %d ms all the same", c.name, on)
			}
		}
	}
}

// TestWait: what a link that delivers has before a chunk says when it comes, and the
// chunk's age does where nothing comes.
func TestWait(t *testing.T) {
	l := up(60*ms, 4, 40_000, 0) // 500 bytes a millisecond
	for _, c := range []struct {
		name               string
		ahead              int
		age, pred, silence time.Duration
		want               time.Duration
	}{
		{"next, and late", 1500, 300 * ms, 100 * ms, 2 * ms, -27 * ms},
		{"behind a queue", 40_000, 300 * ms, 100 * ms, 2 * ms, 50 * ms},
		{"predicted all wrong", 1500, 500 * ms, 100 * ms, 2 * ms, 400 * ms},
		{"next, and nothing comes for a while", 1500, 120 * ms, 100 * ms, 45 * ms, 45 * ms},
		{"next, and nothing comes", 1500, 300 * ms, 100 * ms, 80 * ms, 200 * ms},
	} {
		if got := l.Wait(c.ahead, c.age, c.pred, c.silence); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got := l.Guess(300*ms, 100*ms); got != 200*ms {
		t.Errorf("one that may be lost: %v, want 200 ms", got)
	}
}

// TestEbbBase: what a look shows that comes when the least round trip has become old is
// not taken for it, with the queue that it has in it.
func TestEbbBase(t *testing.T) {
	var b ebb
	now := time.Unix(1000, 0)
	for at := time.Duration(0); at < 35*time.Second; at += 10 * ms {
		rtt := 400 * ms
		switch at {
		case 0:
			rtt = 60 * ms
		case 15 * time.Second:
			rtt = 70 * ms
		}
		b.see(now.Add(at), rtt)
		want := 60 * ms
		if at > 21*time.Second {
			want = 70 * ms
		}
		if (at < 20*time.Second || at > 21*time.Second) && at < 29*time.Second && b.base != want {
			t.Fatalf("after %v: %v, want %v", at, b.base, want)
		}
	}
	if b.base != 400*ms {
		t.Errorf("at last %v, want 400 ms: the path has become longer", b.base)
	}
}

// TestStuck: bulk goes twice where its flow stands still, then whatever was predicted.
func TestStuck(t *testing.T) {
	for _, c := range []struct {
		name                      string
		age, late, stuck, silence time.Duration
		told                      Told
		want                      bool
	}{
		{"late, but the flow goes on", 400 * ms, 200 * ms, 100 * ms, 2 * ms, Whole, false},
		{"the same on a link that is silent", 400 * ms, 200 * ms, 100 * ms, 95 * ms, Whole, true},
		{"a link that is silent, and the flow goes on", 400 * ms, 200 * ms, 80 * ms, 95 * ms, Whole, false},
		{"late, and the flow stands", 400 * ms, 200 * ms, 150 * ms, 2 * ms, Whole, true},
		{"predicted to take seconds", 260 * ms, 3 * time.Second, 200 * ms, 2 * ms, Whole, true},
		{"the same, and nothing is told", 260 * ms, 3 * time.Second, 200 * ms, 2 * ms, Nothing, false},
		{"late, and nothing is told", 260 * ms, 200 * ms, 20 * ms, 2 * ms, Nothing, true},
		{"predicted to take seconds, behind a gap", 260 * ms, 3 * time.Second, 200 * ms, 2 * ms, Gap, false},
		{"late behind a gap that is filled", 260 * ms, 200 * ms, 20 * ms, 2 * ms, Gap, false},
		{"late behind a gap, and the flow stands", 260 * ms, 200 * ms, 90 * ms, 2 * ms, Gap, true},
		{"late behind a gap, on a link that is silent", 260 * ms, 200 * ms, 20 * ms, 50 * ms, Gap, true},
		{"not late yet", 190 * ms, 200 * ms, 190 * ms, 2 * ms, Whole, false},
	} {
		if got := Stuck(c.age, c.late, c.stuck, c.silence, c.told); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
