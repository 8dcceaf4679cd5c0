package link

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	var got []time.Duration
	for range 6 {
		got = append(got, b.Next(0))
	}
	want := []time.Duration{100, 200, 400, 800, 1000, 1000}
	for i := range want {
		if got[i] != want[i]*time.Millisecond {
			t.Errorf("delay %d is %v, want %v ms", i, got[i], int(want[i]))
		}
	}
	if d := b.Next(0.999999); d < 500*time.Millisecond || d > 501*time.Millisecond {
		t.Errorf("shortest delay is %v", d)
	}
	if b.Failures() != 7 {
		t.Errorf("%d failures counted", b.Failures())
	}
	for range 100 { // must not overflow
		if d := b.Next(0); d != b.Max {
			t.Fatalf("delay %v", d)
		}
	}
	b.Reset()
	if d := b.Next(0); d != b.Min {
		t.Errorf("after a reset: %v", d)
	}
}
