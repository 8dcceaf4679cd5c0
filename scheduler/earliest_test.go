package scheduler

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// up makes a link that is up: rate in Mbit/s.
func up(minRTT time.Duration, mbit float64, inFlight, room int) Link {
	return Link{State: Up, MinRTT: minRTT, SRTT: minRTT, Rate: mbit * 125_000, InFlight: inFlight, Room: room}
}

func TestETA(t *testing.T) {
	for _, c := range []struct {
		name string
		l    Link
		n    int
		want time.Duration
	}{
		{"idle: half a round trip and the bytes' own time", up(20*ms, 8, 0, 1), 1000, 11 * ms},
		{"a full pipe adds nothing", up(20*ms, 8, 20_000, 1), 1000, 11 * ms},
		{"what exceeds it waits", up(20*ms, 8, 40_000, 1), 1000, 31 * ms},
		{"no rate: never", Link{State: Up}, 1, 2 * time.Hour},
	} {
		if got := c.l.ETA(c.n); (got - c.want).Abs() > ms/10 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestEarliest(t *testing.T) {
	suspect := up(5*ms, 100, 0, 1<<20)
	suspect.State = Suspect
	for _, c := range []struct {
		name    string
		links   []Link
		n, left int
		want    int // -1: wait
	}{
		{"the quicker of two idle links", []Link{up(80*ms, 20, 0, 1<<20), up(20*ms, 50, 0, 1<<20)}, 16000, 1 << 20, 1},
		{"a queue turns it round", []Link{up(20*ms, 50, 600_000, 1<<20), up(80*ms, 20, 0, 1<<20)}, 16000, 1 << 20, 1},
		{"the quicker one is full, much is left: the other", []Link{up(20*ms, 50, 125_000, 0), up(80*ms, 20, 0, 1<<20)}, 16000, 1 << 20, 1},
		{"the quicker one is full, little is left: wait", []Link{up(20*ms, 50, 125_000, 0), up(200*ms, 20, 0, 1<<20)}, 16000, 16000, -1},
		{"alike: the one with less under way", []Link{up(20*ms, 50, 16_000, 1<<20), up(20*ms+300*time.Microsecond, 50, 0, 1<<20)}, 16000, 1 << 20, 1},
		{"alike: the other way round", []Link{up(20*ms, 50, 0, 1<<20), up(20*ms-300*time.Microsecond, 50, 16_000, 1<<20)}, 16000, 1 << 20, 0},
		{"only links that are up", []Link{suspect, up(80*ms, 20, 0, 1<<20)}, 1000, 1000, 1},
		{"none has room", []Link{up(20*ms, 50, 0, 0)}, 1000, 1000, -1},
		{"none at all", nil, 1000, 1000, -1},
	} {
		i, ok := Earliest{}.Pick(c.links, Chunk{Size: c.n, Left: c.left})
		if !ok {
			i = -1
		}
		if i != c.want {
			t.Errorf("%s: link %d, want %d", c.name, i, c.want)
		}
	}
}

func TestOverdue(t *testing.T) {
	links := []Link{up(20*ms, 50, 30_000, 1<<20), up(40*ms, 50, 0, 1<<20)}
	o := NewOverdue()
	if _, ok := o.Copy(links, 0, 16000, 20*ms); ok {
		t.Error("a copy that arrives after the original is likely to")
	}
	if i, ok := o.Copy(links, 0, 16000, 95*ms); !ok || i != 1 {
		t.Errorf("a chunk 95 ms late: link %d, %v", i, ok)
	}
	links[1].Room = 0
	if _, ok := o.Copy(links, 0, 16000, 95*ms); ok {
		t.Error("a copy on a link without room")
	}
	links[1].Room = 1 << 20
	for range 5 {
		o.Spend(16000)
	}
	if _, ok := o.Copy(links, 0, 16000, 95*ms); ok {
		t.Error("a copy beyond the budget")
	}
	o.Delivered(1 << 20)
	if _, ok := o.Copy(links, 0, 16000, 95*ms); !ok {
		t.Error("no copy though a megabyte was delivered")
	}
}

func TestLate(t *testing.T) {
	for _, c := range []struct{ pred, rttvar, want time.Duration }{
		{5 * ms, 0, 40 * ms},
		{30 * ms, ms, 50 * ms},
		{30 * ms, 10 * ms, 70 * ms},
		{100 * ms, 200 * ms, 500 * ms},
		{800 * ms, 0, 820 * ms},
	} {
		if got := Late(c.pred, c.rttvar); got != c.want {
			t.Errorf("pred %v, var %v: %v, want %v", c.pred, c.rttvar, got, c.want)
		}
	}
}

func TestMending(t *testing.T) {
	tcp := Sense{Known: true, RTT: 80 * ms, Arrived: 1 << 20, Ahead: 3000}
	whole, quic, blind := tcp, tcp, tcp
	whole.Ahead = 0
	quic.Arrived, quic.Ahead = 0, 0 // it does not tell
	blind.Known = false
	for name, c := range map[string]struct {
		sense         Sense
		silence, want time.Duration
	}{
		"a gap":              {tcp, 2 * ms, 60 * ms},
		"perhaps a gap":      {quic, 2 * ms, 60 * ms},
		"no gap":             {whole, 2 * ms, 0},
		"a path gone silent": {tcp, 20 * ms, 0},
		"nothing is known":   {blind, 2 * ms, 0},
	} {
		if got := Mending(c.sense, c.silence); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestEarliestWaits: a flow with little left waits for the quick link by the rate that
// this one has shown, not by what an object's first bytes after a rest look like, by how
// long it may stay silent, and by all that goes before the flow's last byte.
func TestEarliestWaits(t *testing.T) {
	quick, far := up(20*ms, 20, 150_000, 0), up(200*ms, 20, 0, 1<<20)
	chunk := Chunk{Size: 16_000, Left: 400_000}
	if i, ok := (Earliest{}).Pick([]Link{quick, far}, chunk); !ok || i != 1 {
		t.Errorf("220 ms by the one, 107 by the other: link %d, %v", i, ok)
	}
	quick.Swift = 50 * 125_000
	if i, ok := (Earliest{}).Pick([]Link{quick, far}, chunk); ok {
		t.Errorf("98 ms by the one, 107 by the other: link %d", i)
	}
	quick.Silent = 40 * ms
	if i, ok := (Earliest{}).Pick([]Link{quick, far}, chunk); !ok || i != 1 {
		t.Errorf("the one has been silent for 40 ms: link %d, %v", i, ok)
	}
	quick.Silent, chunk.Work = 0, 600_000
	if i, ok := (Earliest{}).Pick([]Link{quick, far}, chunk); !ok || i != 1 {
		t.Errorf("130 ms with others between, 107 by the other: link %d, %v", i, ok)
	}
}
