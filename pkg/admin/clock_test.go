package admin

import (
	"strings"
	"testing"
	"time"
	"unsafe"
)

// before returns the moment t as a box has noted it whose clock was set ahead by d since:
// its wall clock reads less, its monotonic clock the same.
func before(t time.Time, d time.Duration) time.Time {
	const seconds = 30 // the wall clock's seconds are above its nanoseconds in the first word
	*(*uint64)(unsafe.Pointer(&t)) -= uint64(d/time.Second) << seconds
	return t
}

// TestClockIsSet: a box whose clock is set, by years after a start without a battery or
// back by an hour, still shows how old all is, and when it began by the clock that it has now.
func TestClockIsSet(t *testing.T) {
	now := time.Now()
	for _, step := range []time.Duration{0, 26 * 365 * 24 * time.Hour, -time.Hour} {
		started, link, lane := now.Add(-10*time.Minute), now.Add(-9*time.Minute-30*time.Second), now.Add(-90*time.Second)
		source := func() Status {
			return Status{Role: "edge", Started: before(started, step), Uptime: 600, Taken: &Taken{At: before(link, step), What: "links"}, Sessions: []Session{{
				State: "up", Since: before(link, step), // all but the lane began before the step
				Links: []Link{{Name: "lte", State: "up", Since: before(link, step), Lanes: []Lane{{Number: 1, State: "up", Since: lane}}}, {Name: "wifi", State: "connecting"}},
			}}}
		}
		s := &Server{Source: source}
		start(t, s)
		status, err := Fetch(t.Context(), s.Path)
		if err != nil {
			t.Fatal(err)
		}
		if off := status.Started.Sub(started.Round(0)).Abs(); off > time.Second {
			t.Errorf("set ahead by %s: started at %s, want %s", step, status.Started, started)
		}
		if wifi := status.Sessions[0].Links[1]; !wifi.Since.IsZero() {
			t.Errorf("set ahead by %s: what is not known is now %s", step, wifi.Since)
		}
		var out strings.Builder
		if err := Render(&out, status); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"links, 9m 30s ago", "state: up for 9m 30s", "up for 9m 30s", "lane 1 up for 1m 30s"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("set ahead by %s: no %q in\n%s", step, want, out.String())
			}
		}
	}
}
