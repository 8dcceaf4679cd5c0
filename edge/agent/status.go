package agent

import (
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/identity"
)

// status is the document behind the control socket.
func (a *agent) status() admin.Status {
	s := a.workers.Describe(a.started, a.budget, &a.counters)
	if a.cfg.Name != "" {
		s.Name = a.cfg.Name
	}
	s.Key = a.id.String()
	s.FailOpen = a.failOpen
	s.Detour = a.detour()
	s.Taken = a.takenOver.Load()
	session := a.tunnels.describe()
	session.Key = identity.EncodePublic(a.cfg.Cloud.Key)
	session.Links = a.links(session.Links)
	s.Sessions = []admin.Session{session}
	return s
}

// describe is what there is to say of the session without the configuration. Its cloud keeps
// its name between two sessions: to Prometheus another one is another session.
func (t *tunnels) describe() admin.Session {
	if s, since := t.current(); s != nil {
		if st, ok := s.Status(); ok {
			session := box.Session(st, true)
			session.Since, session.Protocol = box.Since(session, since), t.protocol()
			return session
		}
	}
	return admin.Session{Peer: t.called(), State: "down"}
}

// links lists all configured links, also those that never connected.
func (a *agent) links(live []admin.Link) (out []admin.Link) {
	counted, _ := a.host.Traffic() // a host that is being closed counts nothing
	uplinks := a.tunnels.list()
	out = make([]admin.Link, 0, len(uplinks))
	for _, u := range uplinks {
		entry, _ := u.says()
		l := admin.Link{Name: u.name, State: "connecting", Remote: entry.Cloud.String()}
		for _, found := range live {
			if found.Name == u.name {
				l = found
				l.NAT64 = u.prefix()
			}
		}
		l.Interface, l.Tier, l.Hint = entry.Interface, u.termsNow().Tier.String(), u.said(time.Now())
		l.Quota = u.quotaStatus(time.Now())
		if u.id < len(counted) && counted[u.id] != nil {
			l.Device = kernelCounts(counted[u.id])
		}
		if err := u.lastError(); err != "" {
			l.LastError = err
		}
		l.Choice = u.choice()
		if !u.usable() {
			l.State = "down"
		}
		out = append(out, l)
	}
	return out
}

// prefix is that of NAT64 by which the link's connection goes, "" if by none.
func (u *uplink) prefix() string {
	if p := u.where.translated(); p.IsValid() && u.serves.Load() > 0 {
		return p.String()
	}
	return ""
}

func kernelCounts(t *netns.Traffic) *admin.Device {
	return &admin.Device{
		BytesUp: t.SentBytes, BytesDown: t.ReceivedBytes, PacketsUp: t.SentPackets, PacketsDown: t.ReceivedPackets,
		ErrorsUp: t.SentErrors, ErrorsDown: t.ReceivedErrors, DropsUp: t.SentDropped, DropsDown: t.ReceivedDropped,
	}
}
