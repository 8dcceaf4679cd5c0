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
	s.Sessions = []admin.Session{}
	for _, h := range a.sessions.list() {
		st, ok := h.session.Status()
		if !ok {
			continue
		}
		session := box.Session(st, false)
		session.Since, session.Protocol = h.since, int(h.version)
		session.Key = identity.EncodePublic(h.edge.Key)
		s.Sessions = append(s.Sessions, session)
	}
	return s
}
