package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// maxMultiport is how many ports one multiport match can hold; a range counts
// twice.
const maxMultiport = 15

// steering marks the wanted connections and routes the mark to the hub.
func (b *builder) steering() error {
	for _, fw := range b.families {
		b.add(b.hubRoute(fw.family))
		for _, in := range b.arrivals() {
			b.add(ruleStep(policy{Family: fw.family, Preference: prefSteer, Table: tableSteer, Mark: steerMark, In: in}))
		}
		b.add(ruleStep(policy{Family: fw.family, Preference: prefSteer, Table: tableSteer, Mark: loopMark, In: "lo"}))
	}
	for _, fw := range b.families {
		b.add(chainStep(fw, "mangle", b.names.chain("MARK"), markRules(steerMark)),
			chainStep(fw, "mangle", b.names.chain("PRE"), b.clientRules(fw.family, "MARK")),
			chainStep(fw, "mangle", b.names.chain("ERR"), errorRules()))
		if b.plan.Local {
			b.add(chainStep(fw, "mangle", b.names.chain("OUT"), b.localRules(fw.family)))
		}
	}
	if s, ok := liberalStep(); ok {
		b.add(s)
	}
	for _, fw := range b.families {
		for _, client := range b.plan.Clients {
			b.add(jumpStep(fw, "mangle", "PREROUTING", b.jump("-i "+client+" -p tcp", b.names.chain("PRE"))),
				jumpStep(fw, "mangle", "PREROUTING", b.jump("-i "+client+" -p "+icmp(fw.family), b.names.chain("MARK"))))
		}
		b.add(jumpStep(fw, "mangle", "OUTPUT", b.jump("-p "+icmp(fw.family), b.names.chain("ERR"))))
		if b.plan.Local {
			b.add(jumpStep(fw, "mangle", "OUTPUT", b.jump("-p tcp", b.names.chain("OUT"))))
		}
	}
	return nil
}

// liberal is whether connection tracking lets segments beyond the window pass.
const liberal = "net/netfilter/nf_conntrack_tcp_be_liberal"

// liberalStep keeps segments that a client sends beyond its window with their
// connection. Where the host tracks strictly they count as invalid and lose the
// connection's mark: they would leave for the server itself, around the stack,
// which answers them otherwise; and the server's reset would end the connection.
// It comes after a rule that has the kernel load connection tracking.
func liberalStep() (step, bool) {
	was, err := readSysctl(liberal)
	switch {
	case err != nil:
		was = "0" // the module is not there yet: its default
	case was != "0":
		return step{}, false
	}
	return step{
		what: "sysctl " + liberal + " = 1",
		undo: []entry{{Do: undoSysctl, Path: liberal, Was: was, Set: "1"}},
		do: func() error {
			if err := writeSysctl(liberal, "1"); !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil // a kernel without connection tracking judges nothing
		},
	}, true
}

// icmp is the protocol's name as iptables prints it.
func icmp(family int) string {
	if family == 6 {
		return "ipv6-icmp"
	}
	return "icmp"
}

// arrivals are the input interfaces of packets that may carry the steer mark;
// lo stands for the host itself. Rules name them so that the reverse path check
// of such a packet (with src_valid_mark) does not follow the mark to the hub.
func (b *builder) arrivals() []string {
	in := append([]string(nil), b.plan.Clients...)
	if b.plan.Local {
		in = append(in, "lo")
	}
	return in
}

// hubRoute is the only route of the steering table.
func (b *builder) hubRoute(family int) step {
	gateway := b.names.v4().hub.Addr()
	if family == 6 {
		gateway = b.names.v6().hub.Addr()
	}
	return step{
		what: fmt.Sprintf("IPv%d route to %s in table %d", family, hubHost, tableSteer),
		undo: []entry{{Do: undoRoutes, Family: family, Number: tableSteer}},
		do: func() error {
			hub, err := netlink.LinkByName(hubHost)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(defaultRoute(hub, gateway, tableSteer))
		},
	}
}

func defaultRoute(l netlink.Link, gateway netip.Addr, table int) *netlink.Route {
	return &netlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice(), Table: table, Protocol: routeTag}
}

func ruleStep(p policy) step {
	return step{
		what: p.String(),
		undo: []entry{{Do: undoRule, Policy: &p}},
		do:   func() error { return netlink.RuleAdd(p.rule()) },
	}
}

// markRules decide packet by packet for connections that the other chains have
// found wanted: the first SYN writes the decision to the connection, which
// later packets follow. Untracked packets have only themselves to go by.
// ICMP errors about a steered connection carry its connection mark, too, and go
// to the stack, which is the one they speak to. packet is the mark that routes.
//
// A SYN that was answered before it came here (Steering) is not the first
// packet of its connection for connection tracking: the ACK is, and has a mark.
func markRules(packet uint32) [][]string {
	m, p := maskedMark(steerMark), maskedMark(packet)
	return [][]string{
		words("-p tcp --syn -j CONNMARK --set-xmark " + m),
		words("-p tcp -m conntrack --ctstate NEW -m mark --mark " + m + " -j CONNMARK --set-xmark " + m),
		words("-p tcp -m conntrack --ctstate UNTRACKED -j MARK --set-xmark " + p),
		words("-m connmark --mark " + m + " -j MARK --set-xmark " + p),
	}
}

// errorRules are for the ICMP errors that the host itself makes. Those about what the
// stack has sent, such as that it is too long for the interface where the client is, are
// for the server by their address: it knows nothing of it. They go the way of the
// client's packets (ORIGINAL), those about what the client has sent the other way.
func errorRules() [][]string {
	return [][]string{words("-m conntrack --ctdir ORIGINAL -m connmark --mark " + maskedMark(steerMark) + " -j MARK --set-xmark " + maskedMark(loopMark))}
}

// clientRules are for TCP that arrives from clients: what is wanted goes on to
// another chain of ours. That was asked when the connection began: its later packets
// go there at once.
func (b *builder) clientRules(family int, chain string) [][]string {
	rules := [][]string{words("-p tcp ! --syn -m connmark --mark " + maskedMark(steerMark) + " -g " + b.names.chain(chain))}
	rules = append(rules, b.exemptions(family)...)
	return append(rules, b.wanted(chain)...)
}

// localRules are for TCP that the host sends. Its answers to clients leave by the same
// chain and are not steered, though their connection may have been found wanted: by TPROXY
// it is a steered one, and another may have been led to the host by a rule that came later
// (REDIRECT, DNAT). Untracked packets cannot be told from answers of the host's own servers,
// so they are never steered.
func (b *builder) localRules(family int) [][]string {
	rules := [][]string{
		words("-m conntrack --ctdir REPLY -j RETURN"),
		words("-o lo -j RETURN"),
		words("-m conntrack --ctstate UNTRACKED -j RETURN"),
	}
	seen := map[netip.Addr]bool{}
	for _, l := range b.plan.Links {
		for _, a := range l.clouds() {
			if familyOf(a) == family && !seen[a] {
				seen[a] = true
				rules = append(rules, words("-d "+a.WithZone("").String()+" -j RETURN"))
			}
		}
	}
	rules = append(rules, b.exemptions(family)...)
	return append(rules, b.wanted("MARK")...)
}

// exemptions return for what is never steered.
func (b *builder) exemptions(family int) [][]string {
	linkLocal := "169.254.0.0/16"
	kinds := []string{"LOCAL", "MULTICAST", "BROADCAST"}
	if family == 6 {
		linkLocal, kinds = "fe80::/10", kinds[:2]
	}
	rules := [][]string{words("-m mark --mark " + maskedMark(BypassMark) + " -j RETURN")}
	for _, kind := range kinds {
		rules = append(rules, words("-m addrtype --dst-type "+kind+" -j RETURN"))
	}
	rules = append(rules, words("-d "+linkLocal+" -j RETURN"))
	for _, prefix := range b.plan.Exclude {
		if familyOf(prefix.Addr()) == family {
			rules = append(rules, words("-d "+prefix.String()+" -j RETURN"))
		}
	}
	return rules
}

// wanted sends the wanted ports to a chain of ours.
func (b *builder) wanted(chain string) [][]string {
	target := " -j " + b.names.chain(chain)
	if len(b.plan.Ports) == 0 {
		return [][]string{words("-p tcp" + target)}
	}
	var rules [][]string
	for _, group := range portGroups(b.plan.Ports) {
		rules = append(rules, words("-p tcp -m multiport --dports "+group+target))
	}
	return rules
}

// portGroups writes ranges as arguments of multiport.
func portGroups(ports []PortRange) []string {
	var groups []string
	var group []string
	room := maxMultiport
	for _, r := range ports {
		text, need := fmt.Sprint(r.First), 1
		if r.Last != r.First {
			text, need = fmt.Sprintf("%d:%d", r.First, r.Last), 2
		}
		if need > room {
			groups, group, room = append(groups, strings.Join(group, ",")), nil, maxMultiport
		}
		group, room = append(group, text), room-need
	}
	if len(group) > 0 {
		groups = append(groups, strings.Join(group, ","))
	}
	return groups
}

func familyOf(a netip.Addr) int {
	if a.Is4() || a.Is4In6() {
		return 4
	}
	return 6
}
