package main

import (
	"errors"
	"net/netip"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// carrier is the programs that carry clients' connections to the origin.
type carrier struct {
	edge, cloud []*lab.Proc
	at          netip.Addr // where clients connect to; the zero Addr: to the origin, and are steered
	idle        func(limit time.Duration) error
}

// ofPair is both agents.
func ofPair(p *pair.Pair) *carrier {
	return &carrier{edge: []*lab.Proc{p.Edge}, cloud: []*lab.Proc{p.Cloud}, idle: p.WaitIdle}
}

// ofRelay is both sides of the stand-alone relay.
func ofRelay(l *lab.Lab, r *pair.Relay) *carrier {
	return &carrier{edge: []*lab.Proc{r.Near}, cloud: []*lab.Proc{r.Far}, at: l.Address("edge", lab.IPv4), idle: r.WaitIdle}
}

// stop ends all programs and waits for them. How they end is their own affair.
func (c *carrier) stop() {
	for _, p := range append(c.edge[:len(c.edge):len(c.edge)], c.cloud...) {
		_ = p.Stop()
	}
}

// cpu returns the processor time of both sides.
func (c *carrier) cpu() (edge, cloud time.Duration, err error) {
	edge, err1 := cpuOf(c.edge)
	cloud, err2 := cpuOf(c.cloud)
	return edge, cloud, errors.Join(err1, err2)
}

func cpuOf(procs []*lab.Proc) (sum time.Duration, err error) {
	for _, p := range procs {
		user, system, e := p.CPU()
		sum, err = sum+user+system, errors.Join(err, e)
	}
	return sum, err
}

// output is what the programs have said.
func (c *carrier) output() (text string) {
	for _, p := range append(c.edge[:len(c.edge):len(c.edge)], c.cloud...) {
		text += p.Output()
	}
	return text
}
