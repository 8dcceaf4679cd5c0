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
		told, want                bool
	}{
		{"late, but the flow goes on", 400 * ms, 200 * ms, 100 * ms, 2 * ms, true, false},
		{"the same on a link that is silent", 400 * ms, 200 * ms, 100 * ms, 95 * ms, true, true},
		{"a link that is silent, and the flow goes on", 400 * ms, 200 * ms, 80 * ms, 95 * ms, true, false},
		{"late, and the flow stands", 400 * ms, 200 * ms, 150 * ms, 2 * ms, true, true},
		{"predicted to take seconds", 260 * ms, 3 * time.Second, 200 * ms, 2 * ms, true, true},
		{"the same behind a gap", 260 * ms, 3 * time.Second, 200 * ms, 2 * ms, false, false},
		{"late behind a gap", 260 * ms, 200 * ms, 20 * ms, 2 * ms, false, true},
		{"not late yet", 190 * ms, 200 * ms, 190 * ms, 2 * ms, true, false},
	} {
		if got := Stuck(c.age, c.late, c.stuck, c.silence, c.told); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
