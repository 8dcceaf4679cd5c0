package card

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"hawser/pkg/buffer"
)

func TestMeasure(t *testing.T) {
	leaks(t)
	noGoroutines(t)
	before := descriptors(t)
	trial := Trial{Workers: 2, Pool: PoolOptions{Threads: 2, Queue: 16}, Block: 4096, Load: 100, Window: 8, Spans: 2, Span: 5 * time.Millisecond}
	rates := Measure(trial, KindInline, KindPool, KindKernel)
	for i, r := range rates {
		t.Logf("%v: %.0f MB/s, %v", r.Kind, r.Bytes/1e6, r.Err)
		if r.Kind != Kind(i) || (r.Err == nil) != (r.Bytes > 0) || r.Err != nil && r.Kind != KindKernel {
			t.Errorf("%+v", r)
		}
	}
	trial.Pool.Threads = 0
	if r := Measure(trial, KindPool); r[0].Err == nil {
		t.Error("a pool without threads was measured")
	}
	if now := descriptors(t); now != before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
	if _, err := Kind(9).Make(trial.Pool); err == nil || Kind(9).String() != "unknown" {
		t.Error("an unknown kind was made")
	}
}

// The start of an agent may not wait long for it.
func TestChooseIsQuick(t *testing.T) {
	var c Choice
	took := time.Hour
	for try := 0; try < 3 && took > 2*time.Second; try++ { // other tests may keep the machine busy
		begin := time.Now()
		c = Choose(runtime.GOMAXPROCS(0), PoolOptions{Threads: runtime.GOMAXPROCS(0), Queue: 64})
		took = time.Since(begin)
	}
	t.Logf("%v in %v: %s", c.Kind, took, c.Why)
	if took > 2*time.Second || strings.ContainsAny(c.Why, "\n") {
		t.Errorf("took %v: %q", took, c.Why)
	}
}

func TestPick(t *testing.T) {
	none := errors.New("not there")
	for _, k := range []struct {
		inline, pool, kernel float64
		want                 Kind
	}{
		{10, 9, 0, KindInline}, {10, 11.9, 0, KindInline}, {10, 12.1, 0, KindPool}, {10, 12.1, 12.2, KindKernel}, {10, 13, 12.5, KindPool},
	} {
		rates := []Rate{{Kind: KindInline, Bytes: k.inline * 1e9}, {Kind: KindPool, Bytes: k.pool * 1e9}, {Kind: KindKernel, Bytes: k.kernel * 1e9}}
		if k.kernel == 0 {
			rates[2].Err = none
		}
		c := pick(2, rates)
		if c.Kind != k.want || !strings.Contains(c.Why, "inline 10.0") || (k.kernel == 0) != strings.Contains(c.Why, "kernel none") {
			t.Errorf("%+v: %+v", k, c)
		}
	}
}

// TestChooseTwice: a card that seemed faster because inline was disturbed is not
// picked, one that is faster again is.
func TestChooseTwice(t *testing.T) {
	for _, k := range []struct {
		first, again [2]float64 // inline, pool
		want         Kind
		why          string
	}{
		{[2]float64{2.3, 3.5}, [2]float64{4.4, 3.6}, KindInline, "inline 4.4, pool 3.6"},
		{[2]float64{2.3, 3.5}, [2]float64{2.4, 3.1}, KindPool, "inline 2.4, pool 3.5"},
		{[2]float64{4.4, 3.5}, [2]float64{1, 9}, KindInline, "inline 4.4, pool 3.5"}, // not measured again
	} {
		trials := [][2]float64{k.first, k.again}
		c := choose(2, func(spans int, kinds ...Kind) (out []Rate) {
			for _, kind := range kinds {
				r := Rate{Kind: kind}
				if kind == KindKernel {
					r.Err = errors.New("not there")
				} else {
					r.Bytes = trials[0][kind] * 1e9
				}
				out = append(out, r)
			}
			trials = trials[1:]
			return out
		})
		if c.Kind != k.want || !strings.Contains(c.Why, k.why) {
			t.Errorf("%+v: %+v", k, c)
		}
	}
}

// BenchmarkKinds is what each kind seals per second on its own (load=0) and
// beside a worker's own work (load=64K), and BenchmarkTable prints the same as
// the table in docs/cards.md.
func BenchmarkKinds(b *testing.B) {
	for _, kind := range []Kind{KindInline, KindPool, KindKernel} {
		for _, block := range []int{1 << 10, 4 << 10, buffer.Plain} {
			for _, load := range []int{0, 4 * buffer.Plain} {
				b.Run(fmt.Sprintf("%v/%dK/load=%dK", kind, block>>10, load>>10), func(b *testing.B) {
					for b.Loop() {
						r := Measure(Trial{Workers: 1, Pool: PoolOptions{Threads: 1, Queue: 64}, Block: block, Load: load, Window: 8, Spans: 1, Span: 20 * time.Millisecond}, kind)
						if r[0].Err != nil {
							b.Skip(r[0].Err)
						}
						b.ReportMetric(r[0].Bytes/1e6, "MB/s")
					}
				})
			}
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		fmt.Printf("GB/s on %d CPUs\n%s\n%s\n", runtime.GOMAXPROCS(0), table(), windows())
	}
}

func table() string {
	var s strings.Builder
	s.WriteString("| workers | block | own work | inline | pool | kernel |\n| --- | --- | --- | --- | --- | --- |\n")
	for workers := 1; workers <= runtime.GOMAXPROCS(0); workers *= 2 {
		for _, block := range []int{1 << 10, 4 << 10, buffer.Plain} {
			for _, load := range []int{0, 4 * buffer.Plain} {
				fmt.Fprintf(&s, "| %d | %d KB | %d KB |", workers, block>>10, load>>10)
				for _, r := range Measure(Trial{Workers: workers, Pool: PoolOptions{Threads: workers, Queue: 64}, Block: block, Load: load, Window: 8, Spans: 40, Span: 5 * time.Millisecond}, KindInline, KindPool, KindKernel) {
					if r.Err != nil {
						s.WriteString(" - |")
						continue
					}
					fmt.Fprintf(&s, " %.2f |", r.Bytes/1e9)
				}
				s.WriteString("\n")
			}
		}
	}
	return s.String()
}

// windows is the table that Kind.Window rests on.
func windows() string {
	var s strings.Builder
	s.WriteString("| jobs inside | 1 KB | 4 KB | 16 KB |\n| --- | --- | --- | --- |\n")
	for window := 1; window <= 16; window *= 2 {
		fmt.Fprintf(&s, "| %d |", window)
		for _, block := range []int{1 << 10, 4 << 10, buffer.Plain} {
			r := Measure(Trial{Workers: 1, Pool: PoolOptions{Threads: 1, Queue: 64}, Block: block, Load: 4 * buffer.Plain, Window: window, Spans: 40, Span: 5 * time.Millisecond}, KindPool)
			fmt.Fprintf(&s, " %.2f |", r[0].Bytes/1e9)
		}
		s.WriteString("\n")
	}
	return s.String()
}
