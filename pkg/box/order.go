package box

import (
	"net/netip"

	"hawser/pkg/config"
	"hawser/pkg/policy"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Kinds converts what the configuration says of the scheduler, whose words
// stand in the same order.
func Kinds(c config.Scheduler) scheduler.Kinds {
	return scheduler.Kinds{Order: scheduler.OrderKind(c.Order), Data: scheduler.DataKind(c.Data), Path: scheduler.PathKind(c.Path)}
}

// Override makes the terms that a cloud gives the flows of an edge: those of the
// first of its own policies that matches, else what the edge asked for.
func Override(list []config.Policy) tunnel.Terms {
	if len(list) == 0 {
		return nil
	}
	table := policy.New(list, policy.Users{})
	return func(asked wire.Terms, client netip.Addr, server netip.AddrPort) wire.Terms {
		p := table.Match(client, server)
		if p.Name == "" {
			return asked
		}
		terms := p.For(client)
		terms.Policy |= ownPolicy
		if terms.Bits != 0 && asked.Bits != 0 {
			terms.Bits = asked.Bits // who is a user is the edge's to say
		}
		return terms
	}
}

// ownPolicy tells the numbers of the cloud's policies from the edge's.
const ownPolicy = 1 << 15
