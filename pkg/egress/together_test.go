package egress

import (
	"testing"
	"time"

	"hawser/pkg/stream"
)

// TestRefusedTogether: attempts that were under way together when their server refuses are
// one refusal, and not one in a row each.
func TestRefusedTogether(t *testing.T) {
	l := New(Limits{Memory: time.Second})
	const together = 6
	for range together {
		if c := l.Ask("a", web, t0); c != stream.CodeNone {
			t.Fatal(c)
		}
	}
	for range together {
		l.End("a", web, stream.CodeRefused, t0.Add(20*time.Millisecond))
	}
	now := t0.Add(1020 * time.Millisecond)
	if c := l.Ask("a", web, now.Add(-1)); c != stream.CodeRefused {
		t.Errorf("within a second: %v", c)
	}
	if c := l.Ask("a", web, now); c != stream.CodeNone {
		t.Fatalf("after a second: %v", c)
	}
	l.End("a", web, stream.CodeRefused, now)
	if c := l.Ask("a", web, now.Add(2*time.Second-1)); c != stream.CodeRefused {
		t.Errorf("within two seconds of the second: %v", c)
	}
	if c := l.Ask("a", web, now.Add(2*time.Second)); c != stream.CodeNone {
		t.Errorf("two seconds after the second: %v", c)
	}
}
