package scheduler

import (
	"testing"
	"time"
)

// TestShort: a transport that holds a link back though the path has no queue is
// asked for more, more rarely as long as that brings nothing; and it is not asked
// where there is a queue, where nothing waits, or on a LAN.
func TestShort(t *testing.T) {
	for _, c := range []struct {
		name        string
		base, queue time.Duration
		waiting     int
		least, most int // times that it is asked within 100 round trips
	}{
		{"held", 60 * ms, 0, 100 << 10, 3, 8},
		{"a queue", 60 * ms, 20 * ms, 100 << 10, 0, 0},
		{"nothing waits", 60 * ms, 0, 4 << 10, 0, 0},
		{"for a moment", 20 * ms, 0, -5, 0, 0},
		{"a LAN", 1 * ms, 0, 100 << 10, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Estimator{full: true, minRTT: c.base, minRTTAt: time.Unix(1000, 0), srtt: c.base}
			now, delivered, asked := time.Unix(1000, 0), 0, 0
			for round := range 100 {
				path := c.base + c.queue
				e.See(path)
				waiting := c.waiting
				if waiting < 0 { // in so many round trips of so many and one
					waiting = 100 << 10
					if round%(1-c.waiting) == 0 {
						waiting = 0
					}
				}
				for range 10 {
					now = now.Add(path / 10)
					delivered += 10_000
					e.Look(now, View{RTT: path, Delivered: uint64(delivered), Flying: 100_000 + waiting, InFlight: 100_000})
				}
				e.Ack(now, Sample{RTT: path, Delivered: 100_000, Interval: path, Round: true})
				if e.Urge() {
					asked++
				}
			}
			if asked < c.least || asked > c.most {
				t.Errorf("asked %d times, want %d to %d", asked, c.least, c.most)
			}
		})
	}
}

// TestStartOnALongerPath: a link whose path has become half as long again while
// it was idle is used within two seconds: what looks like a queue in its start is
// none.
func TestStartOnALongerPath(t *testing.T) {
	u := &tube{limit: 0.3}
	before := time.Unix(999, 0)
	for range 3 {
		u.e.Ack(before, Sample{RTT: 80 * ms, Delivered: 100, Interval: 80 * ms, AppLimited: true, Round: true})
	}
	u.run(4*time.Second, func(time.Duration) weather { return weather{48 * 125_000, 120 * ms} })
	if used, p50, _ := u.result(); used < 0.7 {
		t.Errorf("%.3f used, wanted 0.7; queue p50 %v", used, p50)
	}
}

// TestFollowerSeesATransportThatHolds: a search that has just ended, and then the
// transport keeps nearly all of the window back while there is no queue: it is
// asked for more.
func TestFollowerSeesATransportThatHolds(t *testing.T) {
	var f Follower
	now, delivered, urged := time.Unix(1000, 0), 0, 0
	f.begin(now, View{RTT: 60 * ms}, startCap, 1.25e6, 60*ms)
	f.drains, f.weighing, f.window = 0, true, 600_000
	for range 100 { // a second at 1 MB/s, of which the window would allow ten times as much
		now = now.Add(10 * ms)
		delivered += 10_000
		f.Look(now, View{RTT: 60 * ms, Delivered: uint64(delivered), Flying: 160_000, InFlight: 60_000})
		if f.Urge() {
			urged++
		}
	}
	if urged == 0 || urged > 4 {
		t.Errorf("urged %d times within a second", urged)
	}
}
