package repair

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// line is a sender and a receiver with a Flow between them, in virtual time. The
// sender knows only what it is told, and frees what it was told of; it sends
// again from its own memory what it is shown to be missing.
type line struct {
	t      *testing.T
	rng    *rand.Rand
	f      Flow
	now    time.Duration
	flying []packet
	sent   int // numbers packets

	start, next uint32 // of the sender
	end         uint32
	told        uint32

	rcv    uint32 // first byte that the receiver lacks
	got    []Range
	window int

	loss, renege float64
	delay        time.Duration
	most         int // bytes owed at most
}

// packet is on its way; data to the receiver, or an acknowledgement.
type packet struct {
	at     time.Duration
	n      int
	data   Range
	ack    uint32
	edge   uint32
	blocks []Range
}

// fly sends a packet, or loses it.
func (l *line) fly(p packet) {
	l.sent++
	if l.rng.Float64() < l.loss {
		return
	}
	p.n, p.at = l.sent, l.now+l.delay
	if l.rng.IntN(50) == 0 {
		p.at += l.delay / 2 // overtaken
	}
	l.flying = append(l.flying, p)
}

func (l *line) carry(r Range) {
	for before(r.From, r.To) {
		part := Range{r.From, earliest(r.To, r.From+mss)}
		l.fly(packet{data: part})
		r.From = part.To
	}
}

// again is what the Flow sends again: it must be owed or still unknown.
func (l *line) again(r Range) {
	if before(r.From, l.f.una) || before(l.f.high, r.To) || !before(r.From, r.To) {
		l.t.Fatalf("sends %v again, %d to %d is open", r, l.f.una, l.f.high)
	}
	l.carry(r)
}

// fill sends what the peer's window allows.
func (l *line) fill(edge uint32) {
	for before(l.next, l.end) && before(l.next+mss, edge) {
		r := Range{l.next, earliest(l.end, l.next+uint32(1+l.rng.IntN(20))*mss)}
		r.To = earliest(r.To, edge)
		if fresh, ok := l.f.Sent(l.now, r, mss, 0); !ok || fresh != r {
			l.t.Fatalf("%v counts as %v", r, fresh)
		}
		l.next = r.To
		l.carry(r)
	}
}

// receive takes data in and acknowledges it.
func (l *line) receive(r Range) {
	if before(l.rcv+uint32(l.window), r.To) {
		l.t.Fatalf("%v is beyond the window that ends at %d", r, l.rcv+uint32(l.window))
	}
	if len(l.got) > 0 && l.rng.Float64() < l.renege {
		l.got = nil
	}
	if r.From = latest(r.From, l.rcv); before(r.From, r.To) {
		l.got = append(l.got, r)
	}
	slices.SortFunc(l.got, func(a, b Range) int { return int(int32(a.From - b.From)) })
	var joined []Range
	for _, g := range l.got {
		switch n := len(joined); {
		case !before(l.rcv, g.From):
			l.rcv = latest(l.rcv, g.To)
		case n > 0 && !before(joined[n-1].To, g.From):
			joined[n-1].To = latest(joined[n-1].To, g.To)
		default:
			joined = append(joined, g)
		}
	}
	l.got = joined
	p := packet{ack: l.rcv, edge: l.rcv + uint32(l.window)}
	if p.blocks = slices.Clone(joined); len(p.blocks) > 3 {
		at := slices.IndexFunc(joined, func(g Range) bool { return !before(r.From, g.From) && before(r.From, g.To) })
		p.blocks = append(slices.Clone(joined[max(at, 0):max(at, 0)+1]), joined[:2]...)
	}
	l.fly(p)
}

// hear gives an acknowledgement to the Flow, and to the sender what it says.
func (l *line) hear(p packet) {
	v := l.f.Ack(l.now, p.ack, p.edge, p.blocks, 1<<20, l.again)
	if v.Pass || before(v.Tell, l.told) || before(l.next, v.Tell) {
		l.t.Fatalf("told %d after %d, sent until %d: %+v", v.Tell-l.start, l.told-l.start, l.next-l.start, v)
	}
	l.told, l.most = v.Tell, max(l.most, l.f.Debt())
	if v.Show && len(p.blocks) > 0 {
		for _, b := range p.blocks { // the sender's own repair
			if before(v.Tell, b.From) {
				if _, ok := l.f.Sent(l.now, Range{v.Tell, v.Tell + mss}, mss, 0); !ok {
					l.carry(Range{v.Tell, earliest(v.Tell+mss, b.From)})
				}
				break
			}
		}
	}
	l.fill(v.Edge)
}

// step does what is next: an arrival, or what the Flow has to do by then.
func (l *line) step() bool {
	next := -1
	for i, p := range l.flying {
		if next < 0 || p.at < l.flying[next].at || p.at == l.flying[next].at && p.n < l.flying[next].n {
			next = i
		}
	}
	at, due := l.f.Due()
	switch {
	case due && (next < 0 || at < l.flying[next].at):
		l.now = max(l.now, at)
		l.f.Tick(l.now, l.again)
	case next >= 0:
		p := l.flying[next]
		l.flying = slices.Delete(l.flying, next, next+1)
		l.now = p.at
		if p.data != (Range{}) {
			l.receive(p.data)
		} else {
			l.hear(p)
		}
	case before(l.told, l.end): // the sender's own timer
		l.now += 200 * ms
		l.carry(Range{l.told, earliest(l.told+mss, l.next)})
	default:
		return false
	}
	return true
}

func newLine(t *testing.T, seed uint64, size int, loss float64) *line {
	l := &line{t: t, rng: rand.New(rand.NewPCG(seed, 1)), start: -uint32(size / 2), loss: loss, delay: 5 * ms, window: 100 * mss}
	l.next, l.end, l.rcv, l.told = l.start, l.start+uint32(size), l.start, l.start
	l.fill(l.start + uint32(l.window))
	return l
}

// TestEverythingArrives: whatever is lost, of data, repairs and
// acknowledgements, the receiver gets all of it, in its window, and nothing is
// owed at the end.
func TestEverythingArrives(t *testing.T) {
	for _, c := range []struct{ loss, renege float64 }{{0, 0}, {0.001, 0}, {0.01, 0}, {0.1, 0}, {0.4, 0}, {0.02, 0.01}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			for seed := range uint64(20) {
				const size = 1000 * mss
				l := newLine(t, seed, size, c.loss)
				l.renege = c.renege
				for steps := 0; l.step(); steps++ {
					if steps > 1000000 {
						t.Fatalf("seed %d: no end; %d of %d arrived, %d owed", seed, l.rcv-l.start, size, l.f.Debt())
					}
				}
				if l.rcv != l.end || l.told != l.end || l.f.Debt() != 0 || !l.f.Idle() {
					t.Errorf("seed %d: %d of %d arrived, told %d, %d owed", seed, l.rcv-l.start, size, l.told-l.start, l.f.Debt())
				}
				if l.most > l.window {
					t.Errorf("seed %d: %d bytes were owed, more than a window", seed, l.most)
				}
			}
		})
	}
}

// TestLossCostsLittle: at 1 % loss a window-limited sender is hardly slower than
// on a perfect line: it does not wait for repairs.
func TestLossCostsLittle(t *testing.T) {
	const size = 5000 * mss
	took := func(loss float64) time.Duration {
		l := newLine(t, 7, size, loss)
		for l.rcv != l.end && l.step() {
		}
		return l.now
	}
	clean, lossy := took(0), took(0.01)
	t.Logf("%v without loss, %v at 1 %%", clean, lossy)
	if lossy > 2*clean {
		t.Errorf("%v at 1 %% loss, %v without", lossy, clean)
	}
}

// FuzzAck: whatever the peer says, only what was sent and not acknowledged is
// sent again, the sender is told no more than was sent, and the lists stay in
// order and bounded.
func FuzzAck(f *testing.F) {
	f.Add(uint64(1), []byte{1, 9, 4, 200, 3, 3, 3, 7, 99, 250})
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var fl Flow
		next, told, now := uint32(seed), uint32(seed), time.Duration(0)
		for _, b := range script {
			now += time.Duration(rng.IntN(int(10 * ms)))
			if b%3 == 0 {
				n := uint32(1 + rng.IntN(3000))
				fl.Sent(now, Range{next, next + n}, mss, 0)
				next += n
			}
			var blocks []Range
			for range rng.IntN(5) {
				from := fl.una + uint32(rng.IntN(20000)) - 3000
				blocks = append(blocks, Range{from, from + uint32(rng.IntN(5000)) - 1000})
			}
			check := func(r Range) {
				if !before(r.From, r.To) || before(r.From, fl.una) || before(fl.high, r.To) {
					t.Fatalf("sends %v again, %d to %d is open", r, fl.una, fl.high)
				}
			}
			ack := fl.una + uint32(int(b)*20) - 500
			v := fl.Ack(now, ack, ack+uint32(rng.IntN(10000)), blocks, rng.IntN(10000), check)
			if !v.Pass {
				if before(fl.told, told) || before(fl.high, fl.told) || before(fl.told, fl.una) {
					t.Fatalf("told %d after %d, sent until %d", fl.told, told, fl.high)
				}
				told = fl.told
			}
			fl.Tick(now+time.Second, check)
			fl.Due()
			if len(fl.sacked) > mostRanges || !ordered(fl.sacked) {
				t.Fatalf("acknowledged ranges: %v", fl.sacked)
			}
			for i, x := range fl.fixes {
				if !before(x.From, x.To) || i > 0 && before(x.From, fl.fixes[i-1].To) {
					t.Fatalf("repairs: %v", fl.fixes)
				}
			}
		}
	})
}

func ordered(list []Range) bool {
	for i, r := range list {
		if !before(r.From, r.To) || i > 0 && !before(list[i-1].To, r.From) {
			return false
		}
	}
	return true
}
