package relay

import (
	"fmt"

	"hawser/pkg/card"
	"hawser/pkg/slim"
	"hawser/pkg/stream"
)

// session is what a worker knows of a tunnel session while it has flows in it.
type session struct {
	tunnel stream.Tunnel
	ring   *card.Keyring
	flows  map[stream.ID]*flow
	peak   slim.Peak        // of flows
	run    list             // flows to run
	share  int              // of its turn in the rota, bytes
	listed bool             // in the rota
	after  *session         // there
	out    []stream.Command // not yet posted
	dirty  bool             // in the worker's list for flush
}

// find returns the flow of an event, or nil: it may have been reset here while
// the event was on its way.
func (w *Worker) find(t stream.Tunnel, id stream.ID) *flow {
	s := w.last
	if s == nil || s.tunnel != t {
		if s = w.sessions[t]; s == nil {
			return nil
		}
		w.last = s
	}
	return s.flows[id]
}

// session returns the worker's record of t, made if need be.
func (w *Worker) session(t stream.Tunnel) (*session, error) {
	if s := w.sessions[t]; s != nil {
		return s, nil
	}
	ring, err := w.o.Ring(t)
	if err != nil {
		return nil, fmt.Errorf("relay: keys of the session with %s: %w", t.Tag(), err)
	}
	s := w.spare
	w.spare = nil
	if s == nil {
		s = &session{flows: map[stream.ID]*flow{}}
	}
	s.tunnel, s.ring = t, ring
	w.sessions[t] = s
	return s, nil
}

// keys is what opens what an event brings.
func (s *session) keys(e *stream.Event) *card.Keys {
	if k, ok := e.Keys.(*card.Keys); ok && k != nil {
		return k
	}
	return s.ring.Keys()
}

// post appends a command to the batch of this wake-up.
func (s *session) post(w *Worker, c stream.Command) {
	s.out = append(s.out, c)
	s.touch(w)
	if len(s.out) >= batch {
		s.flush()
	}
}

// touch makes sure that flush looks at s.
func (s *session) touch(w *Worker) {
	if !s.dirty {
		s.dirty = true
		w.dirty = append(w.dirty, s)
	}
}

func (s *session) flush() {
	if len(s.out) == 0 {
		return
	}
	s.tunnel.Post(s.out)
	clear(s.out)
	s.out = s.out[:0]
}

// flush posts what this wake-up had to say, and forgets sessions without
// flows: they may have ended. One is kept for the next to come.
func (w *Worker) flush() {
	for i, s := range w.dirty {
		w.dirty[i] = nil
		s.dirty = false
		s.flush()
		if len(s.flows) > 0 {
			continue
		}
		delete(w.sessions, s.tunnel)
		if w.last == s {
			w.last = nil
		}
		s.tunnel, s.ring = nil, nil
		if !s.listed {
			w.spare = s
		}
	}
	w.dirty = w.dirty[:0]
}
