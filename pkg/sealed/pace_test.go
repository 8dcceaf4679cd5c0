package sealed

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
)

// TestPace: records become large within a moment where a lane is fast, and small again
// where it was at rest.
func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	send := func(mbit float64, d time.Duration) (record int) {
		for range d / time.Millisecond {
			now = now.Add(time.Millisecond)
			p.sent += int(mbit * 125)
			record = p.record(now)
		}
		return record
	}
	for _, c := range []struct {
		mbit        float64
		d           time.Duration
		least, most int
	}{
		{1000, 5 * time.Millisecond, buffer.Plain, buffer.Plain},
		{1000, 50 * time.Millisecond, 48_000, 52_000},
		{400, 50 * time.Millisecond, 19_000, 21_000},
		{100, 50 * time.Millisecond, buffer.Plain, buffer.Plain},
		{4000, 50 * time.Millisecond, buffer.Most, buffer.Most},
	} {
		if n := send(c.mbit, c.d); n < c.least || n > c.most {
			t.Errorf("%v Mbit/s: records of up to %d bytes", c.mbit, n)
		}
	}
	now = now.Add(time.Minute)
	if n := p.record(now); n != buffer.Plain {
		t.Errorf("after a rest: records of up to %d bytes", n)
	}
}
