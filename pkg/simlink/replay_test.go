package simlink

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/e2e/emu"
)

// TestReplay: a line follows a recording as the emulator does: an opportunity that
// nobody uses is lost, and packets share one.
func TestReplay(t *testing.T) {
	trace, err := emu.ParseTrace(strings.NewReader("0\n10\n10\n40\n100\n"))
	if err != nil {
		t.Fatal(err)
	}
	const ms = time.Millisecond
	e := NewEvents()
	began := e.Now()
	l := e.NewLine(1, 5*ms, 1, 1)
	l.Replay(trace, 0, time.Second)
	if !l.Replays() || l.Rate != 75000 || l.Queue != 75000 {
		t.Errorf("rate %v, queue %v, wanted 75000", l.Rate, l.Queue)
	}
	var got []time.Duration
	send := func(at time.Duration, size int) {
		e.At(began.Add(at), func() { l.Send(size, func() { got = append(got, e.Now().Sub(began)) }) })
	}
	send(5*ms, 1500)
	send(5*ms, 700)
	send(5*ms, 700)
	send(5*ms, 200)  // 100 bytes of it in the next
	send(50*ms, 100) // what was left of that is gone
	send(101*ms, 1500)
	e.Run(began.Add(time.Second), nil)
	if want := []time.Duration{15 * ms, 15 * ms, 15 * ms, 45 * ms, 105 * ms, 115 * ms}; !slices.Equal(got, want) {
		t.Errorf("arrived at %v, wanted %v", got, want)
	}
	if n := l.Could(began); n != 49*1500 {
		t.Errorf("could have carried %v in a second", n)
	}
}
