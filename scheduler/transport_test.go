package scheduler

import (
	"testing"
	"time"
)

func TestBetterTransport(t *testing.T) {
	const ms = time.Millisecond
	tcp := func(mbit float64, rtt time.Duration) Measure { return Measure{"tcp", mbit * 1e6 / 8, rtt} }
	quic := func(mbit float64, rtt time.Duration) Measure { return Measure{"quic", mbit * 1e6 / 8, rtt} }
	for _, c := range []struct {
		name       string
		from, to   Measure
		want, dead bool
	}{
		{"equal under load: TCP stays", tcp(50, 30*ms), quic(50, 30*ms), false, false},
		{"a little more: TCP stays", tcp(50, 30*ms), quic(56, 30*ms), false, false},
		{"TCP is throttled", tcp(5, 30*ms), quic(45, 30*ms), true, false},
		{"TCP stands in a queue", tcp(50, 300*ms), quic(49, 40*ms), true, false},
		{"UDP is policed", tcp(50, 30*ms), quic(4, 30*ms), false, true},
		{"UDP is policed meanwhile, and TCP stands in its queue", quic(4, 20*ms), tcp(45, 60*ms), true, false},
		{"TCP delivers more, but stands in a queue", quic(45, 30*ms), tcp(60, 300*ms), false, false},
		{"back to TCP when equal", quic(50, 30*ms), tcp(49, 30*ms), true, false},
		{"TCP is still throttled", quic(45, 30*ms), tcp(5, 30*ms), false, true},
		{"back to TCP, but for its delay", quic(50, 30*ms), tcp(50, 90*ms), false, false},
		{"idle and equal: TCP stays", tcp(0, 30*ms), quic(0, 29*ms), false, false},
		{"idle and equal: back to TCP", quic(0, 29*ms), tcp(0, 30*ms), true, false},
		{"idle, and QUIC far quicker", tcp(0, 100*ms), quic(0, 30*ms), true, false},
		{"noise of a short path", tcp(0, 3*ms), quic(0, 1*ms), false, false},
		{"idle: a trickle is no load", tcp(0.2, 30*ms), quic(0.9, 30*ms), false, false},
	} {
		got, why := Better(c.from, c.to)
		if got != c.want || why == "" || Hopeless(c.from, c.to) != c.dead {
			t.Errorf("%s: %v (%s), hopeless %v", c.name, got, why, Hopeless(c.from, c.to))
		}
		// Hysteresis: what won does not lose to the same figures.
		if again, _ := Better(c.to, c.from); got && again {
			t.Errorf("%s: flaps", c.name)
		}
	}
}
