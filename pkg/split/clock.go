package split

import (
	"math/bits"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// runners is how many of a clock's functions run at the same time: the others are
// not to wait for one that waits for its endpoint's lock.
const runners = 4

const (
	// slackAfter is how many timers there must be for long ones to fire together. Each
	// alone wakes half a dozen goroutines on its way out and back: 10,000 clients that
	// read nothing, of which 500 a second are asked whether they still do not, would
	// cost a seventh of a core.
	slackAfter = 1024
	// slackFrom is the shortest that waits for others, for an eighth of its time at
	// most, as in the kernel's wheel, and slackMost the longest that one does.
	slackFrom = 200 * time.Millisecond
	slackMost = 128 * time.Millisecond
)

// slack is what the due times of timers of length d are multiples of, where there are
// many: a power of two milliseconds; 0: they fire in time.
func slack(d time.Duration, timers int) time.Duration {
	if timers < slackAfter || d < slackFrom {
		return 0
	}
	most := min(d/8, slackMost)
	return time.Duration(1) << (bits.Len64(uint64(most/time.Millisecond)) - 1) * time.Millisecond
}

// clock is netstack's clock. It differs from netstack's own in how timers fire: that
// starts a goroutine for each. When very many connections retransmit or end at
// once, as after a rush, those are as many goroutines at once, before which everybody
// else waits, and the runtime never gives back what it has noted for each of them.
// Here all timers share a heap and one timer of the runtime's, and at most
// `runners` functions run at a time; they must not wait for each other. A timer
// takes a quarter of the memory, too. Where there are many, long ones fire together (slack).
type clock struct {
	tcpip.Clock // for the time

	mu      sync.Mutex
	heap    alarms
	timer   *time.Timer // calls fire
	armed   bool        // it is about to, at
	at      tcpip.MonotonicTime
	working int // calls of fire at work
	stopped bool
}

func newClock() *clock { return &clock{Clock: tcpip.NewStdClock()} }

// AfterFunc implements tcpip.Clock.
func (c *clock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	a := &alarm{clock: c, call: f, place: -1}
	a.Reset(d)
	return a
}

// now is the time since the stack was made, in milliseconds.
func (s *Stack) now() int64 {
	return s.clock.NowMonotonic().Sub(tcpip.MonotonicTime{}).Milliseconds()
}

// millis is that, and wraps.
func (s *Stack) millis() uint32 { return uint32(s.now()) }

// stop forgets all timers, now and in future; functions that run are not waited for.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped, c.heap = true, nil
	if c.timer != nil {
		c.timer.Stop()
	}
}

// arm lets fire be called when the first timer is due. While as many as may are at
// work already, the first who ends does that. The caller holds mu.
func (c *clock) arm(now tcpip.MonotonicTime) {
	if len(c.heap) == 0 || c.working >= runners {
		return
	}
	first := c.heap[0].due
	if c.armed && !first.Before(c.at) {
		return
	}
	c.armed, c.at = true, first
	if c.timer == nil {
		c.timer = time.AfterFunc(first.Sub(now), c.fire)
	} else {
		c.timer.Reset(first.Sub(now))
	}
}

// fire calls what is due; before each call it sees to it that what becomes due
// meanwhile need not wait. The runtime calls it.
func (c *clock) fire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	if c.working >= runners {
		return
	}
	c.working++
	for {
		now := c.NowMonotonic()
		if len(c.heap) == 0 || now.Before(c.heap[0].due) {
			c.working--
			c.arm(now)
			return
		}
		a := c.heap.remove(0)
		c.arm(now)
		c.mu.Unlock()
		a.call()
		c.mu.Lock()
	}
}

// alarm is one timer. The clock's mu guards due and place.
type alarm struct {
	clock *clock
	call  func()
	due   tcpip.MonotonicTime
	place int32 // in the heap; negative: it does not run
}

// Stop implements tcpip.Timer.
func (a *alarm) Stop() bool {
	c := a.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.place < 0 || c.stopped {
		return false
	}
	c.heap.remove(int(a.place))
	return true
}

// Reset implements tcpip.Timer.
func (a *alarm) Reset(d time.Duration) {
	c := a.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	now := c.NowMonotonic()
	if a.place >= 0 {
		c.heap.remove(int(a.place))
	}
	a.due = now.Add(max(d, 0))
	if unit := slack(d, len(c.heap)); unit > 0 {
		if late := a.due.Sub(tcpip.MonotonicTime{}) % unit; late > 0 {
			a.due = a.due.Add(unit - late)
		}
	}
	c.heap.add(a)
	c.arm(now)
}

// alarms is a heap: the next one comes first, and each has four below it.
type alarms []*alarm

const branches = 4

func (h *alarms) add(a *alarm) {
	*h = append(*h, a)
	h.rise(len(*h)-1, a)
}

// remove takes out the one at i. A heap that has become much smaller than it was
// gives back memory.
func (h *alarms) remove(i int) *alarm {
	s := *h
	n := len(s) - 1
	a, last := s[i], s[n]
	s[n] = nil
	*h = s[:n]
	if a != last && !h.sink(i, last) {
		h.rise(i, last)
	}
	a.place = -1
	if cap(s) > 1024 && n < cap(s)/8 {
		*h = append(make(alarms, 0, 2*n), s[:n]...)
	}
	return a
}

// rise puts a at i or above.
func (h alarms) rise(i int, a *alarm) {
	for i > 0 {
		up := (i - 1) / branches
		if !a.due.Before(h[up].due) {
			break
		}
		h.put(i, h[up])
		i = up
	}
	h.put(i, a)
}

// sink puts a at i or below, and says whether it is below.
func (h alarms) sink(i int, a *alarm) bool {
	from := i
	for {
		next := branches*i + 1
		end := min(next+branches, len(h))
		if next >= end {
			break
		}
		for j := next + 1; j < end; j++ {
			if h[j].due.Before(h[next].due) {
				next = j
			}
		}
		if !h[next].due.Before(a.due) {
			break
		}
		h.put(i, h[next])
		i = next
	}
	h.put(i, a)
	return i > from
}

func (h alarms) put(i int, a *alarm) { h[i], a.place = a, int32(i) }
