package link

import (
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/e2e/emu"
)

// Lines before a recording and their buffers, as the bench has them.
const (
	recordedRTT   = 50 * ms
	recordedMore  = 10 * ms  // of the second uplink
	recordedQueue = 500 * ms // at the mean rate
)

var recordedStep = flag.Duration("step", 11*time.Second, "how much later in a recording each seed of TestJourneys begins")

// simRecorded are the journeys whose uplinks replay recordings; HAWSER_TRACES names the
// folder of those that this project may not distribute.
func simRecorded(t *testing.T) []simJourney {
	own, foreign := "../../e2e/testdata/traces", os.Getenv("HAWSER_TRACES")
	all := []simJourney{simReplayed(t, "train-trace", 60*time.Second, filepath.Join(own, "hsr-pair-1529470329-carrierM"), filepath.Join(own, "hsr-pair-1529470329-carrierU"))}
	if foreign != "" {
		all = append(all, simReplayed(t, "lte-trace", 30*time.Second, filepath.Join(foreign, "verizon-lte-short"), filepath.Join(foreign, "att-lte-driving-2016")))
	}
	return all
}

// simReplayed is a journey whose uplinks replay recordings from the download's begin on.
// What has no file for the way away from the edge has the other one's there. Each seed but
// the first begins elsewhere in them.
func simReplayed(t *testing.T, name string, d time.Duration, files ...string) simJourney {
	t.Helper()
	j := simJourney{name: name, d: d}
	var traces [][2]*emu.Trace // away from the edge, towards it
	for i, file := range files {
		line := simMbit(5, recordedRTT+time.Duration(i)*recordedMore)
		line.limit = recordedQueue
		j.lines = append(j.lines, line)
		down, err := emu.LoadTrace(file + ".down")
		if err != nil {
			t.Fatal(err)
		}
		up, _ := emu.LoadTrace(file + ".up")
		traces = append(traces, [2]*emu.Trace{cmp.Or(up, down), down})
	}
	j.begin = func(w *simWorld, seed uint64) {
		for i, u := range w.ups.links {
			for way, l := range []*simLine{u.up, u.down} {
				l.change(func(l *simLine) { l.follow(traces[i][way], time.Duration(seed)**recordedStep, recordedQueue) })
			}
		}
	}
	return j
}
