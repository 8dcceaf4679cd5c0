package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"hawser/netns"
	"hawser/pkg/admin"
	"hawser/pkg/config"
)

// Take takes over another configuration while connections go on, if it differs from the
// present one only in what can be taken over, and says in words what that was; "": nothing,
// and the agent must start anew, also where taking over has failed midway. An error says that
// no agent could start by it on this host: nothing has changed. It may be called from any
// goroutine.
func (e *Edge) Take(next *config.Edge) (string, error) {
	a := e.running.Load()
	if a == nil {
		return "", nil
	}
	a.taking.Lock()
	defer a.taking.Unlock()
	if a.working == nil || a.working.Err() != nil {
		return "", nil
	}
	what, err := a.take(next)
	if wrong := (impossible{}); errors.As(err, &wrong) {
		return "", wrong.error
	}
	if err != nil && a.working.Err() == nil {
		a.log.Warn("the changed configuration cannot be taken over while connections go on", "reason", err)
	}
	if err != nil || len(what) == 0 {
		return "", nil
	}
	text := strings.Join(what, ", ")
	a.takenOver.Store(&admin.Taken{At: time.Now(), What: text})
	return text, nil
}

// impossible is the error of a configuration by which no agent could start on this host.
type impossible struct{ error }

// takeable are the keys that are taken over; each copies what it names.
var takeable = []struct {
	key  string
	copy func(to, from *config.Edge)
}{
	{"links", func(to, from *config.Edge) { to.Links = from.Links }},
	{"policies", func(to, from *config.Edge) { to.Policies = from.Policies }},
	{"users", func(to, from *config.Edge) { to.Users = from.Users }},
	{"handshake", func(to, from *config.Edge) { to.Handshake = from.Handshake }},
	{"limits.pending_per_client", func(to, from *config.Edge) { to.Limits.PendingClient = from.Limits.PendingClient }},
	{"limits.open_per_client", func(to, from *config.Edge) { to.Limits.OpenClient = from.Limits.OpenClient }},
	{"limits.first_flights", func(to, from *config.Edge) { to.Limits.FirstFlights = from.Limits.FirstFlights }},
	{"steer.exclude", func(to, from *config.Edge) { to.Steer.Exclude = from.Steer.Exclude }},
	{"steer.ports", func(to, from *config.Edge) { to.Steer.Ports = from.Steer.Ports }},
	{"hints", func(to, from *config.Edge) { to.Hints = from.Hints }},
}

// changes are the keys of takeable in which two configurations differ, none where they
// differ in others, too.
func changes(was, next *config.Edge) (keys []string) {
	rest := *next
	for _, t := range takeable {
		before := rest
		if t.copy(&rest, was); !reflect.DeepEqual(before, rest) {
			keys = append(keys, t.key)
		}
	}
	strict := func(cfg *config.Edge) bool { return cfg.Handshake == config.HandshakeStrict }
	if !reflect.DeepEqual(&rest, was) || strict(was) != strict(next) {
		return nil
	}
	return keys
}

// takeTime bounds what is asked before anything changes.
const takeTime = 5 * time.Second

// take takes over a configuration and returns what has changed. Everything that can fail
// without touching anything comes first; after an error the agent must end.
func (a *agent) take(next *config.Edge) (what []string, err error) {
	keys := changes(a.present, next)
	if len(keys) == 0 {
		return nil, nil
	}
	// What the host was prepared for: whether the stack connects to servers itself.
	if hub := next.Steer.Intercept == config.InterceptHub; hub && (a.failOpen || directPolicy(next)) != a.plan.Direct {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(a.working, takeTime)
	defer cancel()
	planned := plan(ctx, next)
	r, err := a.relink(next.Links, planned.Links)
	if err != nil {
		return nil, err
	}
	table, ok := a.policies.Load().Next(next.Policies, users(next))
	if !ok {
		return nil, errors.New("there have been too many policies since the start")
	}
	if err := a.admits(r.plan()); err != nil {
		return nil, impossible{err}
	}
	if err := a.resteer(planned.Exclude, planned.Ports); err != nil {
		return nil, err
	}
	a.policies.Store(table)
	if err := a.workers.Change(a.rules(next)); err != nil {
		return nil, err
	}
	a.hints.Store(&next.Hints)
	select {
	case a.rehint <- struct{}{}:
	default:
	}
	if err := r.do(); err != nil {
		return nil, err
	}
	a.present = next
	for i, key := range keys {
		if said := r.said(); key == "links" && said != "" {
			keys[i] = fmt.Sprintf("links (%s)", said)
		}
	}
	return keys, nil
}

// resteer has the host leave other destinations and ports alone. Connections that stand go on
// as they are.
func (a *agent) resteer(exclude []netip.Prefix, ports []netns.PortRange) error {
	next := a.plan
	next.Exclude, next.Ports = exclude, ports
	return a.rehost(next)
}

// rehost changes the host.
func (a *agent) rehost(next netns.Plan) error {
	if reflect.DeepEqual(next, a.plan) {
		return nil
	}
	if err := a.lead(next); err != nil {
		return err
	}
	a.plan = next
	return nil
}
