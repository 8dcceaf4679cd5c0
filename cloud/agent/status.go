package agent

import (
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/identity"
)

// status is the document behind the control socket.
func (a *agent) status() admin.Status {
	s := a.workers.Describe(a.started, a.budget, &a.counters)
	s.Key = a.id.String()
	s.Taken = a.takenOver.Load()
	s.Sessions = a.sessions.status()
	return s
}

// status has a session for each edge that is configured: one that is not there has one that
// is down, so that it is missed.
func (s *sessions) status() []admin.Session {
	out := []admin.Session{}
	for _, e := range s.served() {
		h, left, conflict := s.of(e.Key)
		session := admin.Session{Peer: e.Name, State: "down", Since: left, Links: []admin.Link{}}
		if h != nil {
			if st, ok := h.session.Status(); ok {
				session = box.Session(st, false)
				session.Since, session.Protocol = box.Since(session, h.since), int(h.version)
			}
		}
		session.Key, session.Conflict = identity.EncodePublic(e.Key), conflict
		out = append(out, session)
	}
	return out
}
