package card

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"hawser/pkg/buffer"
)

// Defaults of GuardOptions.
const (
	DefaultDeadline = 500 * time.Millisecond
	DefaultSmall    = 2 << 10
	DefaultRetry    = time.Second
)

// maxRetry bounds the pause before a card that fails again and again is tried.
const maxRetry = time.Minute

// looks is how many times a Guard looks at its card within a deadline.
const looks = 4

// GuardOptions make a Guard. Zero values take the defaults.
type GuardOptions struct {
	Depth    int           // jobs inside at most; required, and not more than the card takes
	Deadline time.Duration // without any result, while jobs are inside: the card has stalled
	Small    int           // jobs of up to this many bytes are done in the caller's goroutine; negative: none
	Retry    time.Duration // pause before a card that has failed is tried again; doubles up to a minute
}

// Guard is a Channel that stands before the channel of an asynchronous card
// and does its jobs itself when that fails. The caller sees every job come
// back, done and in order, whatever the card does:
//
//   - The card has stalled when it has jobs inside and no result came for the
//     deadline. The time that the caller itself was away does not count.
//   - A job that comes back with ErrLost, or as something that cannot be its
//     result, is a failure too. So is a record that the card calls forged and
//     the Guard can open.
//   - After a failure all jobs inside, and those that follow, are done in the
//     caller's goroutine. The card is tried again after a pause, once it has
//     given back all that it held.
//
// To do a job twice is safe: input that went to the card is only read, and
// what comes back late is dropped. A seal is never sent twice, so no two
// ciphertexts of one nonce ever leave.
//
// Small jobs are cheaper to do than to hand over. They are done by the Guard at
// once, and leave when it is their turn.
type Guard struct {
	o       GuardOptions
	card    Channel
	own     *engine
	entries []entry // ring of jobs in the order of TryPut
	head    int
	count   int
	free    *copied

	inside int       // jobs that the card holds
	live   int       // of these: not given up
	moved  bool      // a result came since the last look
	since  time.Time // nothing has come from the card since then
	looked time.Time
	sick   bool
	until  time.Time     // sick: not tried again before
	pause  time.Duration // the next one
	counts guardCounts
}

// entry is one job of the caller.
type entry struct {
	job  *Job
	in   buffer.Seg // its input, while the card has it too
	sent *copied    // what the card has; nil when the job is done
}

// copied is a job as the card gets it. It cannot be used again before the card
// has given it back, however late.
type copied struct {
	job  Job
	at   int // place of its entry
	live bool
	next *copied // in the free list
}

// guardCounts are written by the worker alone and read by Counts.
type guardCounts struct{ failures, again, late, wrong atomic.Uint64 }

// GuardCounts says what a Guard has gone through.
type GuardCounts struct {
	Failures uint64 // times that the card was given up for a while
	Again    uint64 // jobs that the card did not do, done by the Guard
	Late     uint64 // results that came after that, and were dropped
	Wrong    uint64 // results that were not what they should be
}

// NewGuard returns a Guard before card, which it closes with itself.
func NewGuard(card Channel, o GuardOptions) (*Guard, error) {
	if o.Depth < 1 || o.Depth > MaxQueue {
		return nil, fmt.Errorf("card: queue of %d jobs, may be 1 to %d", o.Depth, MaxQueue)
	}
	if o.Deadline == 0 {
		o.Deadline = DefaultDeadline
	}
	if o.Small == 0 {
		o.Small = DefaultSmall
	}
	if o.Retry == 0 {
		o.Retry = DefaultRetry
	}
	e, err := newEngine()
	if err != nil {
		return nil, err
	}
	return &Guard{o: o, card: card, own: e, entries: make([]entry, o.Depth), pause: o.Retry}, nil
}

// Counts may be called from any goroutine.
func (g *Guard) Counts() GuardCounts {
	c := &g.counts
	return GuardCounts{Failures: c.failures.Load(), Again: c.again.Load(), Late: c.late.Load(), Wrong: c.wrong.Load()}
}

// TryPut hands j to the card, or does it. It returns false while Depth jobs are
// inside.
func (g *Guard) TryPut(j *Job) bool {
	if g.count == len(g.entries) {
		return false
	}
	at := (g.head + g.count) % len(g.entries)
	e := &g.entries[at]
	e.job = j
	g.count++
	if !g.send(e, at) {
		g.own.do(j)
	}
	return true
}

// send hands a job to the card. It returns false when the Guard has to do it.
func (g *Guard) send(e *entry, at int) bool {
	j := e.job
	if j.size() <= g.o.Small || !g.well(j.Now) {
		return false
	}
	in, ok := j.take()
	if !ok {
		return false // the engine says why
	}
	c := g.copy(j, at)
	c.job.In = in.Share()
	if !g.card.TryPut(&c.job) {
		c.job.In.Release()
		g.put(c)
		j.In = in // and no slab: the card may have looked at it
		return false
	}
	if g.live == 0 {
		g.since, g.looked = j.Now, j.Now
	}
	g.inside++
	g.live++
	e.in, e.sent = in, c
	return true
}

// well reports whether the card may be used. A card that has failed may after
// its pause, when it holds nothing from before.
func (g *Guard) well(now time.Time) bool {
	if g.live > 0 {
		g.look(now)
	}
	if g.sick && g.inside == 0 && !now.Before(g.until) {
		g.sick = false
	}
	return !g.sick
}

// take turns a job's input into a Seg, so that it can be shared.
func (j *Job) take() (in buffer.Seg, ok bool) {
	switch {
	case j.Slab == nil:
		in, j.In = j.In, buffer.Seg{}
		return in, true
	case j.Op == Seal && j.N > 0 && j.N+Overhead <= len(j.Slab.Bytes()):
		in = j.Slab.Seg(HeaderLen, HeaderLen+j.N)
	case j.Op == Open && j.N > 0 && j.N <= len(j.Slab.Bytes()):
		in = j.Slab.Seg(0, j.N)
	default:
		return buffer.Seg{}, false
	}
	j.Slab = nil
	return in, true
}

// copy returns a copy of j without input.
func (g *Guard) copy(j *Job, at int) *copied {
	c := g.free
	if c == nil {
		c = &copied{}
	} else {
		g.free = c.next
	}
	c.at, c.live, c.next = at, true, nil
	c.job = Job{Op: j.Op, Codec: j.Codec, Ring: j.Ring, Flow: j.Flow, Counter: j.Counter, Now: j.Now, Since: j.Since, Owner: c}
	return c
}

// put gives a copy back that holds nothing.
func (g *Guard) put(c *copied) {
	*c = copied{next: g.free}
	g.free = c
}

// TryGet returns the oldest job if it is done.
func (g *Guard) TryGet() *Job {
	g.collect()
	if g.count == 0 || g.entries[g.head].sent != nil {
		return nil
	}
	j := g.entries[g.head].job
	g.entries[g.head] = entry{}
	g.head = (g.head + 1) % len(g.entries)
	g.count--
	return j
}

// collect takes what the card has finished.
func (g *Guard) collect() {
	if g.inside == 0 {
		return
	}
	for j := g.card.TryGet(); j != nil; j = g.card.TryGet() {
		c := j.Owner.(*copied)
		g.inside--
		if c.live {
			g.live--
			g.moved = true
			g.settle(&g.entries[c.at], &c.job)
		} else {
			g.counts.late.Add(1)
			c.job.drop()
		}
		g.put(c)
	}
}

// settle ends a job with what the card made of it.
func (g *Guard) settle(e *entry, result *Job) {
	e.sent = nil
	if e.job.credible(result) {
		e.job.Out, e.job.Used, e.job.Err = result.Out, result.Used, result.Err
		e.in.Release()
		e.in = buffer.Seg{}
		return
	}
	verdict := result.Err
	result.drop()
	g.redo(e)
	switch {
	case errors.Is(verdict, ErrLost):
	case verdict != nil && e.job.Err != nil:
		return // forged indeed
	default:
		g.counts.wrong.Add(1)
	}
	g.counts.again.Add(1)
	g.fail(e.job.Now)
}

// credible reports whether result may be taken for j's. Forged records are
// rare, so the card's word alone is not enough for one: the flow would be
// reset.
func (j *Job) credible(result *Job) bool {
	switch {
	case result.Err != nil:
		return !errors.Is(result.Err, ErrLost) && !errors.Is(result.Err, ErrForged)
	case j.Op == Open:
		return result.Out.Len() > 0 && result.Out.Len() <= buffer.Most
	}
	h, err := ParseHeader(result.Out.P)
	return err == nil && h.Len == result.Out.Len()
}

// redo does a job that the card did not do.
func (g *Guard) redo(e *entry) {
	e.job.In, e.in, e.sent = e.in, buffer.Seg{}, nil
	g.own.do(e.job)
}

// fail gives the card up for a while and does all that it holds.
func (g *Guard) fail(now time.Time) {
	if g.sick {
		return
	}
	g.counts.failures.Add(1)
	if now.Sub(g.until) > maxRetry {
		g.pause = g.o.Retry // it has been well for long
	}
	g.sick, g.until = true, now.Add(g.pause)
	g.pause = min(2*g.pause, maxRetry)
	for n := range g.count {
		e := &g.entries[(g.head+n)%len(g.entries)]
		if e.sent != nil {
			e.sent.live = false
			g.live--
			g.redo(e)
			g.counts.again.Add(1)
		}
	}
}

// look decides whether the card has stalled. It looks several times within a
// deadline: when it could not, the caller was away, and the card perhaps too.
func (g *Guard) look(now time.Time) {
	if g.moved || now.Sub(g.looked) > 2*g.o.Deadline/looks {
		g.since, g.moved = now, false
	}
	g.looked = now
	if now.Sub(g.since) >= g.o.Deadline {
		g.fail(now)
	}
}

// Park lets the card wake the caller, also for what comes late: the caller has to let
// go of it. While the card holds jobs that are not given up the caller has to come back
// and look.
func (g *Guard) Park(now time.Time) (limit time.Duration, ok bool) {
	g.collect()
	if g.live > 0 {
		g.look(now)
	}
	switch {
	case g.count > 0 && g.entries[g.head].sent == nil:
		return -1, false
	case g.inside == 0:
		return -1, true
	}
	limit, ok = g.card.Park(now)
	if step := g.o.Deadline / looks; ok && g.live > 0 && (limit < 0 || limit > step) {
		limit = step
	}
	return limit, ok
}

// FD returns the card's descriptor.
func (g *Guard) FD() int { return g.card.FD() }

// Close ends the card's channel and releases what the jobs inside hold.
func (g *Guard) Close() {
	for ; g.count > 0; g.count-- {
		e := &g.entries[g.head]
		e.in.Release()
		e.job.drop()
		*e = entry{}
		g.head = (g.head + 1) % len(g.entries)
	}
	g.card.Close()
}
