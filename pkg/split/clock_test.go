package split

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// TestClockOrder sets, moves and stops timers at random: each that is left fires
// once, at its time or as much later as slack says, and none fires else.
func TestClockOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		c, began := newClock(), time.Now()
		var mu sync.Mutex
		var fired []int
		want, timers := map[int]time.Duration{}, map[int]tcpip.Timer{}
		for i := range 2000 {
			want[i] = time.Duration(1+r.IntN(500)) * time.Millisecond
			timers[i] = c.AfterFunc(want[i], func() {
				mu.Lock()
				defer mu.Unlock()
				fired = append(fired, i)
				if since := time.Since(began); since < want[i] || since > want[i]+slack(want[i], slackAfter) {
					t.Errorf("timer %d fires after %v, not %v", i, since, want[i])
				}
			})
		}
		for i := range 2000 {
			switch r.IntN(3) {
			case 0:
				if !timers[i].Stop() || timers[i].Stop() {
					t.Fatalf("timer %d: Stop must return true, then false", i)
				}
				delete(want, i)
			case 1:
				want[i] = time.Duration(1+r.IntN(500)) * time.Millisecond
				timers[i].Reset(want[i])
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(fired) != len(want) {
			t.Errorf("%d timers fired, want %d", len(fired), len(want))
		}
		slices.Sort(fired)
		if n := len(slices.Compact(fired)); n != len(want) {
			t.Errorf("%d different timers fired, want %d", n, len(want))
		}
		if cap(c.heap) > 1024 {
			t.Errorf("an empty heap keeps %d places", cap(c.heap))
		}
	})
}

// TestClockBound has very many timers fire at once, whose functions block: no more
// than the bound run at a time, all run in the end, and one that has fired can be
// set again by its own function.
func TestClockBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 1000
		c := newClock()
		var mu sync.Mutex
		now, most, done := 0, 0, 0
		var again tcpip.Timer
		rounds := 0
		again = c.AfterFunc(time.Second, func() {
			mu.Lock()
			defer mu.Unlock()
			if rounds++; rounds < 3 {
				again.Reset(time.Second)
			}
		})
		for range many {
			c.AfterFunc(time.Second, func() {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				now--
				done++
			})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if most != runners || done != many || rounds != 3 {
			t.Errorf("%d at a time, want %d; %d in all, want %d; %d rounds of the one, want 3", most, runners, done, many, rounds)
		}
	})
}

// TestClockBesideABlockedOne lets one function block for long: others fire in time.
func TestClockBesideABlockedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, began := newClock(), time.Now()
		c.AfterFunc(time.Second, func() { time.Sleep(time.Hour) })
		var mu sync.Mutex
		var at []time.Duration
		note := func() {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(began))
		}
		c.AfterFunc(2*time.Second, note)
		time.Sleep(3 * time.Second)
		c.AfterFunc(time.Second, note)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if want := []time.Duration{2 * time.Second, 4 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("fired at %v, want %v", at, want)
		}
	})
}

// TestClockSlack: where there are very many timers, long ones fire in a few turns, none
// too early and none later than by an eighth; where there are few, all in time.
func TestClockSlack(t *testing.T) {
	for _, many := range []int{slackAfter / 2, 10_000} {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			c, began := newClock(), time.Now()
			crowded := many >= slackAfter
			for range slackAfter {
				if crowded {
					defer c.AfterFunc(time.Hour, func() {}).Stop()
				}
			}
			var mu sync.Mutex
			turns := map[time.Duration]int{}
			fired := 0
			for range many {
				want := 100*time.Millisecond + time.Duration(r.Int64N(int64(10*time.Second)))
				c.AfterFunc(want, func() {
					mu.Lock()
					defer mu.Unlock()
					at, late := time.Since(began), time.Duration(0)
					if crowded && want >= slackFrom {
						late = min(want/8, slackMost)
					}
					if at < want || at > want+late {
						t.Errorf("a timer of %v fires after %v", want, at)
					}
					fired++
					turns[at]++
				})
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			t.Logf("%d timers in %d turns", fired, len(turns))
			if fired != many || crowded && len(turns) > many/20 {
				t.Errorf("%d timers of %d fire, in %d turns", fired, many, len(turns))
			}
		})
	}
}

// TestClockStop says that a stopped clock fires nothing.
func TestClockStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		fired := func() { t.Error("a timer of a stopped clock fires") }
		a := c.AfterFunc(time.Second, fired)
		c.stop()
		a.Reset(time.Second)
		c.AfterFunc(time.Second, fired)
		if a.Stop() {
			t.Error("a timer of a stopped clock says that it ran")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

// BenchmarkClockReset moves one of 10,000 timers.
func BenchmarkClockReset(b *testing.B) {
	for name, c := range map[string]tcpip.Clock{"ours": newClock(), "netstack": tcpip.NewStdClock()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var timers []tcpip.Timer
			for i := range 10_000 {
				timers = append(timers, c.AfterFunc(time.Hour+time.Duration(i)*time.Second, func() {}))
			}
			for i := range b.N {
				timers[i*7919%len(timers)].Reset(time.Hour + time.Duration(i%10_000)*time.Second)
			}
			for _, t := range timers {
				t.Stop()
			}
		})
	}
}
