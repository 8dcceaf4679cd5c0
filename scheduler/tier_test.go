package scheduler

import (
	"testing"
	"time"
)

func TestAdmit(t *testing.T) {
	tier := func(t Tier, l Link) Link { l.Tier = t; return l }
	down := func(l Link) Link { l.State = Down; return l }
	leaving := func(l Link) Link { l.Leaving = true; return l }
	first, second, third := up(20*ms, 50, 0, 1<<20), tier(Secondary, up(40*ms, 20, 0, 1<<20)), tier(Standby, up(600*ms, 5, 0, 1<<20))
	full := up(20*ms, 50, 150_000, 0)
	late := up(400*ms, 50, 0, 1<<20)
	for _, c := range []struct {
		name  string
		class Class
		links []Link
		want  string // the links that may be used
	}{
		{"the primary one does", Normal, []Link{first, second, third}, "0"},
		{"it is full: the secondary one joins", Normal, []Link{full, second, third}, "01"},
		{"both are full: standby stays out", Normal, []Link{full, tier(Secondary, full), third}, "01"},
		{"background joins nothing dearer", Background, []Link{full, second, third}, "0"},
		{"the primary one is down", Background, []Link{down(first), second, third}, "1"},
		{"all but standby are down", Background, []Link{down(first), down(second), third}, "2"},
		{"nothing is too late for a last resort", Latency, []Link{late, tier(LastResort, first)}, "0"},
		{"all but the last resort are down", Latency, []Link{down(first), down(third), tier(LastResort, late)}, "2"},
		{"too late for class latency", Latency, []Link{late, tier(Standby, first)}, "01"},
		{"not too late for class normal", Normal, []Link{late, tier(Standby, first)}, "0"},
		{"a leaving link gets nothing", Normal, []Link{leaving(first), up(80*ms, 5, 0, 1)}, "1"},
		{"it leaves to a dearer one", Normal, []Link{leaving(first), third}, "1"},
		{"unless it is the only one", Normal, []Link{leaving(first), down(second)}, "0"},
	} {
		got := ""
		for i, l := range Admit(nil, c.links, Chunk{Size: 10_000, Class: c.class}) {
			if l.State == Up {
				got += string(rune('0' + i))
			}
		}
		if got != c.want {
			t.Errorf("%s: links %s, want %s", c.name, got, c.want)
		}
	}
	if Narrow([]Link{first, late}) || !Narrow([]Link{first, second}) || !Narrow([]Link{leaving(first)}) {
		t.Error("Narrow is wrong")
	}
}

func TestHint(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name    string
		h       Hint
		leaving bool
		rate    float64
		room    int
	}{
		{"stale", Hint{Leaving: true, Rate: 1000, Until: now}, false, 6.25e6, 1 << 20},
		{"about to die", Hint{Leaving: true, Until: now.Add(1)}, true, 6.25e6, 1 << 20},
		{"a forecast", Hint{Rate: 1e6, Until: now.Add(1)}, false, 1e6, 20_000},
		{"a forecast above what is measured", Hint{Rate: 1e9, Until: now.Add(1)}, false, 6.25e6, 1 << 20},
	} {
		l := up(20*ms, 50, 0, 1<<20)
		c.h.Apply(&l, now)
		if l.Leaving != c.leaving || l.Rate != c.rate || l.Room != c.room {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
}
