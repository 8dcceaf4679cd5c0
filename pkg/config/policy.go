package config

import (
	"fmt"
	"net/netip"

	"hawser/pkg/unit"
)

// Policy says how connections are treated. Of a list the first that matches
// counts; what none matches is treated as the zero Policy with weight 1 says.
type Policy struct {
	Name        string       // unique within its list
	Client      netip.Prefix // invalid: any client
	Destination netip.Prefix // invalid: any server
	Ports       []PortRange  // of the server; empty: any
	Class       Class        // zero means ClassNormal
	Weight      int          // 1 to MaxWeight: share among the users of a class
	User        UserScope    // zero means UserClient
	Guarantee   unit.BitRate // each user's, per direction, as privileged; 0: none
	Limit       unit.BitRate // each user's, per direction; 0: none
	Action      Action       // zero means ActionTunnel; edge only
	Handshake   Handshake    // zero means as Edge.Handshake; edge only
}

// Limits of policies.
const (
	MaxPolicies = 1024
	MaxWeight   = 64
	MinLimit    = 64 * unit.Kbit
)

// Class is how urgent connections are.
type Class uint8

// Classes of connections; a higher one is served first, a lower one keeps a
// floor.
const (
	ClassNormal Class = iota
	ClassLatency
	ClassPrivileged
	ClassBackground
)

// String returns the word that stands in the file.
func (c Class) String() string { return word(classes[:], uint8(c)) }

// UserScope says who shares fairly, and whose the rates of a policy are.
type UserScope uint8

// Scopes of a user.
const (
	UserClient UserScope = iota // each client address, or network of Scheduler.User4 and User6 bits
	UserAll                     // all that the policy matches together
)

// String returns the word that stands in the file.
func (u UserScope) String() string { return word(userScopes[:], uint8(u)) }

// Action says which way connections take.
type Action uint8

// Actions of a policy.
const (
	ActionTunnel Action = iota
	ActionDirect        // by the edge's own routes, around the tunnel
)

// String returns the word that stands in the file.
func (a Action) String() string { return word(actions[:], uint8(a)) }

// Handshake says when a client's connection is accepted.
type Handshake uint8

// Ways to accept a client.
const (
	HandshakeAuto       Handshake = iota // of a policy: as Edge.Handshake; there: fast or zero-window, by load
	HandshakeZeroWindow                  // accepted at once, with a window only when the server has accepted
	HandshakeFast                        // accepted at once
	HandshakeStrict                      // accepted when the server has accepted
)

// String returns the word that stands in the file.
func (h Handshake) String() string { return word(handshakes[:], uint8(h)) }

// The words of each enumeration, in the order of its constants.
var (
	classes    = [...]string{"normal", "latency", "privileged", "background"}
	userScopes = [...]string{"client", "all"}
	actions    = [...]string{"tunnel", "direct"}
	handshakes = [...]string{"auto", "zero-window", "fast", "strict"}
)

// schema are the keys of a policy at the edge.
func (p *Policy) schema() setter { return object(p.fields(true)) }

// override are the keys of a policy at the cloud, which accepts no clients.
func (p *Policy) override() setter { return object(p.fields(false)) }

func (p *Policy) fields(edge bool) fields {
	f := fields{
		"name":        parsed(&p.Name, ParseName),
		"client":      parsed(&p.Client, parsePrefix),
		"destination": parsed(&p.Destination, parsePrefix),
		"ports":       sequence(&p.Ports, one(parsePorts)),
		"class":       enum(&p.Class, classes[:]),
		"weight":      parsed(&p.Weight, ranged(1, MaxWeight, "")),
		"user":        enum(&p.User, userScopes[:]),
		"guarantee":   parsed(&p.Guarantee, parseRate),
		"limit":       parsed(&p.Limit, parseRate),
	}
	if edge {
		f["action"] = enum(&p.Action, actions[:])
		f["handshake"] = enum(&p.Handshake, handshakes[:])
	}
	return f
}

// parseRate reads a rate that a user may be held to.
func parseRate(s string) (unit.BitRate, error) {
	r, err := unit.ParseBitRate(s)
	if err == nil && r < MinLimit {
		return 0, fmt.Errorf("%s is too little: give at least %s", shown(s), MinLimit)
	}
	return r, err
}

// fillPolicies sets defaults in the list at path and checks what no single
// value shows.
func fillPolicies(d *document, path string, list []Policy) error {
	if len(list) > MaxPolicies {
		return d.fail(path, "%d policies: at most %d", len(list), MaxPolicies)
	}
	seen := make(map[string]int, len(list))
	for i := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if err := list[i].check(d, at); err != nil {
			return err
		}
		if j, twice := seen[list[i].Name]; twice {
			return d.fail(at+".name", "%q is already the name of %s[%d]: give each policy its own", list[i].Name, path, j)
		}
		seen[list[i].Name] = i
		if list[i].Weight == 0 {
			list[i].Weight = 1
		}
	}
	return nil
}

func (p *Policy) check(d *document, at string) error {
	switch {
	case p.Name == "":
		return d.fail(at+".name", "missing: give the policy a name of its own, such as guests")
	case p.Client.IsValid() && p.Destination.IsValid() && p.Client.Addr().Is4() != p.Destination.Addr().Is4():
		return d.fail(at+".destination", "%s and the policy's client %s are not of one IP version: nothing matches both", p.Destination, p.Client)
	case p.Limit != 0 && p.Guarantee > p.Limit:
		return d.fail(at+".guarantee", "%s is above the policy's limit, %s", p.Guarantee, p.Limit)
	case p.Guarantee != 0 && p.Class == ClassLatency:
		return d.fail(at+".guarantee", "class latency is served before all guarantees: leave one of the two out")
	case p.Action == ActionDirect:
		return p.checkDirect(d, at)
	}
	return nil
}

// checkDirect refuses what only the tunnel can do.
func (p *Policy) checkDirect(d *document, at string) error {
	for _, key := range []string{"class", "weight", "user", "guarantee", "limit", "handshake"} {
		if d.has(at + "." + key) {
			return d.fail(at+"."+key, "has no effect with action direct: leave one of the two out")
		}
	}
	return nil
}
