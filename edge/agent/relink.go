package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// How an uplink is left.
const (
	leaveTime = time.Second     // for which nothing new is given to it while what is under way arrives
	standTime = 5 * time.Second // at most, until another one stands
	standLook = 20 * time.Millisecond
)

var (
	errRemoved  = errors.New("it is no more in the configuration")
	errChanged  = errors.New("its entry of links has changed")
	errStopping = errors.New("the agent stops")
)

// relink is how the uplinks become what another configuration says.
type relink struct {
	a     *agent
	list  []*uplink // as it says, in its order
	next  []config.Link
	route map[*uplink]netns.LinkRoute // of those that are new
	came  []*uplink                   // of names that were not there
	gone  []*uplink
	swaps []swap
	moved []string // names of those that stay, for another price
}

// swap replaces an uplink by one of the same name, and so of the same place and ID: to the
// session it is a link whose connection has ended and which has another one.
type swap struct{ was, now *uplink }

// relink prepares the links of a configuration, whose routes are in the same order.
func (a *agent) relink(next []config.Link, routes []netns.LinkRoute) (*relink, error) {
	r := &relink{a: a, next: next, route: map[*uplink]netns.LinkRoute{}, gone: slices.Clone(a.tunnels.list())}
	if err := a.quotas.check(next); err != nil {
		return nil, impossible{err}
	}
	for i, l := range next {
		var was *uplink
		if at := slices.IndexFunc(r.gone, func(u *uplink) bool { return u.name == l.Name }); at >= 0 {
			was = r.gone[at]
			r.gone = slices.Delete(r.gone, at, at+1)
		}
		if was != nil && r.stays(was, l) {
			r.list = append(r.list, was)
			continue
		}
		place, err := a.place(l.Name)
		if err != nil {
			return nil, err
		}
		u, err := a.uplink(place, routes[i], l)
		if err != nil {
			return nil, impossible{err}
		}
		u.index, r.route[u] = i, routes[i]
		r.list = append(r.list, u)
		if was != nil {
			r.swaps = append(r.swaps, swap{was, u})
		} else {
			r.came = append(r.came, u)
		}
	}
	return r, nil
}

// stays tells whether an uplink can go on under another entry, which may give it another price.
func (r *relink) stays(u *uplink, l config.Link) bool {
	was, _ := u.says()
	same := l
	same.Tier, same.Weight, same.Quota, same.QuotaDay = was.Tier, was.Weight, was.Quota, was.QuotaDay
	if same != was {
		return false
	}
	if l != was {
		r.moved = append(r.moved, u.name)
	}
	return true
}

// place is a name's in the host's plan, for good: it is the link's ID to the session, where
// figures and terms of the name go on.
func (a *agent) place(name string) (int, error) {
	place, known := a.places[name]
	if !known {
		if place = len(a.places); place >= wire.MaxUplinks {
			return 0, fmt.Errorf("there have been %d links since the start", wire.MaxUplinks)
		}
		a.places[name] = place
	}
	return place, nil
}

// do carries it out. Links are added first, so that others may be left while connections go
// on; what takes the interface of one that goes must wait for that.
func (r *relink) do() error {
	t := r.a.tunnels
	var soon, late []*uplink
	for _, u := range r.came {
		if r.taken(u) {
			late = append(late, u)
		} else {
			soon = append(soon, u)
		}
	}
	if err := r.add(soon); err != nil {
		return err
	}
	if err := r.leave(errRemoved, r.gone...); err != nil {
		return err
	}
	if err := r.rehost(r.gone, nil); err != nil {
		return err
	}
	if err := r.add(late); err != nil {
		return err
	}
	for _, s := range r.swaps {
		if err := r.leave(errChanged, s.was); err != nil {
			return err
		}
		if err := r.add([]*uplink{s.now}); err != nil {
			return err
		}
	}
	for i, u := range r.list {
		u.mu.Lock()
		u.entry, u.index = r.next[i], i
		u.mu.Unlock()
	}
	t.show(r.list)
	r.a.quotas.take(r.list)
	r.a.quotas.again()
	return nil
}

// taken tells whether an uplink that comes leaves by the interface of one that goes.
func (r *relink) taken(u *uplink) bool {
	by := func(o *uplink) bool {
		entry, _ := o.says()
		return entry.Interface == r.route[u].Interface
	}
	return slices.ContainsFunc(r.gone, by) || slices.ContainsFunc(r.swaps, func(s swap) bool { return by(s.was) })
}

// add has the host lead uplinks and starts them.
func (r *relink) add(us []*uplink) error {
	if len(us) == 0 {
		return nil
	}
	for _, u := range us {
		u.renumber(r.a.tunnels.serial() + 1)
	}
	all := append(slices.Clone(r.a.tunnels.list()), us...)
	r.a.tunnels.show(all) // first: the host tells what it finds
	if err := r.rehost(nil, us); err != nil {
		return err
	}
	r.a.quotas.take(all)
	r.a.quotas.again() // before one is used that has spent its quota
	for _, u := range us {
		r.a.tunnels.start(u)
	}
	return nil
}

// renumber gives the terms of a link that is to be started a serial.
func (u *uplink) renumber(serial uint32) {
	for lane := range u.all {
		lane.mu.Lock()
		lane.terms.Serial = serial
		lane.mu.Unlock()
	}
}

// plan is what the host must be in the end.
func (r *relink) plan() netns.Plan {
	next := r.a.plan
	next.Links = make([]netns.LinkRoute, len(r.a.places))
	for _, u := range r.list {
		if route, isNew := r.route[u]; isNew {
			next.Links[u.id] = route
		} else {
			next.Links[u.id] = r.a.plan.Links[u.id]
		}
	}
	return next
}

// rehost has the host no longer lead some uplinks, and lead others.
func (r *relink) rehost(no, yes []*uplink) error {
	next := r.a.plan
	next.Links = slices.Clone(next.Links)
	for _, u := range no {
		next.Links[u.id] = netns.LinkRoute{}
	}
	for _, u := range yes {
		for len(next.Links) <= u.id {
			next.Links = append(next.Links, netns.LinkRoute{})
		}
		next.Links[u.id] = r.route[u]
	}
	return r.a.rehost(next)
}

// leave ends uplinks in order, once another one stands if there is any: nothing new is given
// to them, and what is under way has a moment to arrive. The rest goes by the others.
func (r *relink) leave(why error, us ...*uplink) error {
	if len(us) == 0 {
		return nil
	}
	t := r.a.tunnels
	rest := slices.DeleteFunc(slices.Clone(t.list()), func(u *uplink) bool { return slices.Contains(us, u) })
	stands := func(u *uplink) bool { return u.serves.Load() > 0 && !u.silent.Load() }
	for end := time.Now().Add(standTime); len(rest) > 0 && slices.ContainsFunc(us, stands) && !slices.ContainsFunc(rest, stands) && time.Now().Before(end); {
		if err := r.pause(standLook); err != nil {
			return err
		}
	}
	r.a.quotas.take(rest) // nothing changes their terms any more
	for _, u := range us {
		u.alter(func(t *tunnel.LinkTerms) { t.Leaving, t.Until = true, time.Now().Add(2*leaveTime) })
		for _, lane := range r.ends(u) {
			lane.alter(func(t *tunnel.LinkTerms) { t.Removed, t.Until = true, time.Now().Add(tunnel.Removal) })
		}
	}
	if slices.ContainsFunc(rest, stands) && slices.ContainsFunc(us, stands) {
		if err := r.pause(leaveTime); err != nil {
			return err
		}
	}
	for _, u := range us {
		t.stop(u, why)
		u.log.Info("link left", "reason", why)
	}
	t.show(rest)
	return nil
}

// ends are those of an uplink's lanes that no other one follows: the first stands for all.
func (r *relink) ends(u *uplink) []*uplink {
	for _, s := range r.swaps {
		if s.was == u {
			return u.lanes[min(len(s.now.lanes), len(u.lanes)):]
		}
	}
	return []*uplink{u}
}

// pause waits, unless the agent stops.
func (r *relink) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-r.a.working.Done():
		return errStopping
	}
}

// said is what has become of the links, in words.
func (r *relink) said() string {
	names := func(us []*uplink) (names []string) {
		for _, u := range us {
			names = append(names, u.name)
		}
		return names
	}
	var anew []string
	for _, s := range r.swaps {
		anew = append(anew, s.now.name)
	}
	var parts []string
	for _, p := range []struct {
		names []string
		what  string
	}{{names(r.came), "added"}, {names(r.gone), "removed"}, {anew, "made anew"}, {r.moved, "changed"}} {
		if len(p.names) > 0 {
			parts = append(parts, strings.Join(p.names, " and ")+" "+p.what)
		}
	}
	return strings.Join(parts, ", ")
}
