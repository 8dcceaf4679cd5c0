package tunnel

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/e2e/emu"
	"hawser/pkg/simlink"
)

var recordedBy = flag.Duration("step", 11*time.Second, "of a recording between the beginnings of two seeds")

// recorded are the terrains of `bench paths` whose uplinks replay recordings. Each
// seed but the first begins elsewhere in them. Those that this project may not
// distribute are in the folder that HAWSER_TRACES names; missing says so where it is
// not there.
func recorded(t *testing.T) []terrain {
	t.Helper()
	own, foreign := "../../e2e/testdata/traces", os.Getenv("HAWSER_TRACES")
	lte := terrain{name: "lte", d: 30 * time.Second}
	mix := terrain{name: "starlink-lte", d: 30 * time.Second}
	train := terrain{name: "train-trace", d: 60 * time.Second}
	if foreign == "" {
		lte.missing = "needs HAWSER_TRACES: a folder with att-lte-driving-2016 and verizon-lte-short of Mahimahi (GPL-3.0, not part of this project)"
		mix.missing = lte.missing
	}
	lte.replay(t, filepath.Join(foreign, "verizon-lte-short"), filepath.Join(foreign, "att-lte-driving-2016"))
	mix.replay(t, filepath.Join(own, "starlink-direct"), filepath.Join(foreign, "verizon-lte-short"))
	train.replay(t, filepath.Join(own, "hsr-pair-1529470329-carrierM"), filepath.Join(own, "hsr-pair-1529470329-carrierU"))
	return []terrain{lte, mix, train}
}

// Lines before a recording and their buffers, as the bench has them.
const (
	recordedRate  = 5 // Mbit/s
	recordedRTT   = 50 * time.Millisecond
	recordedMore  = 10 * time.Millisecond // of the second uplink
	recordedQueue = 500 * time.Millisecond
)

// replay makes the terrain's uplinks replay recordings from the download's begin on.
// What has no file for the way away from the edge has the other one's there.
func (g *terrain) replay(t *testing.T, names ...string) {
	g.bare, g.about = true, " at first; recordings"
	for i := range names {
		g.lines = append(g.lines, lineSpec{mbit: recordedRate, rtt: recordedRTT + time.Duration(i)*recordedMore, queue: recordedQueue})
	}
	if g.missing != "" {
		return
	}
	var traces [][2]*emu.Trace // away from the edge, towards it
	for _, name := range names {
		down := load(t, name+".down")
		up := down
		if _, err := os.Stat(name + ".up"); err == nil {
			up = load(t, name+".up")
		}
		traces = append(traces, [2]*emu.Trace{up, down})
	}
	g.script = func(m *sim, lines [][2]*simlink.Line) {
		from := time.Duration(m.seed-1) * *recordedBy
		m.After(simStart+time.Duration(m.seed)*37*time.Millisecond, func() {
			for i, l := range lines {
				for way := range l {
					l[way].Replay(traces[i][way], from, recordedQueue)
				}
			}
		})
	}
}

func load(t *testing.T, name string) *emu.Trace {
	t.Helper()
	trace, err := emu.LoadTrace(name)
	if err != nil {
		t.Fatal(fmt.Errorf("recording: %w", err))
	}
	return trace
}
