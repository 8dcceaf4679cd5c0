package netns

// egress lets connections of the stack leave with an address of the host.
func (b *builder) egress() error {
	if !b.plan.Masquerade {
		return nil
	}
	for _, fw := range b.families {
		source := b.names.v4().hub.Addr()
		if fw.family == 6 {
			source = b.names.v6().hub.Addr()
		}
		b.addressRule(fw, "-s "+source.String()+" ! -o "+hubHost+" -j MASQUERADE")
	}
	return nil
}

// keepAddresses lets the stack see the clients' own addresses on hosts that
// translate whatever clients send. A host without a nat table gets none.
func (b *builder) keepAddresses() error {
	for _, fw := range b.families {
		used, err := fw.inUse("nat")
		if err != nil {
			return err
		}
		if used {
			b.addressRule(fw, "-o "+hubHost+" -j ACCEPT")
		}
	}
	return nil
}

// addressRule puts one rule before the host's rules about source addresses.
func (b *builder) addressRule(fw *firewall, rule string) {
	chain := b.names.chain("NAT")
	b.add(chainStep(fw, "nat", chain, [][]string{words(rule)}), jumpStep(fw, "nat", "POSTROUTING", b.jump("", chain)))
}
