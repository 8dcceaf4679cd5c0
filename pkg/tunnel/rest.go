package tunnel

import (
	"hawser/pkg/reassembly"
	"hawser/pkg/slim"
)

// rest gives back what a crowd of flows has made the session's own queues and free
// lists grow by, once its last flow has gone and all that was sent is answered. It
// costs nothing while there are flows, and little for the next ones to come: what
// they need grows again by doubling.
func (s *Session) rest() {
	if !s.swollen || len(s.flows) > 0 || !s.ctrl.none() {
		return
	}
	for _, l := range s.links {
		if l.conn != nil && l.conn.inFlight > 0 {
			return
		}
	}
	s.swollen = false
	for _, l := range s.links {
		if l.conn == nil {
			continue
		}
		for _, st := range l.conn.strands {
			st.rest()
		}
	}
	s.pieces = pieces{}
	s.tables = reassembly.Tables{}
	s.vias, s.ctrls = nil, nil
	s.ctrl.rest()
	if len(s.dirty)+len(s.pressing) == 0 {
		s.dirty, s.pressing = slim.Rested(s.dirty), slim.Rested(s.pressing)
	}
	for w := range s.events {
		s.events[w] = slim.Rested(s.events[w])
	}
	s.spent.rest()
	s.box.rest()
}

// rest gives back the room for records that wait for an answer, none of which does,
// and that of batches that the reader does not have.
func (st *strand) rest() {
	if st.log.n == 0 {
		st.log.ring = nil
	}
	for range len(st.rx) {
		select {
		case b := <-st.rx:
			b.recs, b.frames = slim.Rested(b.recs), slim.Rested(b.frames)
			st.rx <- b // there is a slot for each
		default:
			return // the reader has taken them meanwhile
		}
	}
}

// rest is reset that keeps only a little memory.
func (m *mail) rest() {
	m.news, m.commands = slim.Rested(m.news), slim.Rested(m.commands)
	m.received, m.room = slim.Rested(m.received), slim.Rested(m.room)
	m.calls = slim.Rested(m.calls)
}

// rest is the same for mail to come, unless there is some.
func (m *mailbox) rest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.some {
		m.in.rest()
	}
}
