package relay

import (
	"sync"

	"hawser/pkg/slim"
	"hawser/pkg/stream"
)

// mailbox is where others leave what they have for a worker. Its contents are
// bounded by the flows' credit (events), by Options.Flows (accepts) and by one
// entry per flow (ready).
type mailbox struct {
	poller Poller

	mu       sync.Mutex
	events   []stream.Event
	accepts  []accept
	ready    []*flow
	sleeping bool // the worker parks, or is about to, and needs a Wake
	closed   bool // the worker has ended
}

// mail is one emptying of the mailbox. Its slices are lent to the mailbox
// again with the next take.
type mail struct {
	events  []stream.Event
	accepts []accept
	ready   []*flow
}

// deliver adds a copy of events. After the worker has ended they are dropped.
func (b *mailbox) deliver(events []stream.Event) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		for i := range events {
			events[i].Seg.Release()
		}
		return
	}
	b.events = append(b.events, events...)
	b.unlockAndWake()
}

// accept adds a connection; it returns false after the worker has ended.
func (b *mailbox) accept(a accept) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.accepts = append(b.accepts, a)
	b.unlockAndWake()
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
	b.unlockAndWake()
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

// sleep announces that the worker parks. It returns false when there is mail.
func (b *mailbox) sleep() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sleeping = len(b.events)+len(b.accepts)+len(b.ready) == 0
	return b.sleeping
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
