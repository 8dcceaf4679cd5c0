package tunnel

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/scheduler"
)

// went is where an uplink's capacity towards the edge went, in bytes.
type went struct {
	offered, carried float64
	ill              float64 // while the sender did not use it
	nothing          float64 // while nobody had anything to send
	held             float64 // while the transport held bytes back
	window           float64 // while as much was under way as was allowed
	choice           float64 // otherwise, with room: flows would rather wait, or steps too small
	again, twice     float64 // carried: by TCP once more, by the tunnel
	made             int     // connections
}

const watchEvery = 5 * time.Millisecond

// watch notes from now on where capacity goes.
func (m *sim) watch(lines [][2]*simlink.Line, until time.Time, all []went, offered *float64) {
	var served, again, twice []float64
	made := make([]int, len(lines))
	for i, l := range lines {
		u := m.uplinks[i]
		made[i] = u.made
		served = append(served, float64(l[1].Served))
		again = append(again, float64(u.again+u.tcp[1].Again))
		twice = append(twice, float64(m.cloud.s.links[i].again))
	}
	var look func()
	look = func() {
		for i, l := range lines {
			u, w := m.uplinks[i], &all[i]
			s, a, t := float64(l[1].Served), float64(u.again+u.tcp[1].Again), float64(m.cloud.s.links[i].again)
			could := 0.0
			if !l[1].Dead {
				could = l[1].Could(m.Now().Add(-watchEvery))
			}
			*offered += could
			w.offered += could
			w.carried += s - served[i]
			w.again += a - again[i]
			w.twice += t - twice[i]
			w.made += u.made - made[i]
			made[i] = u.made
			if unused := could - (s - served[i]); unused > 0 {
				*w.cause(m, i) += unused
			}
			served[i], again[i], twice[i] = s, a, t
		}
		if m.Now().Before(until) {
			m.After(watchEvery, look)
		}
	}
	m.After(watchEvery, look)
}

// cause says why a link is not full now.
func (w *went) cause(m *sim, i int) *float64 {
	s := m.cloud.s
	c := s.links[i].conn
	switch {
	case c == nil || s.links[i].health.State() != scheduler.Up:
		return &w.ill
	case m.uplinks[i].lines[1].Waits() > 3000:
		return &w.choice
	case c.flying()-c.eye.sense.InFlight > 16<<10 && c.room() < 16<<10:
		return &w.held
	case c.room() <= 0:
		return &w.window
	case s.order.Len() == 0:
		return &w.nothing
	}
	return &w.choice
}

var (
	whereLate   = flag.Duration("late", 0, "TestWhere prints messages that took longer, and how they went; 0: none")
	whereBeside = flag.Bool("beside", false, "TestWhere has an urgent connection per link, as the programs")
	whereSeeds  = flag.Int("seeds", 8, "seeds of TestWhere")
)

var whereOnly = flag.String("where", "", "terrains of which TestWhere says where their capacity goes, separated by commas")

// TestWhere prints where the capacity of a terrain's uplinks goes.
func TestWhere(t *testing.T) {
	if *whereOnly == "" {
		t.Skip("prints a table: -args -where train")
	}
	v := everything
	v.beside = *whereBeside
	for _, g := range append(terrains(), recorded(t)...) {
		if !slices.Contains(strings.Split(*whereOnly, ","), g.name) {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			if g.missing != "" {
				t.Skip(g.missing)
			}
			t.Parallel()
			var seeds []uint64
			for i := range *whereSeeds {
				seeds = append(seeds, uint64(i+1))
			}
			o := g.run(v, seeds...)
			t.Logf("stalls %.0f, extra %.1f", o.stall, o.extra)
			t.Logf("%s: %.1f Mbit/s (%.1f to %.1f), %.3f of the capacity, stall %.0f / %.0f ms, extra %.1f %%, message %.0f / %.0f, 100 KB %.0f, queue %.0f, full %d", g.name, mean(o.goodput), slices.Min(o.goodput), slices.Max(o.goodput), mean(o.used),
				mean(o.stall), slices.Max(o.stall), mean(o.extra), quantile(o.message, 0.5), quantile(o.message, 0.99), quantile(o.object, 0.5), o.worstQueue(), o.dropped)
			for i, w := range o.went {
				p := func(x float64) string { return fmt.Sprintf("%.3f", x/w.offered) }
				t.Logf("   uplink %d: carried %s (again %s, twice %s); unused: ill %s, nothing to send %s, held by TCP %s, window %s, other %s; %d connections", i, p(w.carried), p(w.again), p(w.twice), p(w.ill), p(w.nothing), p(w.held), p(w.window), p(w.choice), w.made)
			}
		})
	}
}
