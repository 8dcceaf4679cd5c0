package relay

import (
	"testing"
	"time"

	"hawser/pkg/party"
)

// TestTrickle: who takes nothing of what waits for him for a while reads slowly, until he
// has taken more than a slow reader does at a time. Who takes what comes never does.
func TestTrickle(t *testing.T) {
	const piece = 1 << 10
	start := time.UnixMilli(1_764_000_000_000)
	for at := time.Duration(0); at < 17*time.Second; at += 50 * time.Millisecond { // wherever the count stands
		now := start.Add(at)
		var tr trickle
		tr.full(now)
		if tr.took(piece, now.Add(100*time.Millisecond)); tr.slow != 0 {
			t.Fatalf("%v: slow after 100 ms", at)
		}
		if tr.took(piece, now.Add(time.Hour)); tr.slow != 0 {
			t.Fatalf("%v: slow though nothing waited", at)
		}
		tr.full(now)
		if tr.took(piece, now.Add(time.Second)); tr.slow == 0 {
			t.Fatalf("%v: not slow after 1 s", at)
		}
		for n := piece; n < slowFor*trickleBytes; n += piece {
			if tr.took(piece, now); tr.slow == 0 {
				t.Fatalf("%v: not slow after %d bytes", at, n)
			}
		}
		if tr.took(piece, now); tr.slow != 0 {
			t.Fatalf("%v: slow for ever", at)
		}
	}
}

// roomy is a party that knows what it takes.
type roomy struct {
	party.Conn
	room int
}

func (r roomy) Room() int { return r.room }

// TestRoom: a session is told of a slow reader's room only, and then of some.
func TestRoom(t *testing.T) {
	for _, c := range []struct {
		name string
		conn party.Conn
		slow uint8
		want uint16
	}{
		{"quick", roomy{room: 3000}, 0, 0},
		{"slow", roomy{room: 3000}, 1, 3000},
		{"slow and full", roomy{room: 0}, 1, 1},
		{"slow with much room", roomy{room: 1 << 20}, 1, 1<<16 - 1},
		{"slow that does not say", nil, 1, 0},
	} {
		f := &flow{conn: c.conn}
		if f.down.trickle.slow = c.slow; f.room() != c.want {
			t.Errorf("%s: %d, want %d", c.name, f.room(), c.want)
		}
	}
}
