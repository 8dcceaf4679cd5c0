package card

import (
	"math/rand/v2"
	"slices"
	"time"

	"hawser/pkg/buffer"
)

// Fault is a kind of fault of a Faulty.
type Fault int

// Kinds of fault.
const (
	FaultRefused Fault = iota // a job is refused though there is a place
	FaultLate                 // a result comes after others, or after all patience
	FaultLost                 // a job comes back undone
	FaultForged               // a good record is called forged
	FaultReset                // all jobs inside come back undone
	FaultStall                // nothing comes back for a while
	faults
)

// FaultOptions make a Faulty.
type FaultOptions struct {
	Seed  uint64
	Every int           // one job in so many meets a fault, on the average; required
	Late  time.Duration // how late results may be
	Stall time.Duration // how long a stall may last
}

// Faulty is the channel of a card that has all faults of a poor accelerator but
// wrong results, which nobody on this side could tell from good ones. It stands
// before the channel of a good card, which it closes with itself. It is for tests:
// behind a Guard nobody may notice.
type Faulty struct {
	Channel
	o     FaultOptions
	r     *rand.Rand
	held  []late    // by due
	now   time.Time // as told last
	until time.Time // of a stall
	reset bool      // until the card is empty
	hits  [faults]int
}

// late is a finished job that is kept back.
type late struct {
	job *Job
	due time.Time
}

// NewFaulty returns a Faulty before c.
func NewFaulty(c Channel, o FaultOptions) *Faulty {
	return &Faulty{Channel: c, o: o, r: rand.New(rand.NewPCG(o.Seed, uint64(o.Every)))}
}

// Hits returns how often each kind of fault has happened. Only the user of the
// channel may call it.
func (c *Faulty) Hits() [faults]int { return c.hits }

// TryPut hands j to the card, or refuses it.
func (c *Faulty) TryPut(j *Job) bool {
	c.now = j.Now
	if c.r.IntN(c.o.Every) == 0 {
		c.hits[FaultRefused]++
		return false
	}
	return c.Channel.TryPut(j)
}

// TryGet returns a finished job as the fault that it meets has left it, or nil.
func (c *Faulty) TryGet() *Job {
	for !c.now.Before(c.until) {
		if len(c.held) > 0 && !c.held[0].due.After(c.now) {
			j := c.held[0].job
			c.held = slices.Delete(c.held, 0, 1)
			return j
		}
		j := c.Channel.TryGet()
		if j == nil {
			c.reset = false
			return nil
		}
		if !c.spoil(j) {
			return j
		}
	}
	return nil
}

// spoil lets j meet a fault now and then. It returns true when j is kept back.
func (c *Faulty) spoil(j *Job) bool {
	if c.reset {
		j.undo(ErrLost)
		return false
	}
	if c.r.IntN(c.o.Every) > 0 || j.Err != nil {
		return false
	}
	fault := FaultLate + Fault(c.r.IntN(int(faults-FaultLate)))
	if fault == FaultForged && j.Op != Open {
		fault = FaultLost
	}
	c.hits[fault]++
	switch fault {
	case FaultLate:
		c.keep(j, c.now.Add(c.some(c.o.Late)))
		return true
	case FaultStall:
		c.until = c.now.Add(c.some(c.o.Stall))
		c.keep(j, c.until)
		return true
	case FaultForged:
		j.undo(ErrForged)
	case FaultReset:
		c.reset = true
		j.undo(ErrLost)
	default:
		j.undo(ErrLost)
	}
	return false
}

// some is a time of up to most.
func (c *Faulty) some(most time.Duration) time.Duration {
	return time.Duration(c.r.Int64N(int64(most) + 1))
}

// undo takes a job's result away.
func (j *Job) undo(err error) {
	j.Out.Release()
	j.Out, j.Err = buffer.Seg{}, err
}

// keep keeps j back until due.
func (c *Faulty) keep(j *Job, due time.Time) {
	i, _ := slices.BinarySearchFunc(c.held, due, func(l late, t time.Time) int { return l.due.Compare(t) })
	c.held = slices.Insert(c.held, i, late{j, due})
}

// Park lets the card wake the caller, and has it come back for what is late.
func (c *Faulty) Park(now time.Time) (limit time.Duration, ok bool) {
	c.now = now
	if left := c.until.Sub(now); left > 0 {
		return left, true
	}
	if len(c.held) > 0 && !c.held[0].due.After(now) {
		return -1, false
	}
	limit, ok = c.Channel.Park(now)
	if ok && len(c.held) > 0 {
		if left := c.held[0].due.Sub(now); limit < 0 || left < limit {
			limit = left
		}
	}
	return limit, ok
}

// Close ends the card's channel and releases what is kept back.
func (c *Faulty) Close() {
	for _, l := range c.held {
		l.job.drop()
	}
	c.held = nil
	c.Channel.Close()
}
