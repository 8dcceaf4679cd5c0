package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"hawser/pkg/hint"
	"hawser/pkg/tunnel"
	"hawser/scheduler"
)

// takeHint is the command hint of the control socket.
func (a *agent) takeHint(_ context.Context, args []string) (any, error) {
	h, err := a.hint([]byte(strings.Join(args, " ")), time.Now())
	if err != nil {
		return nil, err
	}
	return map[string]string{"link": h.Link, "says": h.String()}, nil
}

// hint takes in a program's word about a link, said at a time, and passes it on
// to both ends of the session.
func (a *agent) hint(line []byte, said time.Time) (hint.Hint, error) {
	h, err := hint.Parse(line)
	if err != nil {
		return h, err
	}
	for _, u := range a.tunnels.list() {
		if u.name == h.Link {
			u.hear(h, said.Add(h.Valid))
			a.log.Debug("hint", "link", h.Link, "says", h.String(), "for", h.Valid)
			return h, nil
		}
	}
	return h, fmt.Errorf("hint: no link is called %q: status names them", h.Link)
}

// hear notes a hint and until when it holds.
func (u *uplink) hear(h hint.Hint, until time.Time) {
	u.mu.Lock()
	u.heard = h
	u.mu.Unlock()
	u.alter(func(t *tunnel.LinkTerms) {
		t.Leaving, t.Up, t.Down, t.Until = !h.Usable, h.Up, h.Down, until
	})
}

// alter changes the link's terms and tells both ends of the session, if there
// is one. The next session is told when the link joins it.
func (u *uplink) alter(f func(*tunnel.LinkTerms)) {
	for _, lane := range u.lanes {
		lane.alter(f)
	}
	u.mu.Lock()
	f(&u.terms)
	u.terms.Serial++
	t := u.terms
	u.mu.Unlock()
	if s, _ := u.tunnels.current(); s != nil {
		s.SetTerms(u.id, t)
	}
}

// cost has the link be of a tier and a weight.
func (u *uplink) cost(tier scheduler.Tier, weight int) {
	if now := u.termsNow(); now.Tier != tier || now.Weight != weight {
		u.alter(func(t *tunnel.LinkTerms) { t.Tier, t.Weight = tier, weight })
	}
}

// termsNow returns the link's terms.
func (u *uplink) termsNow() tunnel.LinkTerms {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.terms
}

// said returns what a hint says of the link, or "" when none holds.
func (u *uplink) said(now time.Time) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !now.Before(u.terms.Until) {
		return ""
	}
	return u.heard.String()
}
