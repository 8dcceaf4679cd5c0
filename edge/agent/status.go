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
func (a *agent) links(live []admin.Link) []admin.Link {
	out := make([]admin.Link, len(a.cfg.Links))
	counted, _ := a.host.Traffic() // a host that is being closed counts nothing
	for i, l := range a.cfg.Links {
		out[i] = admin.Link{Name: l.Name, State: "connecting", Remote: l.Cloud.String()}
		for _, found := range live {
			if found.Name == l.Name {
				out[i] = found
				out[i].NAT64 = a.tunnels.uplinks[i].prefix()
			}
		}
		out[i].Interface, out[i].Tier, out[i].Hint = l.Interface, a.tunnels.uplinks[i].termsNow().Tier.String(), a.tunnels.uplinks[i].said(time.Now())
		out[i].Quota = a.tunnels.uplinks[i].quotaStatus(time.Now())
		if i < len(counted) && counted[i] != nil {
			out[i].Device = kernelCounts(counted[i])
		}
		if err := a.tunnels.uplinks[i].lastError(); err != "" {
			out[i].LastError = err
		}
		out[i].Choice = a.tunnels.uplinks[i].choice()
		if !a.tunnels.uplinks[i].usable() {
			out[i].State = "down"
		}
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
