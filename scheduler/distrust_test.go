package scheduler

import (
	"testing"
	"time"
)

// TestDistrust: who is caught once is out for a second, who goes on for longer and longer,
// up to a minute, and after an hour nothing is left of it.
func TestDistrust(t *testing.T) {
	now := time.Unix(1000, 0)
	var d Distrust
	if d.Score(now) != 0 || d.Until().After(now) {
		t.Error("a link that has done nothing is not trusted")
	}
	d.Blame(now, 0.5)
	if d.Until().After(now) {
		t.Error("a link that may have done nothing gets nothing")
	}
	d.Blame(now, 0.5)
	if got := d.Until().Sub(now); got != time.Second {
		t.Errorf("after one time it is out for %v", got)
	}
	before := time.Second
	for range 20 { // as soon as it is back
		now = d.Until()
		d.Blame(now, 1)
		got := d.Until().Sub(now)
		if got < before*9/10 || got > shunMost {
			t.Errorf("out for %v after %v", got, before)
		}
		before = got
	}
	if before < 20*time.Second {
		t.Errorf("one that never does anything else is out for %v at a time", before)
	}
	now = now.Add(time.Hour)
	if got := d.Score(now); got > 0.001 {
		t.Errorf("%v is left after an hour", got)
	}
}

// TestAdmitRefused: what was refused before goes by one link alone, the one that has
// least to answer for, though others are nearer or have more room.
func TestAdmitRefused(t *testing.T) {
	near := Link{State: Up, MinRTT: 10 * ms, SRTT: 10 * ms, Rate: 1e6, Room: 1e5, Blamed: 1}
	far := Link{State: Up, MinRTT: 90 * ms, SRTT: 90 * ms, Rate: 1e5, Room: 0}
	dead := Link{State: Suspect}
	for name, c := range map[string]struct {
		links []Link
		want  int
	}{
		"less to answer for":  {[]Link{near, far, dead}, 1},
		"alone":               {[]Link{dead, near}, 1},
		"nearer of two equal": {[]Link{dead, {State: Up, MinRTT: 20 * ms}, {State: Up, MinRTT: 10 * ms}}, 2},
		"none":                {[]Link{dead}, -1},
	} {
		for i, l := range Admit(nil, c.links, Chunk{Size: 1000, Refused: true}) {
			if (l.State == Up) != (i == c.want) {
				t.Errorf("%s: link %d is %v", name, i, l.State)
			}
		}
	}
}
