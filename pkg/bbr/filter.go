package bbr

import "time"

// bandwidthFilter is the largest delivery rate of this probing cycle and the
// one before (5.5.3, 5.5.6).
type bandwidthFilter struct{ previous, present float64 }

func (f *bandwidthFilter) max() float64 { return max(f.previous, f.present) }

func (f *bandwidthFilter) add(rate float64) { f.present = max(f.present, rate) }

// advance begins a cycle. A cycle without a sample is no cycle.
func (f *bandwidthFilter) advance() {
	if f.present > 0 {
		f.previous, f.present = f.present, 0
	}
}

// round counts packet-timed round trips (5.5.1).
type round struct {
	next  int64 // the round ends with a packet that was sent after this much was delivered
	count int64
	began bool // with the present event
}

// fullPipe notices that sending faster delivers no more (5.3.1.2).
type fullPipe struct {
	base    float64 // the rate that counts as no growth
	rounds  int     // without growth
	now     bool    // the present probe has filled the pipe
	reached bool    // one has
}

func (f *fullPipe) reset(base float64) { f.base, f.rounds, f.now = base, 0, false }

func (f *fullPipe) check(rate float64) {
	if rate >= f.base*fullGrowth {
		f.reset(rate)
		return
	}
	if f.rounds++; f.rounds >= fullRounds {
		f.now, f.reached = true, true
	}
}

// minDelay is the least round trip since ProbeRTT or idleness last drained the
// path, and the progress of ProbeRTT (5.3.4.3).
type minDelay struct {
	delay   time.Duration // 0: unknown
	at      time.Duration
	expired bool

	known     time.Duration // what was believed before the present ProbeRTT
	until     time.Duration // when the present ProbeRTT may end; 0: not drained yet
	roundDone bool
}

// aggregation is how much more is acknowledged at once than the rate explains
// (5.5.9), the largest of the last rounds: of 5 to 10, or of 1 to 2 in Startup.
type aggregation struct {
	since             time.Duration
	delivered         float64
	previous, present int
	turn              int64 // round in which present began
}

func (a *aggregation) add(volume int, round, length int64) {
	if round-a.turn >= max(length/2, 1) {
		a.previous, a.present, a.turn = a.present, 0, round
	}
	a.present = max(a.present, volume)
}

func (a *aggregation) max() int { return max(a.previous, a.present) }
