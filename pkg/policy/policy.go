// Package policy finds, for each new connection, the policy that it falls
// under: who its user is, how urgent it is, what rates it has, which way it
// takes and how its client is accepted.
//
// A Table never changes once made, so any goroutine may use it; a changed
// configuration makes another. The package starts no goroutines.
package policy

import (
	"maps"
	"net/netip"

	"hawser/pkg/config"
	"hawser/pkg/unit"
	"hawser/pkg/wire"
)

// Policy is what a connection's treatment is. It is shared: do not change it.
type Policy struct {
	Name      string           // "" for what no policy of the file matches
	Direct    bool             // goes around the tunnel, by the edge's own routes
	Handshake config.Handshake // when the client is accepted
	Terms     wire.Terms       // its place in the connection order; Bits counts for IPv4
	bits6     uint8            // Terms.Bits of an IPv6 client
}

// For returns the terms of a client's connection under the policy.
func (p *Policy) For(client netip.Addr) wire.Terms {
	terms := p.Terms
	if !client.Unmap().Is4() {
		terms.Bits = p.bits6
	}
	return terms
}

// Table is a list of policies, of which the first that matches counts.
//
// Each dimension (client, destination, port) is cut into the intervals between
// the bounds of all policies, and each interval knows the set of policies that
// it may fall under: a look-up is three binary searches and the first common
// member of three sets (the bit-vector scheme of Lakshman and Stiliadis,
// SIGCOMM'98), whatever the length of the list.
type Table struct {
	policies []Policy          // the last one matches everything
	numbers  map[string]uint16 // of all names that there ever were (Next)
	clients  axis[netip.Addr]
	servers  axis[netip.Addr]
	ports    axis[uint16]
}

// Users says how long the prefix is that makes a user of a client address.
type Users struct {
	Bits4 int // 1 to 32; 0 means 32
	Bits6 int // 1 to 128; 0 means 128
}

// New makes a table of a valid list.
func New(list []config.Policy, users Users) *Table {
	t := &Table{}
	next, _ := t.Next(list, users)
	return next
}

// MaxNumber is the highest number of a policy.
const MaxNumber = 1<<15 - 1

// Next makes the table that takes this one's place while connections go on that have begun
// by this one. A policy is told by its name: one that stays keeps its number, and no other
// one ever gets it, as connections of one number share what a user may have. It returns
// false when the numbers are used up.
func (t *Table) Next(list []config.Policy, users Users) (*Table, bool) {
	users = users.orDefault()
	numbers := maps.Clone(t.numbers)
	if numbers == nil {
		numbers = map[string]uint16{}
	}
	t = &Table{numbers: numbers}
	for i := range list {
		n, known := numbers[list[i].Name]
		if !known {
			n = uint16(len(numbers) + 1)
			numbers[list[i].Name] = n
		}
		if n > MaxNumber {
			return nil, false
		}
		t.policies = append(t.policies, compile(&list[i], int(n), users))
	}
	rest := compile(&config.Policy{Weight: 1}, 0, users)
	t.policies = append(t.policies, rest)
	n := len(t.policies)
	t.clients = addressAxis(n, func(i int) netip.Prefix { return part(list, i).Client })
	t.servers = addressAxis(n, func(i int) netip.Prefix { return part(list, i).Destination })
	t.ports = portAxis(n, func(i int) []config.PortRange { return part(list, i).Ports })
	return t, true
}

// part is policy i, or behind the last one a policy that matches everything.
func part(list []config.Policy, i int) config.Policy {
	if i < len(list) {
		return list[i]
	}
	return config.Policy{}
}

func (u Users) orDefault() Users {
	if u.Bits4 == 0 {
		u.Bits4 = 32
	}
	if u.Bits6 == 0 {
		u.Bits6 = 128
	}
	return u
}

// classes are the classes of the protocol (PROTOCOL.md section 5.2).
var classes = [...]uint8{
	config.ClassLatency: wire.ClassLatency, config.ClassPrivileged: wire.ClassPrivileged,
	config.ClassNormal: wire.ClassNormal, config.ClassBackground: wire.ClassBackground,
}

func compile(c *config.Policy, number int, users Users) Policy {
	p := Policy{
		Name: c.Name, Direct: c.Action == config.ActionDirect, Handshake: c.Handshake,
		Terms: wire.Terms{
			Policy: uint16(number), Class: classes[c.Class], Weight: uint8(c.Weight),
			Guarantee: bytesPerSecond(c.Guarantee), Limit: bytesPerSecond(c.Limit),
		},
	}
	if c.User == config.UserClient {
		p.Terms.Bits, p.bits6 = uint8(users.Bits4), uint8(users.Bits6)
	}
	return p
}

func bytesPerSecond(r unit.BitRate) uint64 { return uint64(r) / 8 }

// Match returns the policy of a connection from client to server. It never
// returns nil.
func (t *Table) Match(client netip.Addr, server netip.AddrPort) *Policy {
	if len(t.policies) == 1 {
		return &t.policies[0]
	}
	a := t.clients.at(client.Unmap().WithZone(""))
	b := t.servers.at(server.Addr().Unmap().WithZone(""))
	c := t.ports.at(server.Port())
	return &t.policies[firstCommon(a, b, c)]
}

// Len returns the number of policies, without the one that matches the rest.
func (t *Table) Len() int { return len(t.policies) - 1 }
