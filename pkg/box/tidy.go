package box

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A rush of flows leaves the Go heap up to twice as large as what is in use,
// and the flows' end leaves it so until the next collection, which a quiet
// agent may not reach for minutes. The janitor has the heap collected and its
// free pages given back once the rush is over, and before that takes from
// connections what they do not use at rest.
const (
	tidyEvery  = time.Second      // how often it looks
	tidyQuiet  = 4 << 20          // bytes allocated in between above which the collector is at work anyway, and of payload that make traffic
	tidyLeast  = 3 << 20          // bytes worth the work
	tidyFlows  = 256              // flows that ended since the last time, worth it too
	tidyShare  = 10               // of a processor's time, one in so many, may go into it, but
	tidyMost   = 15 * time.Second // is the longest pause: on a busy machine it seems to take for ever
	tidyCalm   = 5                // such pauses are before what is only allocated and let go of
	tidyPauses = 2                // quiet looks in a row before it begins
	tidySoon   = 8                // quiet looks after which connections have followed their flows
	tidyRest   = 15               // quiet looks after which little that has happened is worth it
)

// janitor decides when to give memory back.
type janitor struct {
	allocated uint64 // in all, at the last look
	moved     uint64 // bytes of payload, in all, at the last look
	kept      uint64 // heap after the last time
	then      uint64 // allocated by then
	flows     int    // flows then, or the most since
	standing  int    // flows at the last look
	quiet     int    // looks in a row
	rush      bool   // at the last look there was more than a little to give back
	ended     bool   // the same, as flows have ended
	left      bool   // the last time was for that, or followed one that was
	follow    int    // once more after so many; 0: not. Connections outlive their flows by seconds
	next      time.Time
	calm      time.Time // from then on also what is only allocated and let go of is worth it
}

// due says whether it is time: heap is what the process holds for it in bytes,
// allocated what was allocated since the start, moved how much payload went through.
func (j *janitor) due(now time.Time, heap, allocated, moved uint64, flows int) bool {
	busy, traffic := allocated-j.allocated > tidyQuiet, moved-j.moved > tidyQuiet
	j.allocated, j.moved = allocated, moved
	if busy {
		j.quiet = 0
		return false
	}
	j.quiet++
	j.standing, j.flows = flows, max(j.flows, flows) // of which some may end before the next look
	// Traffic allocates little, because its buffers are used again: what is given back
	// while it lasts is taken again at once, page by page.
	worth := max(tidyLeast, j.kept/10)
	grown := !traffic && heap > j.kept+worth
	j.ended = j.flows-flows > max(tidyFlows, j.flows/10)
	// What was in use the last time may be garbage, of a rush that was not over or of
	// connections that follow their flows. Later there cannot be much more garbage than was
	// allocated since.
	made := allocated-j.then > worth && !now.Before(j.calm)
	soon := j.follow == tidySoon && j.quiet >= tidySoon
	rests := j.quiet >= tidyRest && (made || j.follow > 0 && j.left)
	j.rush = grown || j.ended
	return j.quiet >= tidyPauses && (j.rush || soon || rests) && !now.Before(j.next)
}

// done notes what is left, and what it took of a processor's time. Flows that have ended
// since due was asked are still to be seen to: on a busy machine thousands may have.
func (j *janitor) done(now time.Time, took time.Duration, heap uint64) {
	switch {
	case j.rush:
		j.follow, j.left = tidySoon, j.ended
	case j.follow == tidySoon:
		j.follow = tidyRest
	default:
		j.follow, j.left = 0, false
	}
	j.kept, j.then, j.flows, j.quiet = heap, j.allocated, j.standing, 0
	pause := min(tidyShare*took, tidyMost)
	j.next, j.calm = now.Add(pause), now.Add(tidyCalm*pause)
}

// tidy is the janitor's goroutine; it ends with ctx.
func (w *Workers) tidy(ctx context.Context) {
	var j janitor
	ceiling := newCeiling(w.opts.Memory)
	defer ceiling.lift()
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if w.procs != nil {
				w.procs.note(now) // spliced connections and floods pass no worker
			}
			ceiling.follow(w.flowCount())
			w.resize(w.flowCount())
			heap, allocated := heapSize()
			if !j.due(now, heap, allocated, w.moved(), w.flowCount()) {
				continue
			}
			before := collectorTime()
			for _, s := range w.stacks {
				s.Trim()
			}
			if j.ended || j.left {
				runtime.GC() // pools let go of what two collections find unused
			}
			debug.FreeOSMemory()
			heap, _ = heapSize()
			j.done(time.Now(), collectorTime()-before, heap)
		}
	}
}

// collectorTime is the processor time that collecting and giving back have taken,
// as of the last collection. What the process does beside them is not in it: after a
// rush that is more, and would put off the next time for half a minute.
func collectorTime() time.Duration {
	s := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/scavenge/total:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}, // of processors with nothing else to do
	}
	metrics.Read(s)
	return time.Duration((s[0].Value.Float64() + s[1].Value.Float64() - s[2].Value.Float64()) * float64(time.Second))
}

func (w *Workers) flowCount() (n int) {
	for _, r := range w.workers {
		n += r.Flows()
	}
	return n
}

func (w *Workers) moved() (n uint64) {
	for _, r := range w.workers {
		n += r.Moved()
	}
	return n
}

// heapSize returns the resident bytes of the heap, and how many were ever
// allocated.
func heapSize() (held, allocated uint64) {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(s)
	return s[0].Value.Uint64() + s[1].Value.Uint64() + s[2].Value.Uint64(), s[3].Value.Uint64()
}
