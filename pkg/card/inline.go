package card

import (
	"fmt"
	"time"
)

// Inline is the card that works in the caller's goroutine: TryPut does the
// job. Its output queue is bounded as any card's is.
type Inline struct {
	engine *engine
	out    []*Job // ring of finished jobs
	head   int
	count  int
}

// NewInline returns an Inline that holds at most depth finished jobs.
func NewInline(depth int) (*Inline, error) {
	if depth < 1 {
		return nil, fmt.Errorf("card: queue of %d jobs, needs at least 1", depth)
	}
	e, err := newEngine()
	if err != nil {
		return nil, err
	}
	return &Inline{engine: e, out: make([]*Job, depth)}, nil
}

// TryPut does j. It returns false while depth results wait for TryGet.
func (c *Inline) TryPut(j *Job) bool {
	if c.count == len(c.out) {
		return false
	}
	c.engine.do(j)
	c.out[(c.head+c.count)%len(c.out)] = j
	c.count++
	return true
}

// TryGet returns the oldest finished job, or nil.
func (c *Inline) TryGet() *Job {
	if c.count == 0 {
		return nil
	}
	j := c.out[c.head]
	c.out[c.head] = nil
	c.head = (c.head + 1) % len(c.out)
	c.count--
	return j
}

// Park reports whether there is nothing to get.
func (c *Inline) Park(time.Time) (limit time.Duration, ok bool) { return -1, c.count == 0 }

// FD returns -1: a result is there when TryPut returns.
func (c *Inline) FD() int { return -1 }

// Close releases what the finished jobs inside hold.
func (c *Inline) Close() {
	for j := c.TryGet(); j != nil; j = c.TryGet() {
		j.drop()
	}
}
