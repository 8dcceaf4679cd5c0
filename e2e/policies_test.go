package e2e

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Flows that are measured at once, each by a port of the origin's from policyPort on.
const (
	freeFlow   = iota // falls under no policy: that one is for another destination
	cappedFlow        // a limit, by its port
	guestFlow         // class background, by client, destination and port
	oursFlow          // a limit by the cloud's own policy
	policyFlows
)

const policyPort = 80

// Limits of TestPolicies, Mbit/s.
const cappedRate, oursRate, edgeRate = 2, 4, 40

// policyRates is what each flow had, Mbit/s.
type policyRates [policyFlows]float64

func (p policyRates) sum() (sum float64) {
	for _, rate := range p {
		sum += rate
	}
	return sum
}

// TestPolicies: what the files say of rates and classes holds through the programs: limits
// of users at either end, an edge's limit and a class, by client, destination and port. What
// the cloud says holds for the direction to the edge only.
func TestPolicies(t *testing.T) {
	r := start(t, twins(), pair.Options{
		Policies: fmt.Sprintf("[{name: elsewhere, destination: 203.0.113.0/24, limit: 64kbit/s}, {name: nobody, client: 10.99.0.0/16, limit: 64kbit/s}, "+
			"{name: capped, ports: [%d], limit: %dMbit/s}, {name: guest, client: 10.10.0.0/16, destination: 198.18.0.0/15, ports: [%d-%d], class: background}]",
			policyPort+cappedFlow, cappedRate, policyPort+guestFlow, policyPort+guestFlow),
		Entry: fmt.Sprintf("limit: %dMbit/s, policies: [{name: ours, ports: [%d], limit: %dMbit/s}]", edgeRate, policyPort+oursFlow, oursRate),
	})
	var up [policyFlows]atomic.Int64
	for i := range up {
		r.serve(policyPort+i, func(c *net.TCPConn) { bothWays(c, &up[i]) })
	}
	r.fairly(t, func() []string {
		down, up := r.policyRates(t, &up)
		t.Logf("Mbit/s down %.1f, up %.1f", down, up)
		return policyBounds(down, up)
	})
	r.quiet()
}

// bothWays is what a server does: it sends without end, and counts what comes.
func bothWays(c *net.TCPConn, count *atomic.Int64) {
	defer c.Close()
	go func() { _, _ = io.Copy(c, newNoise(1, 1<<40)) }()
	counted(c, count)
}

// counted reads to the end.
func counted(c *net.TCPConn, count *atomic.Int64) {
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		count.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// policyRates has all flows send and receive for some seconds.
func (r *rig) policyRates(t *testing.T, sent *[policyFlows]atomic.Int64) (down, up policyRates) {
	var got [policyFlows]atomic.Int64
	var conns []*net.TCPConn
	for i := range got {
		c := r.mustDial(r.origin(lab.IPv4, policyPort+i), time.Minute)
		conns = append(conns, c)
		go counted(c, &got[i])
		go func() { _, _ = io.Copy(c, newNoise(2, 1<<40)) }()
	}
	time.Sleep(time.Second)
	began := time.Now()
	for i := range got {
		down[i], up[i] = -float64(got[i].Load()), -float64(sent[i].Load())
	}
	time.Sleep(2 * time.Second)
	scale := 8e-6 / time.Since(began).Seconds()
	for i := range got {
		down[i], up[i] = (down[i]+float64(got[i].Load()))*scale, (up[i]+float64(sent[i].Load()))*scale
	}
	for _, c := range conns {
		_ = c.SetLinger(0)
		c.Close()
	}
	return down, up
}

// policyBounds is what is wrong with the rates.
func policyBounds(down, up policyRates) (b []string) {
	within := func(what string, got, least, most float64) {
		if got < least || got > most {
			b = append(b, fmt.Sprintf("%s: %.1f, want %.1f to %.1f", what, got, least, most))
		}
	}
	within("limited by the edge, down", down[cappedFlow], 0.8*cappedRate, 1.15*cappedRate)
	within("limited by the edge, up", up[cappedFlow], 0.8*cappedRate, 1.15*cappedRate)
	within("limited by the cloud, down", down[oursFlow], 0.8*oursRate, 1.15*oursRate)
	within("limited by the cloud, up", up[oursFlow], 3*oursRate, 100)
	within("all, down", down.sum(), 0.8*edgeRate, 1.1*edgeRate)
	within("all, up", up.sum(), 1.2*edgeRate, 100)
	within("background's part, down", down[guestFlow]/down.sum(), 0.01, 0.15) // its floor is 5 %
	within("background's part, up", up[guestFlow]/up.sum(), 0.01, 0.15)
	return b
}
