package netns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Others remove what is ours, and do not know of it: who restarts systemd-networkd (or
// has netplan do so) loses all policy rules that are not in its files, who reloads
// nftables or restores a saved set of iptables rules all others; who switches IPv6 off,
// as VPNs do, or an interface, takes addresses and routes. Without them clients'
// connections go around the tunnel, or nowhere, and links lose their uplinks.
const (
	keepEvery = time.Second
	keepShare = 50              // of the time, one in so many may go into listing tables that change, or
	keepRare  = 500             // where it is not known whether they do, but
	keepMost  = 5 * time.Minute // is the longest pause: a big set of rules takes seconds
	keepDoubt = 10 * time.Second
	keepAgain = time.Minute // from one line in the log to the next; the longest pause after a failure
)

// keeper puts back what others have removed from the host. keep's goroutine owns it.
type keeper struct {
	host       *Host
	generation uint32                  // of nf_tables when the tables were listed last; 0: not known
	next       time.Time               // when they may be listed again
	missed     []int                   // routing tables that had no route of ours at the last look
	gone       map[string]bool         // interfaces of clients that were not there at the last look
	forwards   [2]bool                 // the host forwarded by itself at the last look, IPv4 and IPv6
	mended     time.Time               // when chains were put back last
	fights     int64                   // as many times as that took is the pause until the next look
	fails      int                     // times in a row that something could not be put back
	refusing   map[baseChain]time.Time // others' that drop what clients send: since when, 0 once logged
	doubtful   bool                    // one of these is not logged yet
	before     map[string]bool         // policy rules that come before ours and are logged
	unsaid     []string                // what was put back and not logged yet
	said       time.Time               // when something was put back and logged
	failed     time.Time               // when that has failed and was logged
}

// keep works until ctx ends.
func (h *Host) keep(ctx context.Context) {
	k := keeper{host: h}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		k.look(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look puts back what is missing, and says so.
func (k *keeper) look(now time.Time) {
	var done []string
	err := k.host.atHome(func() (err error) {
		k.clients()
		done, err = k.hub()
		more, failed := k.rules()
		done = append(done, more...)
		err = errors.Join(err, failed, k.stayAhead(), k.host.unguard(), k.host.spareBridged(), k.forwarding())
		more, failed = k.sysctls()
		done = append(done, more...)
		return errors.Join(err, failed)
	})
	if !now.Before(k.next) {
		begun := time.Now()
		more, failed := k.chains(now)
		done, err = append(done, more...), errors.Join(err, failed)
		k.next = now.Add(k.pause(now, time.Since(begun), len(more) > 0))
	}
	if errors.Is(err, errHostClosed) {
		return
	}
	k.say(now, done)
	if k.fails++; err == nil {
		k.fails = 0
		return
	}
	// Often the other program is still at it, and is done a moment later.
	k.next = now.Add(min(keepEvery<<min(k.fails-1, 10), keepAgain))
	if now.Sub(k.failed) >= keepAgain {
		k.failed = now
		k.host.log.Error("what another program has removed from the host cannot be put back", "error", oneLine(err))
	}
}

// pause is how long the chains are not looked at, after a look that took so long. Who
// removes chains often does it several times on end, as firewalld does while it reloads,
// and clients' connections stand still until they are back: the next look comes soon,
// unless this goes on, as where two programs fight.
func (k *keeper) pause(now time.Time, took time.Duration, mended bool) time.Duration {
	share := int64(keepShare)
	if k.generation == 0 {
		share = keepRare
	}
	switch quiet := now.Sub(k.mended) >= keepAgain; {
	case mended && quiet:
		k.fights = 1
	case mended:
		k.fights = min(2*k.fights, share)
	}
	if mended {
		k.mended, share = now, k.fights
	}
	return min(time.Duration(share)*took, keepMost)
}

// say logs what was put back, all of it in the end, but one line a minute.
func (k *keeper) say(now time.Time, done []string) {
	for _, what := range done {
		if !slices.Contains(k.unsaid, what) {
			k.unsaid = append(k.unsaid, what)
		}
	}
	if len(k.unsaid) == 0 || now.Sub(k.said) < keepAgain {
		return
	}
	k.host.log.Warn("put back what another program had removed from the host", "what", strings.Join(k.unsaid, "; "))
	k.said, k.unsaid = now, nil
}

// clients says which of the clients' interfaces have gone, and which are back: what comes in
// by another name goes around the tunnel, and nothing else tells why.
func (k *keeper) clients() {
	for _, name := range k.host.plan.Clients {
		_, err := namedLink(name)
		gone := errors.As(err, &netlink.LinkNotFoundError{}) || errors.As(err, new(otherName))
		if gone == k.gone[name] || err != nil && !gone {
			continue
		}
		if k.gone == nil {
			k.gone = map[string]bool{}
		}
		if k.gone[name] = gone; gone {
			k.host.log.Warn("an interface of steer.interfaces is gone: clients are not steered there until it is back", "interface", name)
		} else {
			k.host.log.Info("an interface of steer.interfaces is back", "interface", name)
		}
	}
}

// rules sees to the policy rules and routes. The caller holds the host's mutex.
func (k *keeper) rules() (done []string, err error) {
	there, err := taggedRules()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range k.host.journal.entries {
		same := func(o entry) bool { return *o.Policy == *e.Policy }
		if e.Do != undoRule || e.Policy == nil || slices.ContainsFunc(there, same) {
			continue
		}
		if err := netlink.RuleAdd(e.Policy.rule()); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("%v: %w", e.Policy, err))
			continue
		}
		done = append(done, e.Policy.String())
	}
	was := k.missed
	k.missed = nil
	for _, s := range k.host.kept {
		e := s.undo[0]
		if e.Do != undoRoutes || hasRoute(e) || !k.host.routable(e) {
			continue
		}
		// An uplink that has just come up gets its route from Watch.
		if k.missed = append(k.missed, e.Number); !slices.Contains(was, e.Number) {
			continue
		}
		switch err := s.do(); {
		case err == nil:
			done = append(done, s.what)
		case e.Number == tableSteer: // else it lacks an address yet: an event follows
			errs = append(errs, fmt.Errorf("%s: %w", s.what, err))
		}
	}
	return done, errors.Join(errs...)
}

// forwarding goes on where somebody has told the whole host to end it, as a VPN may that
// ends: that is written to every interface, hub0 and the clients' among them. The caller
// holds the host's mutex.
func (k *keeper) forwarding() error {
	var errs []error
	switches := []string{confPath(4, hubHost, "forwarding"), confPath(6, hubHost, "force_forwarding")}
	for i, family := range []int{4, 6} {
		forwards, err := forwardsAll(family)
		if err != nil { // for want of descriptors: that is no end
			errs = append(errs, err)
			continue
		}
		was := k.forwards[i]
		if k.forwards[i] = forwards; !was || forwards {
			continue
		}
		names, err := k.host.settled()
		errs = append(errs, err)
		for _, name := range names {
			if k.host.plan.forwards(name) {
				errs = append(errs, k.host.forwardAgain(name))
			}
		}
		if sysctlExists(switches[i]) {
			errs = append(errs, writeSysctl(switches[i], "1"))
		}
		k.host.log.Info("the host has ceased to forward by itself: it goes on for hawser's connections alone", "family", fmt.Sprintf("IPv%d", family))
	}
	return errors.Join(errs...)
}

// hasRoute tells whether a table of ours has a route; also where that cannot be said.
func hasRoute(e entry) bool {
	filter := &netlink.Route{Table: e.Number, Protocol: routeTag}
	routes, err := listRoutes(netlinkFamily(e.Family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	return err != nil || len(routes) > 0
}

// routable tells whether a table of ours should have a route now: an uplink's has none
// while that is down, no IPv6 one has where that is switched off.
func (h *Host) routable(e entry) bool {
	if e.Number == tableSteer {
		device := hubHost
		if h.plan.Intercept == InterceptTPROXY {
			device = "lo"
		}
		return e.Family == 4 || !ipv6Off(device)
	}
	uplink, there := h.link(e.Number - uplinkTable(0))
	if !there {
		return false
	}
	l, err := netlink.LinkByName(uplink.Interface)
	return err == nil && l.Attrs().RawFlags&unix.IFF_UP != 0
}

// chains sees to the chains and the rules that lead to them, unless nothing has changed.
// The host's mutex is held only while something is put back.
func (k *keeper) chains(now time.Time) (done []string, err error) {
	h := k.host
	err = inside(h.home, func() error {
		generation := rulesetGeneration(h.walls)
		if generation != 0 && generation == k.generation && !k.doubtful {
			return nil
		}
		k.refusals(now)
		var lost []step
		kept := h.keptNow()
		for _, fw := range h.walls {
			missing, err := fw.missing(kept)
			if err != nil {
				return err
			}
			lost = append(lost, missing...)
		}
		if k.generation = generation; len(lost) == 0 {
			return nil
		}
		done, err = h.putBack(lost)
		return err
	})
	return done, err
}

// refusals says which chains of others drop what hawser's own accept, once for each that
// has begun to: clients then have no connections, and nothing else tells why. Not of those
// that go soon, such as firewalld's while it reloads. With TPROXY nothing shows whether
// somebody has seen to it; check names them.
func (k *keeper) refusals(now time.Time) {
	hook, device, what := refusal(k.host.planNow())
	if device == "" {
		return
	}
	found := refusers(k.host.walls, hook, device)
	was := k.refusing
	k.refusing, k.doubtful = map[baseChain]time.Time{}, false
	for _, chain := range found {
		since, known := was[chain]
		switch {
		case !known:
			since = now
		case !since.IsZero() && now.Sub(since) >= keepDoubt:
			k.host.log.Warn("a firewall of this host drops what its rules do not accept, and none names "+device+
				": see that they accept what "+what, "chain", chain.String())
			since = time.Time{}
		}
		k.refusing[chain] = since
		k.doubtful = k.doubtful || !since.IsZero()
	}
}

// putBack takes steps again, in order.
func (h *Host) putBack(lost []step) (done []string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errHostClosed
	}
	for _, s := range lost {
		i := h.keptAt(s.undo)
		if i < 0 {
			continue // Change was quicker
		}
		if err := h.kept[i].do(); err != nil {
			return done, fmt.Errorf("%s: %w", s.what, err)
		}
		done = append(done, s.what)
	}
	errs := []error{}
	for _, fw := range h.walls {
		for _, device := range h.guarded[fw.family] { // those that came later
			if device != everything {
				errs = append(errs, h.guard(fw, device))
			}
		}
	}
	if h.paused {
		errs = append(errs, h.pause(true))
	}
	return done, errors.Join(errs...)
}

// missing are the steps whose chains, or rules that lead to them, are not there. What a
// listing seems to lack is asked for by name: versions differ in how they print.
func (f *firewall) missing(steps []step) (lost []step, err error) {
	var mine []step
	for _, s := range steps {
		if e := s.undo[0]; e.Family == f.family && (e.Do == undoChain || e.Do == undoJump) {
			mine = append(mine, s)
		}
	}
	if f.nft && standing(f.family, mine) {
		return nil, nil
	}
	save, err := f.save()
	if err != nil {
		return nil, err
	}
	there := countRules(save)
	for _, s := range mine {
		e, gone := s.undo[0], false
		switch {
		case e.Do == undoChain && there[e.Table+" "+e.Chain] < s.rules:
			gone, err = f.emptied(e, s.rules)
		case e.Do == undoJump && there[e.Table+" "+e.Chain+" "+strings.Join(e.Rule, " ")] == 0:
			gone, err = f.unled(e)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, oneLine(err))
		}
		if gone {
			lost = append(lost, s)
		}
	}
	return lost, nil
}

// emptied tells whether a chain of ours has fewer rules than it had, or is gone.
func (f *firewall) emptied(e entry, rules int) (bool, error) {
	lines, err := f.List(e.Table, e.Chain)
	if absent := new(iptables.Error); errors.As(err, &absent) && absent.ExitStatus() == 1 {
		return true, nil // versions have many words for it
	}
	return len(lines) <= rules, err // the first line is the chain itself
}

// unled tells whether the rule that leads to a chain of ours is gone.
func (f *firewall) unled(e entry) (bool, error) {
	chain, err := f.ChainExists(e.Table, e.Rule[len(e.Rule)-1])
	if err != nil || !chain {
		return !chain, err
	}
	there, err := f.Exists(e.Table, e.Chain, e.Rule...)
	return !there, err
}

// countRules counts the rules of each chain ("mangle PREROUTING"), and each rule
// ("mangle PREROUTING -p tcp -j ..."), of what iptables-save prints.
func countRules(save string) map[string]int {
	found, table := map[string]int{}, ""
	for line := range strings.Lines(save) {
		line = strings.TrimSpace(strings.ReplaceAll(line, `"`, ""))
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
		}
		if rule, ok := strings.CutPrefix(line, "-A "); ok {
			chain, _, _ := strings.Cut(rule, " ")
			found[table+" "+chain]++
			found[table+" "+rule]++
		}
	}
	return found
}
