package tunnel

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/scheduler"
)

var faultsEach = flag.Int("faults", 0, "TestSilentFaults has so many faults of each kind and says of each what happened when; 0: a few")

// silentFault is a fault of an uplink, and what happened when, counted from its beginning.
type silentFault struct {
	uplink  int
	stall   time.Duration // the longest time without anything
	from    time.Duration // its beginning
	heard   time.Duration // the sender last heard of the uplink
	copied  time.Duration // it sent the first copy by the other one
	suspect time.Duration // and gave the uplink up
	copies  int           // most of what it had sent by the uplink, without an answer, that it had also sent by the other until then

	sim   *sim
	flow  *simFlow
	cut   time.Time
	last  time.Time // when the flow last got something
	again uint64    // that the other uplink had carried a second time before
}

func (f *silentFault) String() string {
	ms := func(d time.Duration) int { return int(d.Milliseconds()) }
	return fmt.Sprintf("uplink %d: stall %d, from %d to %d; heard %d, copied %d, suspect %d",
		f.uplink, ms(f.stall), ms(f.from), ms(f.from+f.stall), ms(f.heard), ms(f.copied), ms(f.suspect))
}

// look follows the fault for as long as it lasts.
func (f *silentFault) look() {
	at := f.sim.Now().Sub(f.cut)
	if at > faultLasts {
		return
	}
	if now := f.flow.last; now != f.last {
		if gap := now.Sub(f.last); gap > f.stall {
			f.stall, f.from = gap, f.last.Sub(f.cut)
		}
		f.last = now
	}
	s := f.sim.cloud.s
	if l := s.links[f.uplink]; f.suspect == 0 {
		f.heard = l.conn.heard.Sub(f.cut)
		if l.health.State() == scheduler.Suspect {
			f.suspect = at
		} else {
			f.copies = max(f.copies, copiesOf(l.conn.bulk))
		}
	}
	if f.copied == 0 && s.links[1-f.uplink].again > f.again+chunkMin {
		f.copied = at
	}
	f.sim.After(200*time.Microsecond, f.look)
}

// copiesOf is how many chunks without an answer a strand has that were also sent elsewhere.
func copiesOf(st *strand) (n int) {
	for k := range st.log.n {
		if e := st.log.at(k); e.moved && e.piece != nil && e.piece.state == sent {
			n++
		}
	}
	return n
}

const faultLasts = time.Second

// silentFaults cuts each of two uplinks, in turn and at random phases, n times in all, away
// from the edge and towards it as dead says, under a download and new connections.
func silentFaults(dead [2]bool, n int, seed uint64) (all []*silentFault) {
	v := everything
	v.beside = true
	m, lines := terrain{lines: []lineSpec{wifi, lte}}.enter(v, seed)
	bulk := m.request(1, endless)
	set := func(l [2]*simlink.Line, yes bool) func() {
		return func() { l[0].Dead, l[1].Dead = yes && dead[0], yes && dead[1] }
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	at := m.Now().Add(3 * time.Second)
	for i := range n {
		at = at.Add(700*time.Millisecond + time.Duration(rng.Int64N(int64(700*time.Millisecond))))
		m.At(at, set(lines[i%2], true))
		m.At(at, func() {
			f := &silentFault{uplink: i % 2, sim: m, flow: bulk, cut: m.Now(), last: bulk.last, again: m.cloud.s.links[1-i%2].again}
			all = append(all, f)
			f.look()
		})
		at = at.Add(faultLasts)
		m.At(at, set(lines[i%2], false))
		at = at.Add(700 * time.Millisecond)
	}
	for ask := m.Now().Add(time.Second); ask.Before(at); ask = ask.Add(25 * time.Millisecond) {
		m.At(ask, func() { m.request(2, 1000) })
	}
	m.Run(at, nil)
	m.end()
	return all
}

// TestSilentFaults: a download notices little of an uplink that dies silently, also where
// only one direction does and answers of what came before are still on their way: far less
// than the time after which a link is taken for ill. Until then few chunks go twice.
func TestSilentFaults(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	for _, k := range []struct {
		name string
		dead [2]bool
		most float64
	}{
		{"both ways", [2]bool{true, true}, 125},
		{"towards the edge only", [2]bool{false, true}, 125},
		{"towards the cloud only", [2]bool{true, false}, 40},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			var stalls [2][]time.Duration
			for _, f := range silentFaults(k.dead, max(*faultsEach, 12), 1) {
				if *faultsEach > 0 {
					t.Log(f)
				}
				if f.copies > headSize {
					t.Errorf("%d chunks of uplink %d had gone by the other, too, before it was given up, wanted at most %d", f.copies, f.uplink, headSize)
				}
				stalls[f.uplink] = append(stalls[f.uplink], f.stall)
			}
			all := slices.Concat(stalls[0], stalls[1])
			p50 := quantile(all, 0.5)
			t.Logf("stalls: p50 %.0f ms, p95 %.0f, by uplink p50 %.0f and %.0f", p50, quantile(all, 0.95), quantile(stalls[0], 0.5), quantile(stalls[1], 0.5))
			if p50 > k.most || quantile(all, 1) > 200 {
				t.Errorf("stalls %v, wanted a p50 of %.0f ms and 200 at most", all, k.most)
			}
		})
	}
}
