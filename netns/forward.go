package netns

import (
	"fmt"
	"os"
	"slices"
)

// forwarding lets packets pass between hub0 and the other interfaces. The drop
// rules are in place before the first interface starts to forward.
func (b *builder) forwarding() error {
	outer, err := b.outerInterfaces()
	if err != nil {
		return err
	}
	var switches []step
	for _, fw := range b.families {
		s, err := b.switches(fw.family, outer)
		if err != nil {
			return err
		}
		switches = append(switches, s...)
	}
	for _, fw := range b.families {
		chain := b.names.chain("FWD")
		b.add(chainStep(fw, "filter", chain, b.forwardRules(fw.family)),
			jumpStep(fw, "filter", "FORWARD", b.jump("", chain)))
	}
	b.add(switches...)
	return nil
}

// jump is the rule in a chain of the host that leads to one of ours. Its words
// are in the order in which iptables prints them.
func (b *builder) jump(match, chain string) []string {
	return append(words(match), "-m", "comment", "--comment", b.names.comment(), "-j", chain)
}

// forwards tells whether packets to the hub arrive by an interface: the clients' at the
// edge; any where the stack connects to servers, as they answer by whatever way they are
// reached.
func (p Plan) forwards(device string) bool {
	switch {
	case device == "lo" || device == hubHost || p.Intercept == InterceptTPROXY:
		return false
	case p.Role == RoleCloud || p.Direct:
		return true
	}
	return slices.Contains(p.Clients, device)
}

// outerInterfaces are those that are there.
func (b *builder) outerInterfaces() ([]string, error) {
	links, err := listLinks()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var found []string
	for _, l := range links {
		if b.plan.forwards(l.Attrs().Name) {
			found = append(found, l.Attrs().Name)
		}
	}
	slices.Sort(found)
	return found, nil
}

func (b *builder) switches(family int, outer []string) ([]step, error) {
	if family == 4 {
		return b.switchEach(4, outer, "net/ipv4/ip_forward")
	}
	all := confPath(6, "all", "forwarding")
	if on, err := readSysctl(all); err != nil || on == "1" {
		return nil, err // IPv6 looks at this one only
	}
	if sysctlExists(confPath(6, "all", "force_forwarding")) && !b.host.variant.noForce {
		return b.switchEach(6, outer, confPath(6, "all", "force_forwarding"))
	}
	b.guarded[6] = []string{everything}
	return switchAll6()
}

// switchEach turns forwarding on for packets that arrive by the interfaces.
// Somebody who turns it on for all interfaces later keeps it (guard). Where it is on for all
// already, one for which it is off is an exception that the host's owner has made.
func (b *builder) switchEach(family int, outer []string, guard string) ([]step, error) {
	guardWas, err := readSysctl(guard)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, device := range outer {
		s, needed, err := sysctlStep(forwardPath(family, device), "1")
		if err != nil {
			return nil, err
		}
		if needed {
			s.undo[0].Guard, s.undo[0].GuardWas = guard, guardWas
			steps = append(steps, s)
			b.guarded[family] = append(b.guarded[family], device)
			if delete(b.host.excepted, s.undo[0].Path); guardWas == "1" {
				b.host.excepted[s.undo[0].Path] = true
			}
		}
	}
	return steps, nil
}

// switchAll6 makes the host an IPv6 router, for kernels (before 6.17) that
// cannot forward on single interfaces. A router ignores router advertisements
// unless accept_ra is 2, and forgets what it learned from them: hence the order.
func switchAll6() ([]step, error) {
	devices, err := os.ReadDir(sysctlFile("net/ipv6/conf"))
	if err != nil {
		return nil, err
	}
	var steps []step
	restore := []entry{}
	for _, d := range devices {
		if d.Name() == "all" {
			continue
		}
		accept := confPath(6, d.Name(), "accept_ra")
		if v, err := readSysctl(accept); err == nil && v == "1" {
			s, _, err := sysctlStep(accept, "2")
			if err != nil {
				return nil, err
			}
			steps = append(steps, s)
		}
		// Writing all writes every interface, so each gets its own value back.
		path := confPath(6, d.Name(), "forwarding")
		if v, err := readSysctl(path); err == nil {
			restore = append(restore, entry{Do: undoSysctl, Path: path, Was: v, Set: "1", Force: true})
		}
	}
	s, _, err := sysctlStep(confPath(6, "all", "forwarding"), "1")
	s.undo = append(restore, s.undo...) // undone in reverse: all first
	return append(steps, s), err
}

// forwardRules accept what belongs to the hub and keep interfaces that did not
// forward before from forwarding anything else.
func (b *builder) forwardRules(family int) [][]string {
	var rules [][]string
	if b.plan.Direct {
		rules = b.directRules(family)
	}
	rules = append(rules, words("-i "+hubHost+" -j ACCEPT"))
	if b.plan.Role == RoleEdge {
		rules = append(rules, words("-o "+hubHost+" -m mark --mark "+maskedMark(steerMark)+" -j ACCEPT"))
	} else {
		rules = append(rules, words("-o "+hubHost+" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"))
	}
	rules = append(rules, words("-o "+hubHost+" -j DROP"))
	if len(b.guarded[family]) > 0 && filtersBridged(family) {
		rules = append(rules, words(passBridged))
	}
	for _, device := range b.guarded[family] {
		if device == everything {
			rules = append(rules, words("-j DROP"))
			continue
		}
		rules = append(rules, words("-i "+device+" -j DROP"))
	}
	return rules
}

// passBridged leaves frames that a bridge passes from port to port to the host's own rules.
// Where br_netfilter has iptables see them, they seem to be forwarded from the bridge. Its
// match has the kernel load br_netfilter, so it is not used where that is not at work.
const passBridged = "-m physdev --physdev-is-bridged -j RETURN"

// filtersBridged tells whether bridged frames pass through iptables.
func filtersBridged(family int) bool {
	on, err := readSysctl("net/bridge/bridge-nf-call-" + commandOf(family))
	return err == nil && on == "1"
}

// directRules are for connections that the edge's stack makes. By the uplinks
// of links they may leave; whether by other interfaces, such as one where a
// management network is, the host's own rules say.
func (b *builder) directRules(family int) [][]string {
	hub := b.names.hub(family).String()
	rules := [][]string{words("-d " + hub + " -o " + hubHost + " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")}
	seen := map[string]bool{}
	for _, l := range b.plan.Links {
		if !l.none() && !seen[l.Interface] {
			seen[l.Interface] = true
			rules = append(rules, words("-s "+hub+" -i "+hubHost+" -o "+l.Interface+" -j ACCEPT"))
		}
	}
	return append(rules, words("-s "+hub+" -i "+hubHost+" -j RETURN"))
}

func maskedMark(mark uint32) string {
	return fmt.Sprintf("%#x/%#x", mark, uint32(MarkMask))
}
