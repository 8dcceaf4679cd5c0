package relay

import (
	"sync"
	"sync/atomic"

	"hawser/pkg/slim"
	"hawser/pkg/stream"
)

// mailbox is where others leave what they have for a worker. Its contents are
// bounded by the flows' credit (events), by Options.Flows (accepts) and by one
// entry per flow (ready).
type mailbox struct {
	poller Poller

	owed atomic.Bool // there is mail for a sleeping worker whom nobody has woken: see Worker.Settle

	mu        sync.Mutex // guards the next ones, and that owed becomes true
	events    []stream.Event
	accepts   []accept
	ready     []*flow
	attending int  // callers of Worker.Attend
	sleeping  bool // the worker parks, or is about to, and needs a Wake
	closed    bool // the worker has ended
}

// mail is one emptying of the mailbox. Its slices are lent to the mailbox
// again with the next take.
type mail struct {
	events  []stream.Event
	accepts []accept
	ready   []*flow
}

// What counts as little mail.
const (
	littleMail  = 4       // events, connections and flows
	littleBytes = 2 << 10 // of data
)

// little reports whether there is so little mail that to wake the worker would
// take longer than to do what it asks for. The caller holds mu.
func (b *mailbox) little() bool {
	if len(b.events)+len(b.accepts)+len(b.ready) > littleMail {
		return false
	}
	bytes := 0
	for i := range b.events {
		bytes += b.events[i].Seg.Len()
	}
	return bytes <= littleBytes
}

// unlockAndOwe ends a post by somebody who will call Worker.Settle.
func (b *mailbox) unlockAndOwe() {
	if b.sleeping && b.little() {
		b.owed.Store(true)
		b.mu.Unlock()
		return
	}
	b.unlockAndWake()
}

// leave is deliver for those who call Worker.Settle afterwards.
func (b *mailbox) leave(events []stream.Event) {
	if b.add(events) {
		b.unlockAndOwe()
	}
}

// deliver adds a copy of events. After the worker has ended they are dropped.
func (b *mailbox) deliver(events []stream.Event) {
	if b.add(events) {
		b.unlockAndWake()
	}
}

// add leaves mu locked, unless the worker has ended.
func (b *mailbox) add(events []stream.Event) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		for i := range events {
			events[i].Seg.Release()
		}
		return false
	}
	b.events = append(b.events, events...)
	return true
}

// accept adds a connection; it returns false after the worker has ended.
func (b *mailbox) accept(a accept) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.accepts = append(b.accepts, a)
	b.unlockForOwner()
	return true
}

// noted adds a flow whose party is ready.
func (b *mailbox) noted(f *flow) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.ready = append(b.ready, f)
	b.unlockForOwner()
}

// unlockForOwner ends a post by whoever owns a connection: somebody may attend to
// what comes of it.
func (b *mailbox) unlockForOwner() {
	if b.attending > 0 {
		b.unlockAndOwe()
		return
	}
	b.unlockAndWake()
}

// attend counts those who are going to settle.
func (b *mailbox) attend(n int) {
	b.mu.Lock()
	b.attending += n
	b.mu.Unlock()
}

// rouse wakes the worker if it sleeps.
func (b *mailbox) rouse() {
	b.mu.Lock()
	b.unlockAndWake()
}

// asleep reports whether the worker sleeps and was not woken.
func (b *mailbox) asleep() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sleeping
}

// takeLittle is take if there is little.
func (b *mailbox) takeLittle(m *mail) bool {
	b.mu.Lock()
	ok := b.little()
	b.mu.Unlock()
	if ok {
		b.take(m) // what has come meanwhile is seen to by the caller
	}
	return ok
}

// unlockAndWake ends a post. Only the first one after the worker went to sleep
// pays for waking it.
func (b *mailbox) unlockAndWake() {
	wake := b.sleeping
	b.sleeping = false
	b.mu.Unlock()
	if wake {
		b.poller.Wake()
	}
}

// take exchanges the mailbox's contents for m's emptied slices.
func (b *mailbox) take(m *mail) {
	m.clear()
	b.mu.Lock()
	b.sleeping = false
	b.events, m.events = m.events, b.events
	b.accepts, m.accepts = m.accepts, b.accepts
	b.ready, m.ready = m.ready, b.ready
	b.mu.Unlock()
}

// clear empties the slices, and gives back those that a rush has made larger
// than they need to be.
func (m *mail) clear() {
	m.events = slim.Emptied(m.events)
	m.accepts = slim.Emptied(m.accepts)
	m.ready = slim.Emptied(m.ready)
}

// opens reports whether a flow is to begin whose server must be dialled.
func (m *mail) opens() bool {
	for i := range m.events {
		if m.events[i].Kind == stream.EventOpen {
			return true
		}
	}
	return false
}

// sleep announces that the worker parks. It returns false when there is mail. A worker
// that has no flows keeps no room for their mail.
func (b *mailbox) sleep(flows int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sleeping = len(b.events)+len(b.accepts)+len(b.ready) == 0
	if b.sleeping && flows == 0 {
		b.events, b.accepts, b.ready = slim.Rested(b.events), slim.Rested(b.accepts), slim.Rested(b.ready)
	}
	return b.sleeping
}

// rest is clear for a worker that has no flows and parks.
func (m *mail) rest() {
	m.events, m.accepts, m.ready = slim.Rested(m.events), slim.Rested(m.accepts), slim.Rested(m.ready)
}

// close takes the last mail; nothing is accepted from now on.
func (b *mailbox) close(m *mail) {
	b.take(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	m.events = append(m.events, b.events...)
	m.accepts = append(m.accepts, b.accepts...)
	b.events, b.accepts, b.ready = nil, nil, nil
}
