package link

import (
	"testing"
	"time"
)

// TestGovernorVolleys: a governor that is asked for volleys sends at the same rate in the
// mean, but several packets at a time, and by how far apart they arrive finds what the path
// carries: five times what it is held to. Without it neither changes.
func TestGovernorVolleys(t *testing.T) {
	const held, carries = 0.5e6, 2.5e6 // bytes per second
	g := newGovernor(0, govPacket, 20*time.Millisecond)
	g.limit(held)
	type flight struct {
		number int64
		back   time.Duration // when its acknowledgement comes
	}
	var (
		out  []flight
		free time.Duration // when the line is
		now  time.Duration
		next int64
	)
	run := func(d time.Duration) (sent, most int) {
		for end := now + d; now < end; now += time.Millisecond {
			for len(out) > 1 && out[1].back <= now { // every second packet is acknowledged
				g.acked(out[1].back, out[0].number)
				g.acked(out[1].back, out[1].number)
				g.settle(out[1].back, 0, (len(out)-2)*govPacket)
				out = out[2:]
			}
			atOnce := 0
			for g.hasRoom(len(out)*govPacket) && g.maySend(now) {
				free = max(free, now) + time.Duration(govPacket*1e9/carries)
				out = append(out, flight{next, free + 20*time.Millisecond})
				g.sent(now, next, govPacket, len(out)*govPacket)
				next++
				atOnce += govPacket
			}
			sent, most = sent+atOnce, max(most, atOnce)
		}
		return sent, most
	}
	run(time.Second)
	plain, most := run(2 * time.Second)
	var s Stats
	if g.sample(&s); most >= 6*govPacket || s.Volleys != 0 || g.controller.Bandwidth() > 1.2*held {
		t.Errorf("not asked for volleys: %d bytes at once, measured %d times, %.0f bytes per second believed", most, s.Volleys, g.controller.Bandwidth())
	}
	g.inVolleys.Store(true)
	volleys, most := run(2 * time.Second)
	g.sample(&s)
	if most < 5*govPacket || most > 7*govPacket {
		t.Errorf("volleys of %d bytes", most)
	}
	if volleys < plain*95/100 || volleys > plain*105/100 {
		t.Errorf("%d bytes in volleys, %d otherwise", volleys, plain)
	}
	if s.Volleys < 20 || s.Carries < 0.95*carries || s.Carries > 1.05*carries || g.controller.Bandwidth() < 0.7*carries {
		t.Errorf("%.0f bytes per second measured %d times, %.0f believed, of %.0f", s.Carries, s.Volleys, g.controller.Bandwidth(), float64(carries))
	}
	after := newGovernor(now, govPacket, 0)
	after.succeed(g)
	if after.sample(&s); s.Volleys < 20 {
		t.Errorf("counted anew: %d", s.Volleys)
	}
}

// TestVolleysOnChange: lines whose rates change every second are measured in volleys,
// calm ones never.
func TestVolleysOnChange(t *testing.T) {
	measured := func(j simJourney) (n uint64) {
		j.begin = func(w *simWorld, _ uint64) {
			w.wg.Go(func() {
				time.Sleep(j.d - 600*ms)
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, c := range w.every {
					n += c.Stats().Volleys
				}
			})
		}
		j.run(t, 1)
		return n
	}
	line := simLine{rate: 6 * 125_000, delay: 20 * ms, limit: 300 * ms}
	calm := simJourney{name: "calm", lines: []simLine{line}, d: 2500 * ms}
	changing := simJourney{name: "changing", lines: []simLine{line}, d: 5200 * ms}
	changing.outage(0, 1000*ms, 1700*ms)
	changing.varies(0, 3*time.Second, 2, 20*ms)
	changing.varies(0, 4*time.Second, 10, 30*ms)
	if n := measured(calm); n != 0 {
		t.Errorf("calm lines: measured %d times", n)
	}
	if n := measured(changing); n < 10 {
		t.Errorf("lines that change: measured %d times", n)
	}
}
