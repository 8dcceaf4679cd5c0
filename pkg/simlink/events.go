package simlink

import (
	"container/heap"
	"time"
)

// Events is a simulation's clock: a queue of what happens when. Unlike links
// in a synctest bubble it runs on one goroutine, so that the same events in the
// same order give the same run.
type Events struct {
	now   time.Time
	queue eventQueue
	count uint64
}

type event struct {
	at     time.Time
	number uint64 // of two at one time the older one happens first
	do     func()
}

// NewEvents returns a clock that begins at a time of its own.
func NewEvents() *Events { return &Events{now: time.Unix(1_000_000_000, 0)} }

// Now is the current time.
func (e *Events) Now() time.Time { return e.now }

// At makes do happen at a time, or now when that has passed.
func (e *Events) At(at time.Time, do func()) {
	if at.Before(e.now) {
		at = e.now
	}
	e.count++
	heap.Push(&e.queue, event{at: at, number: e.count, do: do})
}

// After makes do happen after a while.
func (e *Events) After(d time.Duration, do func()) { e.At(e.now.Add(d), do) }

// Run lets happen what does until a time, and returns at that time, or before
// when done says so.
func (e *Events) Run(until time.Time, done func() bool) {
	for len(e.queue) > 0 && !e.queue[0].at.After(until) {
		ev := heap.Pop(&e.queue).(event)
		e.now = ev.at
		ev.do()
		if done != nil && done() {
			return
		}
	}
	e.now = until
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].number < q[j].number
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	ev := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return ev
}
