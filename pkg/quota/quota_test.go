package quota

import (
	"testing"
	"time"
)

const gb = 1_000_000_000

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

// TestMonths: a month begins on its day, at midnight of the box's own time, and
// on the last day of a shorter month.
func TestMonths(t *testing.T) {
	for _, c := range []struct {
		day             int
		now, begin, end string
	}{
		{1, "2026-11-26 03:00", "2026-11-01 00:00", "2026-12-01 00:00"},
		{1, "2026-12-01 00:00", "2026-12-01 00:00", "2027-01-01 00:00"},
		{15, "2026-11-14 23:59", "2026-10-15 00:00", "2026-11-15 00:00"},
		{15, "2026-11-15 00:00", "2026-11-15 00:00", "2026-12-15 00:00"},
		{31, "2027-02-27 12:00", "2027-01-31 00:00", "2027-02-28 00:00"},
		{31, "2027-02-28 00:00", "2027-02-28 00:00", "2027-03-31 00:00"},
		{30, "2028-02-29 12:00", "2028-02-29 00:00", "2028-03-30 00:00"},
		{29, "2027-01-01 12:00", "2026-12-29 00:00", "2027-01-29 00:00"},
	} {
		m := New(Plan{Bytes: gb, Day: c.day}, State{})
		m.Judge(at(c.now))
		if begin, end := m.Month(); !begin.Equal(at(c.begin)) || !end.Equal(at(c.end)) {
			t.Errorf("day %d at %s: %v to %v", c.day, c.now, begin, end)
		}
	}
}

// TestPacing: what the link may carry grows with the month; what was saved may
// be used at once; who is ahead is spared until a part of it has come back.
func TestPacing(t *testing.T) {
	m := New(Plan{Bytes: 30 * gb, Day: 1}, State{}) // 1 GB a day, in November
	total := uint64(0)
	for _, step := range []struct {
		when string
		gb   float64 // carried before
		want Verdict
	}{
		{"2026-11-01 00:00", 0, Within},
		{"2026-11-01 01:00", 0.9, Within}, // a day's share is there at once
		{"2026-11-01 02:00", 0.3, Ahead},
		{"2026-11-01 06:00", 0, Ahead}, // 1.25 allowed, 1.2 used: too little regained
		{"2026-11-01 09:00", 0, Within},
		{"2026-11-21 00:00", 19, Within}, // 20 days saved up
		{"2026-11-21 00:01", 0.9, Ahead},
		{"2026-11-21 12:00", 2, Ahead},
		{"2026-11-30 23:00", 6.5, Within},
		{"2026-11-30 23:59", 0.4, Spent},
		{"2026-12-01 00:00", 0, Within},
	} {
		total += uint64(step.gb * gb)
		if got := m.Count(at(step.when), Reading{Interface: "wwan0", Index: 7, Received: total}); got != step.want {
			t.Errorf("%s: %v, want %v: %d of %d used", step.when, got, step.want, m.State().Used, m.Allowed(at(step.when)))
		}
	}
}

// TestLastsTheMonth: whoever takes all that he may, and stops when he is told
// to, spends the quota in the month's last day and not before.
func TestLastsTheMonth(t *testing.T) {
	m := New(Plan{Bytes: 50 * gb, Day: 10}, State{})
	total, turns, was := uint64(0), 0, Within
	begin := at("2026-11-10 00:00")
	m.Count(begin, Reading{Interface: "wwan0", Index: 7, Received: 0})
	for now := begin; now.Before(at("2026-12-09 00:00")); now = now.Add(time.Minute) {
		got := m.Count(now, Reading{Interface: "wwan0", Index: 7, Received: total})
		if got == Spent {
			t.Fatalf("spent on %v", now)
		}
		if got != was {
			turns++
		}
		if was = got; got == Within {
			total += 20_000_000 / 8 * 60 // 20 Mbit/s
		}
	}
	if used := m.State().Used; used < 48*gb {
		t.Errorf("only %d used", used)
	}
	if turns > 2*30*8 {
		t.Errorf("%d changes", turns)
	}
}

// TestCounters: the kernel's counters may begin anew, and go on while nobody
// counts.
func TestCounters(t *testing.T) {
	now := at("2026-11-03 00:00")
	m := New(Plan{Bytes: gb, Day: 1}, State{})
	used := func(step string, want uint64) {
		t.Helper()
		if got := m.State().Used; got != want {
			t.Errorf("%s: %d used, want %d", step, got, want)
		}
	}
	m.Count(now, Reading{Interface: "wwan0", Index: 7, Received: 5000})
	used("what was before the first look is not counted", 0)
	m.Count(now, Reading{Interface: "wwan0", Index: 7, Received: 6000})
	used("growth", 1000)
	m = New(Plan{Bytes: gb, Day: 1}, m.State())
	m.Count(now, Reading{Interface: "wwan0", Index: 7, Received: 6500})
	used("carried while the program did not run", 1500)
	m.Count(now, Reading{Interface: "wwan0", Index: 9, Received: 9000})
	used("the modem was plugged in anew", 10_500)
	m.Count(now, Reading{Interface: "wwan0", Index: 9, Received: 100})
	used("the box was started anew", 10_600)
	m.Count(now, Reading{Interface: "eth1", Index: 2, Received: 1 << 40})
	used("another interface was configured", 10_600)
	m.Count(now, Reading{Interface: "eth1", Index: 2, Received: 1<<40 + 5})
	used("it carries", 10_605)
}

// TestStarts: after a start of the kernel all that it has counted is news, although the
// interface has the same number; counters of 32 bits go round, each for itself; a state of
// an older version tells neither.
func TestStarts(t *testing.T) {
	now := at("2026-11-03 00:00")
	const full = 1 << 32
	for _, c := range []struct {
		name     string
		was, now Reading
		want     uint64
	}{
		{"on", Reading{"wwan0", 3, "a", 1000, 2000}, Reading{"wwan0", 3, "a", 1500, 2700}, 1200},
		{"a start, less", Reading{"wwan0", 3, "a", 1000, 2000}, Reading{"wwan0", 3, "b", 10, 20}, 30},
		{"a start, more", Reading{"wwan0", 3, "a", 1000, 2000}, Reading{"wwan0", 3, "b", 1500, 2700}, 4200},
		{"round", Reading{"wwan0", 3, "a", 3e9, full - 10}, Reading{"wwan0", 3, "a", 3e9 + 5, 90}, 95},
		{"anew", Reading{"wwan0", 3, "a", 1000, 2000}, Reading{"wwan0", 3, "a", 10, 20}, 30},
		{"another", Reading{"wwan0", 3, "a", 1000, 2000}, Reading{"wwan0", 4, "a", 1500, 2700}, 4200},
		{"unknown", Reading{"wwan0", 3, "", 1000, 2000}, Reading{"wwan0", 3, "b", 1500, 2700}, 1200},
		{"unknown now", Reading{"wwan0", 3, "a", 1000, 2000}, Reading{"wwan0", 3, "", 1500, 2700}, 1200},
	} {
		m := New(Plan{Bytes: gb, Day: 1}, State{})
		m.Count(now, c.was)
		m = New(Plan{Bytes: gb, Day: 1}, m.State())
		m.Count(now, c.now)
		if got := m.State().Used; got != c.want {
			t.Errorf("%s: %d used, want %d", c.name, got, c.want)
		}
	}
	older := State{Begun: at("2026-11-01 00:00"), Interface: "wwan0", Index: 3, Total: 3000}
	m := New(Plan{Bytes: gb, Day: 1}, older)
	m.Count(now, Reading{"wwan0", 3, "b", 1500, 2700})
	m.Count(now, Reading{"wwan0", 3, "b", 1501, 2702})
	if got := m.State(); got.Used != 1203 || got.Total != 4203 {
		t.Errorf("a state of an older version: %+v", got)
	}
}

// TestZones: who travels to another time zone, or is given another day, gets no
// second quota and no short month.
func TestZones(t *testing.T) {
	west := time.FixedZone("west", -9*3600)
	for _, c := range []struct {
		name string
		day  int
		now  time.Time
		ends time.Time
	}{
		{"west", 1, at("2026-11-20 00:00").In(west), time.Date(2026, 12, 1, 0, 0, 0, 0, west)},
		{"east", 1, at("2026-11-20 00:00").In(time.FixedZone("east", 9*3600)), at("2026-11-30 15:00")},
		{"another day", 15, at("2026-11-20 00:00"), at("2026-12-15 00:00")},
	} {
		m := New(Plan{Bytes: gb, Day: c.day}, State{Begun: at("2026-11-01 00:00"), Used: gb})
		if got := m.Judge(c.now); got != Spent {
			t.Errorf("%s: %v", c.name, got)
		}
		if _, end := m.Month(); !end.Equal(c.ends) {
			t.Errorf("%s: the month ends %v, want %v", c.name, end, c.ends)
		}
		if got := m.Judge(c.ends.In(c.now.Location())); got != Within {
			t.Errorf("%s: the next month is %v", c.name, got)
		}
	}
}

// TestClock: a clock that stands in the past begins no month and forgets none.
func TestClock(t *testing.T) {
	m := New(Plan{Bytes: gb, Day: 1}, State{Begun: at("2026-11-01 00:00"), Used: gb, Interface: "wwan0", Index: 7})
	for _, c := range []struct {
		when string
		want Verdict
	}{{"1970-01-01 00:01", Spent}, {"2026-11-26 03:00", Spent}, {"2026-12-02 00:00", Within}} {
		if got := m.Judge(at(c.when)); got != c.want {
			t.Errorf("%s: %v, want %v", c.when, got, c.want)
		}
	}
	m = New(Plan{Bytes: gb, Day: 1}, State{Begun: at("2026-11-01 00:00"), Used: 1000})
	if got := m.Allowed(at("1970-01-01 00:00")); got != gb/burstShare {
		t.Errorf("in 1970 %d is allowed", got)
	}
}

// TestClockAhead: a clock that stands years ahead for a while costs no month, and is
// forgotten when it is right again; that of 1970 still says nothing.
func TestClockAhead(t *testing.T) {
	for name, steps := range map[string][]struct {
		when  string
		gb    float64 // carried before
		want  Verdict
		month string // that is counted then
	}{
		"at a start": {
			{"2026-11-10 00:00", 0, Within, "2026-11"},
			{"2026-11-10 12:00", 11, Ahead, "2026-11"},
			{"2036-02-07 06:28", 0, Within, "2036-02"},
			{"1970-01-01 00:01", 0, Within, "2036-02"},
			{"2036-02-07 06:29", 1, Within, "2036-02"},
			{"2026-11-11 00:00", 0, Ahead, "2026-11"},
			{"2026-11-20 00:00", 20, Spent, "2026-11"},
			{"2026-12-01 00:00", 0, Within, "2026-12"},
			{"2026-11-30 00:00", 0, Within, "2026-12"}, // a clock that is a little behind
		},
		"over the end of a month": {
			{"2026-11-10 00:00", 0, Within, "2026-11"},
			{"2036-02-07 06:28", 29, Ahead, "2036-02"},
			{"2026-12-03 00:00", 0.5, Ahead, "2026-12"},
			{"2026-12-03 00:01", 29.5, Spent, "2026-12"},
			{"2027-01-01 00:00", 0, Within, "2027-01"},
		},
		"once more": {
			{"2026-11-10 00:00", 0, Within, "2026-11"},
			{"2026-11-20 00:00", 19, Within, "2026-11"},
			{"2036-02-07 06:28", 0.5, Within, "2036-02"},
			{"2026-11-20 00:01", 1.5, Ahead, "2026-11"},
			{"2026-12-01 00:00", 0, Within, "2026-12"},
			{"2036-02-07 06:28", 0, Within, "2036-02"},
			{"2026-12-01 00:01", 0.9, Within, "2026-12"},
			{"2026-12-01 00:02", 0.2, Ahead, "2026-12"},
		},
		"two months": { // the least leap: one month is what an ordinary clock goes
			{"2026-11-10 00:00", 0, Within, "2026-11"},
			{"2026-11-20 00:00", 19, Within, "2026-11"},
			{"2027-01-02 00:00", 0, Within, "2027-01"},
			{"2026-11-20 00:01", 1.5, Ahead, "2026-11"},
			{"2026-12-01 00:00", 0, Within, "2026-12"},
		},
		"1970 at each start": { // the first of all, too
			{"1970-01-01 00:01", 0, Within, "1970-01"},
			{"2026-11-10 00:00", 0.1, Within, "2026-11"},
			{"2026-11-20 00:00", 25, Ahead, "2026-11"},
			{"1970-01-01 00:01", 0, Ahead, "1970-01"},
			{"2026-11-20 00:01", 0.1, Ahead, "2026-11"},
			{"2026-11-20 00:02", 4.7, Ahead, "2026-11"},
			{"1970-01-01 00:01", 0, Ahead, "1970-01"},
			{"2026-11-20 00:03", 0.2, Spent, "2026-11"},
			{"1970-01-01 00:01", 0, Spent, "1970-01"},
			{"2026-12-02 00:00", 0, Within, "2026-12"},
			{"1970-01-01 00:01", 0, Spent, "1970-01"},
			{"2026-12-02 00:00", 1.9, Within, "2026-12"},
			{"2027-01-01 00:00", 0, Within, "2027-01"},
			{"1970-01-01 00:01", 0, Spent, "1970-01"},
			{"2027-01-01 00:01", 0.9, Within, "2027-01"},
			{"2027-01-01 00:02", 0.2, Ahead, "2027-01"},
		},
		"for good": { // the box was off for months
			{"2026-11-10 00:00", 0, Within, "2026-11"},
			{"2027-03-10 00:00", 31, Spent, "2027-03"},
			{"2027-04-01 00:00", 0, Within, "2027-04"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(Plan{Bytes: 30 * gb, Day: 1}, State{})
			total := uint64(0)
			for _, step := range steps {
				total += uint64(step.gb * gb)
				got := m.Count(at(step.when), Reading{Interface: "wwan0", Index: 7, Received: total})
				if begin, _ := m.Month(); got != step.want || begin.Format("2006-01") != step.month {
					t.Errorf("%s: %v in the month of %v, want %v in %s: %d used", step.when, got, begin, step.want, step.month, m.State().Used)
				}
			}
		})
	}
}
