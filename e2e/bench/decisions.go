package main

import (
	"fmt"
	"strings"
	"time"
)

// decisionFlows is how many connections of table scheduler send.
const decisionFlows = 1000

// decisionWarm is how long they may take to come up to speed. It is in the profile.
const decisionWarm = 10 * time.Second

// decisionMost is the part of an agent's CPU time that decisions may take (issue
// 4, gate 8).
const decisionMost = 0.10

// parts of an agent's time that table scheduler tells apart. A stack belongs to
// each of which it holds a function.
var decisionParts = []struct{ name, function string }{
	{"package scheduler: all decisions and estimates", "hawser/scheduler."},
	{"with what gathers its values, judges health and lateness", ""},
	{"the tunnel's loop, with its sends and all it calls", "hawser/pkg/tunnel.(*Session).step"},
}

// gathering are the functions of the tunnel that exist for the scheduler.
var gathering = []string{
	"tunnel.(*Session).refreshViews", "tunnel.(*Session).checkHealth", "tunnel.(*Session).resendLate", "tunnel.(*Session).pick",
	"tunnel.(*Session).hasRoom", "tunnel.(*Session).chunk", "tunnel.(*Session).askWorker", "tunnel.(*conn).look",
}

// partsOf names the parts that a stack belongs to. Stacks are innermost first.
func partsOf(stack []string) (names []string) {
	decides := mentions(stack, decisionParts[0].function)
	if decides {
		names = append(names, decisionParts[0].name)
	}
	for _, f := range gathering {
		decides = decides || mentions(stack, f)
	}
	// A copy that is sent again is sending, whoever has decided on it.
	if decides && !mentions(stack, "tunnel.(*Session).carry") {
		names = append(names, decisionParts[1].name)
	}
	if mentions(stack, decisionParts[2].function) {
		names = append(names, decisionParts[2].name)
	}
	return names
}

// decisions measures what the scheduler takes of the agents' CPU time.
func (b *bench) decisions() (*report, error) {
	p, err := b.profileFlowsDown(decisionFlows, phases{decisionWarm, profileTime})
	if err != nil {
		return nil, err
	}
	m := p.load.Steady
	r := &report{
		Title: fmt.Sprintf("scheduler: its share of each agent's CPU time, %d flows down, unshaped, noise", decisionFlows),
		Head:  []string{"part", "edge", "cloud"},
		Notes: []string{fmt.Sprintf("%.2f Gbit/s; CPU-s/GB: edge %.2f, cloud %.2f", m.mbps()/1000, m.perGB(m.Edge), m.perGB(m.Cloud))},
	}
	shares := map[string]map[string]float64{}
	for role, file := range p.files {
		if shares[role], err = sharesOf("hawser/"+role, file, partsOf); err != nil {
			return nil, err
		}
	}
	for _, part := range decisionParts {
		r.add(part.name, fmt.Sprintf("%.1f %%", 100*shares["edge"][part.name]), fmt.Sprintf("%.1f %%", 100*shares["cloud"][part.name]))
	}
	r.Raw = shares
	name := decisionParts[1].name
	for _, role := range []string{"edge", "cloud"} {
		r.Gates = append(r.Gates, gate{What: strings.ToUpper(role[:1]) + role[1:] + ", " + name, Got: 100 * shares[role][name], Want: 100 * decisionMost, Most: true, Unit: " %"})
	}
	return r, nil
}
