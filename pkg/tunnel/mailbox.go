package tunnel

import (
	"sync"

	"hawser/pkg/slim"
	"hawser/pkg/stream"
)

// mailbox holds what the loop has not seen yet. It is bounded by its senders:
// commands by the flows' credit, batches by the few that each connection owns.
type mailbox struct {
	wake chan struct{} // one slot: there is something

	mu     sync.Mutex
	closed bool
	some   bool // in holds something
	in     mail
}

// mail is one collection.
type mail struct {
	news     []newFlow
	commands []stream.Command
	received []*rxBatch
	room     []*txBatch
	attached []*conn
	lost     []lostConn
	joined   []*strand // urgent connections that stand
	parted   []*strand // and those whose goroutines have ended
	calls    []func()
}

// newFlow tells which worker owns a flow that this side opens.
type newFlow struct {
	id     stream.ID
	worker int
}

// lostConn is a connection that has ended, and why.
type lostConn struct {
	conn *conn
	err  error
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// post adds to the mail under the lock. It returns false, without calling add,
// after the loop has ended.
func (m *mailbox) post(add func(*mail)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		add(&m.in)
		m.some = true
	}
	return !m.closed
}

// waiting reports whether there is mail.
func (m *mailbox) waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.some
}

// signal wakes the loop.
func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// collect swaps the mail for an emptied one.
func (m *mailbox) collect(spent mail) mail {
	spent.reset()
	m.mu.Lock()
	got := m.in
	m.in, m.some = spent, false
	m.mu.Unlock()
	return got
}

// close refuses further mail and returns what was left.
func (m *mailbox) close() mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	got := m.in
	m.in = mail{}
	return got
}

// reset empties the slices and keeps their memory.
func (m *mail) reset() {
	m.news, m.commands = slim.Emptied(m.news), slim.Emptied(m.commands)
	m.received, m.room = slim.Emptied(m.received), m.room[:0]
	m.attached, m.lost = m.attached[:0], m.lost[:0]
	m.joined, m.parted = m.joined[:0], m.parted[:0]
	m.calls = slim.Emptied(m.calls)
}
