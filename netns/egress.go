package netns

import "slices"

// egress lets connections of the stack leave with an address of the host.
func (b *builder) egress() error {
	if !b.plan.Masquerade {
		return nil
	}
	for _, fw := range b.families {
		b.addressRules(fw, b.masquerade(fw.family))
	}
	return nil
}

// masquerade is the rule that gives the stack's connections the address of the
// host.
func (b *builder) masquerade(family int) []string {
	return words("-s " + b.names.hub(family).String() + " ! -o " + hubHost + " -j MASQUERADE")
}

// keepAddresses lets the stack see the clients' own addresses on hosts that
// translate whatever clients send, and gives the stack's own connections the
// address of the host. A host without a nat table gets one only for the latter: then it
// may come to translate later on as well.
func (b *builder) keepAddresses() error {
	for _, fw := range b.families {
		if !b.plan.Direct && !slices.Contains(b.used[fw.family], "nat") {
			continue
		}
		rules := [][]string{words("-o " + hubHost + " -j ACCEPT")}
		if b.plan.Direct {
			rules = append(rules, b.masquerade(fw.family))
		}
		b.addressRules(fw, rules...)
	}
	return nil
}

// addressRules puts rules before the host's rules about source addresses.
func (b *builder) addressRules(fw *firewall, rules ...[]string) {
	chain := b.names.chain("NAT")
	b.add(chainStep(fw, "nat", chain, rules), jumpStep(fw, "nat", "POSTROUTING", b.jump("", chain)))
}
