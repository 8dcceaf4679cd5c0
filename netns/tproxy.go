package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Ways in which an edge takes steered connections.
const (
	// InterceptHub routes them to the user-space stack on the hub.
	InterceptHub = "hub"
	// InterceptTPROXY gives them to transparent sockets of the agent
	// (Plan.Sockets); there is no hub, no namespace and no forwarding.
	InterceptTPROXY = "tproxy"
)

// Loopbacks are the addresses where transparent sockets belong, one per family
// that this host speaks, IPv4 first. Nobody but the host itself can connect to
// them without being steered.
func Loopbacks() []netip.Addr {
	found := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if ipv6Usable() {
		found = append(found, netip.IPv6Loopback())
	}
	return found
}

// preparedSockets checks how connections are taken. Check is asked before there
// are sockets; Install looks for them itself.
func (p Plan) preparedSockets() (Plan, error) {
	switch p.Intercept {
	case "":
		p.Intercept = InterceptHub
	case InterceptHub, InterceptTPROXY:
	default:
		return p, fmt.Errorf("steer.intercept: %q: use %q or %q", p.Intercept, InterceptHub, InterceptTPROXY)
	}
	if p.Intercept == InterceptHub && len(p.Sockets) > 0 {
		return p, errors.New("transparent sockets are for steer.intercept: tproxy: remove them from the hub's plan")
	}
	seen := map[int]bool{}
	for _, s := range p.Sockets {
		if !s.IsValid() || s.Port() == 0 {
			return p, fmt.Errorf("transparent socket %v is not an address and a port", s)
		}
		if seen[familyOf(s.Addr())] {
			return p, fmt.Errorf("transparent socket %v is the second one of IPv%d: give one per family", s, familyOf(s.Addr()))
		}
		seen[familyOf(s.Addr())] = true
	}
	return p, nil
}

// socket is where connections of a family are taken; false if nowhere.
func (p Plan) socket(family int) (netip.AddrPort, bool) {
	for _, s := range p.Sockets {
		if familyOf(s.Addr()) == family {
			return s, true
		}
	}
	return netip.AddrPort{}, false
}

// claim comes first, after what must be undone last: the chain with our tag is the sign by which others tell
// that the ip rules and routes are ours, as hub0 is where there is a hub.
func (b *builder) claim() error {
	if err := checkBridges(b.plan); err != nil {
		return err
	}
	for _, fw := range b.families {
		b.add(step{
			what: fmt.Sprintf("sockets of clients' IPv%d connections", fw.family),
			undo: []entry{{Do: undoTaken, Family: fw.family}}, // after all that leads to them
			do:   func() error { return nil },
		})
	}
	for _, fw := range b.families {
		to, ok := b.plan.socket(fw.family)
		if !ok {
			return fmt.Errorf("no transparent socket takes IPv%d connections", fw.family)
		}
		b.add(chainStep(fw, "mangle", b.names.chain("TAKE"), takeRules(to)))
	}
	return nil
}

// admission lets steered packets, and the answers to them, pass the host's own
// rules, which know the clients' connections as forwarded ones only.
func (b *builder) admission() error {
	for _, fw := range b.families {
		for _, c := range []struct{ base, part, rule string }{
			{"INPUT", "IN", "-m mark --mark " + maskedMark(steerMark) + " -j ACCEPT"},
			{"OUTPUT", "REPLY", "-m conntrack --ctdir REPLY -m connmark --mark " + maskedMark(steerMark) + " -j ACCEPT"},
		} {
			chain := b.names.chain(c.part)
			b.add(chainStep(fw, "filter", chain, [][]string{words(c.rule)}), jumpStep(fw, "filter", c.base, b.jump("", chain)))
		}
	}
	return nil
}

// taking gives the wanted connections to the transparent sockets.
func (b *builder) taking() error {
	for _, fw := range b.families {
		b.add(localRoute(fw.family))
		for _, client := range b.plan.Clients {
			b.add(ruleStep(policy{Family: fw.family, Preference: prefSteer, Table: tableSteer, Mark: steerMark, In: client}))
		}
		if b.plan.Local {
			b.add(ruleStep(policy{Family: fw.family, Preference: prefSteer, Table: tableSteer, Mark: loopMark, In: "lo"}))
		}
	}
	for _, fw := range b.families {
		b.add(chainStep(fw, "mangle", b.names.chain("PRE"), b.clientRules(fw.family, "TAKE")))
		if b.plan.Local {
			b.add(chainStep(fw, "mangle", b.names.chain("MARK"), markRules(loopMark)),
				chainStep(fw, "mangle", b.names.chain("OUT"), b.localRules(fw.family)))
		}
	}
	for _, fw := range b.families {
		b.takeFromClients(fw)
		if b.plan.Local {
			b.takeFromHost(fw)
		}
	}
	return nil
}

func (b *builder) takeFromClients(fw *firewall) {
	for _, client := range b.plan.Clients {
		b.add(jumpStep(fw, "mangle", "PREROUTING", b.jump("-i "+client+" -p tcp", b.names.chain("PRE"))),
			jumpStep(fw, "mangle", "PREROUTING", b.jump("-i "+client+" -p "+icmp(fw.family), b.names.chain("TAKE"))))
	}
}

// takeFromHost steers what the host sends: TPROXY works on what arrives only,
// so the marked packets are routed to lo, where they arrive.
func (b *builder) takeFromHost(fw *firewall) {
	b.add(jumpStep(fw, "mangle", "PREROUTING", b.jump("-i lo -p tcp -m mark --mark "+maskedMark(loopMark), b.names.chain("TAKE"))),
		jumpStep(fw, "mangle", "OUTPUT", b.jump("-p tcp", b.names.chain("OUT"))))
}

// takeRules are markRules for sockets: the mark routes to them, and TPROXY
// finds the one that a packet is for, the listener when there is none yet.
// A packet of a steered connection that no socket knows any more gets a reset
// from the listener. Untracked packets go by the sockets that are there.
//
// Where the connection's own socket is there the mark is enough: without a socket
// from TPROXY the kernel finds it early, with the route that the socket remembers.
func takeRules(to netip.AddrPort) [][]string {
	m := maskedMark(steerMark)
	take := fmt.Sprintf(" -j TPROXY --on-ip %s --on-port %d --tproxy-mark %s", to.Addr(), to.Port(), m)
	return [][]string{
		words("-p tcp ! --syn -m connmark --mark " + m + " -m socket --transparent -j MARK --set-xmark " + m),
		words("-p tcp ! --syn -m mark --mark " + m + " -j ACCEPT"), // as TPROXY does
		words("-p tcp --syn -j CONNMARK --set-xmark " + m),
		words("-p tcp -m connmark --mark " + m + take),
		words("-p tcp --syn -m conntrack --ctstate UNTRACKED" + take),
		words("-p tcp -m conntrack --ctstate UNTRACKED -m socket --transparent -j MARK --set-xmark " + m),
		words("-m connmark --mark " + m + " -j MARK --set-xmark " + m),
	}
}

// localRoute is the only route of the steering table: every address is ours.
func localRoute(family int) step {
	return step{
		what: fmt.Sprintf("IPv%d route to the host itself in table %d", family, tableSteer),
		undo: []entry{{Do: undoRoutes, Family: family, Number: tableSteer}},
		do:   func() error { return addLocalRoute(family) },
	}
}

func addLocalRoute(family int) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if lo.Attrs().RawFlags&unix.IFF_UP == 0 {
		return errors.New("interface lo is down: ip link set lo up")
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == 6 {
		everywhere = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: prefixNet(everywhere), Table: tableSteer,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: routeTag,
	})
}

// otherOwner returns a steering chain of another namespace's hawser, "" when
// there is none. Where it is, the tagged ip rules and routes are that one's.
func otherOwner(u *undoer, n names) (string, error) {
	for _, family := range []int{4, 6} {
		walls, err := u.firewalls(family)
		if err != nil {
			return "", err
		}
		for _, fw := range walls {
			if chain, err := fw.foreignChain("mangle", n); err != nil || chain != "" {
				return chain, err
			}
		}
	}
	return "", nil
}

// checkAlone refuses a place where another hawser steers.
func checkAlone(u *undoer, n names) error {
	chain, err := otherOwner(u, n)
	if err == nil && chain != "" {
		err = fmt.Errorf("chain %s of table mangle does not belong to namespace %s: stop the hawser that owns it, or run its cleanup", chain, n.space)
	}
	return err
}
