package scheduler

import (
	"testing"
	"time"
)

// srtt gives a link a smoothed round trip of its own.
func (l Link) srtt(d time.Duration) Link {
	l.SRTT = d
	return l
}

func pick(p Path, c Chunk, links ...Link) int {
	for i := range links {
		links[i].ID = i
	}
	i, ok := p.Pick(links, c)
	if !ok {
		return -1
	}
	return i
}

// TestPathsAgree: what holds for every choice.
func TestPathsAgree(t *testing.T) {
	suspect := up(5*ms, 100, 0, 1<<20)
	suspect.State = Suspect
	for k := PathEarliest; k <= PathRoundRobin; k++ {
		c := Chunk{Size: 10_000, Left: 1 << 20, Window: 1 << 20}
		if i := pick(NewPath(k), c); i >= 0 {
			t.Errorf("%v: link %d of none", k, i)
		}
		if i := pick(NewPath(k), c, up(20*ms, 50, 0, 0), suspect); i >= 0 {
			t.Errorf("%v: link %d though none has room", k, i)
		}
		if i := pick(NewPath(k), c, suspect, up(20*ms, 50, 0, 1)); i != 1 {
			t.Errorf("%v: link %d, only 1 can", k, i)
		}
		if k.String() == "invalid" {
			t.Errorf("path choice %d has no name", k)
		}
	}
}

func TestMinRTT(t *testing.T) {
	fast, slow := up(20*ms, 50, 0, 1<<20), up(80*ms, 500, 0, 1<<20)
	if i := pick(MinRTT{}, Chunk{Size: 1 << 14, Left: 1 << 20}, slow, fast); i != 1 {
		t.Errorf("link %d, the other has the shorter round trip", i)
	}
	fast.Room = 0
	if i := pick(MinRTT{}, Chunk{Size: 1 << 14, Left: 1 << 14}, slow, fast); i != 0 {
		t.Errorf("link %d, only the slow one has room", i)
	}
	if i := pick(MinRTT{}, Chunk{Size: 1}, slow.srtt(10*ms), up(20*ms, 50, 0, 1)); i != 0 {
		t.Error("the smoothed round trip does not count")
	}
}

func TestRoundRobinPath(t *testing.T) {
	r := &RoundRobin{}
	var got []int
	for range 6 {
		got = append(got, pick(r, Chunk{}, up(20*ms, 50, 0, 1), up(500*ms, 1, 0, 1), up(20*ms, 50, 0, 0)))
	}
	for i := 1; i < len(got); i++ {
		if got[i] == got[i-1] || got[i] == 2 {
			t.Fatalf("turns %v", got)
		}
	}
}

// TestWeighted: bytes by weight, of what links have taken of chunks; a link that had no room does not catch up.
func TestWeighted(t *testing.T) {
	links := []Link{up(20*ms, 50, 0, 1), up(20*ms, 50, 0, 1), up(20*ms, 50, 0, 1)}
	links[0].Weight, links[1].Weight = 5, 2 // the third counts as 1
	w := &Weighted{}
	run := func(n int) (got [3]int) {
		for k := range n {
			size := 1000 + k%7*1000
			i := pick(w, Chunk{Size: 16_000}, links...)
			w.Carried(links[i], size)
			got[i] += size
		}
		return got
	}
	got := run(8000)
	all := got[0] + got[1] + got[2]
	for i, want := range []float64{5, 2, 1} {
		if !within(float64(got[i]), float64(all)*want/8, 0.01) {
			t.Errorf("link %d: %d of %d bytes", i, got[i], all)
		}
	}
	links[0].Room = 0
	run(1000)
	links[0].Room = 1
	if got := run(800); float64(got[0]) > 0.66*float64(got[0]+got[1]+got[2]) {
		t.Errorf("it catches up: %v", got)
	}
}

func TestRedundant(t *testing.T) {
	links := []Link{up(80*ms, 20, 0, 1), up(20*ms, 50, 0, 1), up(20*ms, 50, 0, 0), up(40*ms, 50, 0, 1)}
	i := pick(Redundant{}, Chunk{Size: 10_000}, links...)
	if i != 1 {
		t.Errorf("first on link %d", i)
	}
	if others := (Redundant{}).Copies(links, i); len(others) != 2 || others[0] != 0 || others[1] != 3 {
		t.Errorf("copies on %v", others)
	}
}

// TestECF works the published inequality through by hand.
func TestECF(t *testing.T) {
	// Fast: 20 ms, window 100 kB, full. Slow: 100 ms, window 50 kB.
	fast, slow := up(20*ms, 40, 100_000, 0), up(100*ms, 4, 0, 50_000)
	for _, c := range []struct {
		name string
		left int
		want int
	}{
		// x_f = max(k, 100k). srtt_f (x_f + cwnd_f) = 20 (100k+100k) = 4M, which
		// is less than cwnd_f srtt_s = 10M; srtt_s x_s = 100*60k = 6M is not
		// less than cwnd_s 2 srtt_f = 2M: wait.
		{"the tail waits for the fast link", 60_000, -1},
		// 20 (390k+100k) = 9.8M < 10M: still wait.
		{"a bit more still waits", 390_000, -1},
		// 20 (450k+100k) = 11M: the slow one helps.
		{"with much left the slow one helps", 450_000, 1},
	} {
		if i := pick(&ECF{}, Chunk{Size: 10_000, Left: c.left}, fast, slow); i != c.want {
			t.Errorf("%s: link %d, want %d", c.name, i, c.want)
		}
	}
	e := &ECF{}
	pick(e, Chunk{Size: 10_000, Left: 390_000}, fast, slow)
	if i := pick(e, Chunk{Size: 10_000, Left: 450_000}, fast, slow); i != -1 {
		t.Errorf("who waits goes on waiting for another quarter: link %d", i)
	}
	// delta, the larger deviation, speaks for waiting.
	fast.RTTVar = 20 * ms
	if i := pick(&ECF{}, Chunk{Size: 10_000, Left: 450_000}, fast, slow); i != -1 {
		t.Errorf("with 20 ms of deviation: link %d", i)
	}
	// The second inequality: a slow link that is as good as the fast one.
	if i := pick(&ECF{}, Chunk{Size: 1000, Left: 1000}, up(20*ms, 40, 100_000, 0), up(30*ms, 40, 0, 100_000)); i != 1 {
		t.Errorf("srtt_s < 2 srtt_f: link %d", i)
	}
}

// TestBLEST works the published inequality through by hand.
func TestBLEST(t *testing.T) {
	// n = 100/20 + 1 = 6; fast bytes = (100000 + 1448*2.5) 6 = 621720; times
	// 1.2 (less 1 %) about 740000.
	fast, slow := up(20*ms, 40, 100_000, 0), up(100*ms, 4, 20_000, 50_000)
	if i := pick(NewBLEST(), Chunk{Size: 10_000, Left: 1 << 30, Window: 700_000}, fast, slow); i != -1 {
		t.Errorf("a window of 700 kB would be blocked: link %d", i)
	}
	if i := pick(NewBLEST(), Chunk{Size: 10_000, Left: 1 << 30, Window: 800_000}, fast, slow); i != 1 {
		t.Errorf("a window of 800 kB holds both: link %d", i)
	}
	fast.Room = 1
	if i := pick(NewBLEST(), Chunk{Size: 10_000, Window: 1000}, fast, slow); i != 0 {
		t.Errorf("the fast link has room: link %d", i)
	}
	b := NewBLEST()
	now := time.Unix(1000, 0)
	for range 100 {
		now = now.Add(25 * ms)
		pick(b, Chunk{Size: 1, Now: now, Blocked: true}, fast, slow)
		pick(b, Chunk{Size: 1, Now: now.Add(ms)}, fast, slow) // within the round trip
	}
	if b.lambda != blestMost {
		t.Errorf("lambda %v after blocked round trips", b.lambda)
	}
	for range 100 {
		now = now.Add(25 * ms)
		pick(b, Chunk{Size: 1, Now: now}, fast, slow)
	}
	if b.lambda != blestLeast {
		t.Errorf("lambda %v after good round trips", b.lambda)
	}
}

func TestFIFO(t *testing.T) {
	links := []Link{up(20*ms, 50, 30_000, 1<<20), up(40*ms, 50, 0, 1<<20)}
	d := NewData(DataFIFO)
	d.Delivered(1 << 30)
	if _, ok := d.Copy(links, 0, 1000, time.Second); ok {
		t.Error("a copy")
	}
	if _, ok := NewData(DataOverdue).Copy(links, 0, 1000, time.Second); !ok {
		t.Error("overdue makes none")
	}
}
