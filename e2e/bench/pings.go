package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"hawser/e2e/lab"
)

// What hawser's pair may add to a small message's round trip at p50 and p99, in us.
const addedP50, addedP99 = 150, 1000

// One reading of pings.
const (
	pingSize   = 64        // bytes
	pingsMade  = 3000      // round trips, one after the other
	pingsFirst = 1000      // of them to begin with, which do not count
	pingRest   = 1500 * ms // before it: programs that have come to rest are what is measured
)

// pingRow is the round trips of one way, a list for each reading.
type pingRow struct {
	Way  string      `json:"way"`
	Peer bool        `json:"peer"`
	Us   [][]float64 `json:"us"`
}

// pings measures the time that programs add to small messages, in turns with peers and with
// nothing between. Client and server are a process each that waits in the kernel.
func (b *bench) pings() (*report, error) {
	chosen, err := b.chosen()
	if err != nil {
		return nil, err
	}
	a, err := openArena()
	if err != nil {
		return nil, err
	}
	rows := make([]*pingRow, len(chosen))
	for range b.runs {
		for i, c := range chosen {
			us, err := a.pinged(c)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", c.Name, err), a.close())
			}
			if rows[i] == nil {
				rows[i] = &pingRow{Way: c.Name, Peer: c.peer}
			}
			rows[i].Us = append(rows[i].Us, us)
		}
	}
	return pingReport(rows), a.close()
}

// pinged starts a racer, plays ping-pong through it once, in microseconds, and stops it.
func (a *arena) pinged(c *peerRow) (us []float64, err error) {
	a.port = c.port
	a.carrier, err = c.start(a)
	if a.carrier != nil {
		defer a.carrier.stop()
	}
	if err != nil {
		return nil, err
	}
	if err := a.ready(); err != nil {
		return nil, err
	}
	time.Sleep(pingRest)
	ends := &crew{}
	us, err = a.pingPong(ends)
	return us, errors.Join(err, ends.dismiss())
}

// pingPong has a client and a server of their own do it.
func (a *arena) pingPong(ends *crew) ([]float64, error) {
	port := a.port + echoBeside
	server, err := ends.enlist(a.Lab, "origin", "echo", "-at", netip.AddrPortFrom(a.Address("origin", lab.IPv4), port).String())
	if err != nil {
		return nil, err
	}
	if _, err := server.hear("listening"); err != nil {
		return nil, err
	}
	client, err := ends.enlist(a.Lab, "client", "ping", "-to", netip.AddrPortFrom(a.host(way{}), port).String(),
		"-n", strconv.Itoa(pingsMade), "-size", strconv.Itoa(pingSize))
	if err != nil {
		return nil, err
	}
	words, err := client.hear("pinged")
	if err != nil {
		return nil, err
	}
	var us []float64
	for _, word := range words[min(len(words), pingsFirst):] {
		ns, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the client said %q, not nanoseconds: %w", word, err)
		}
		us = append(us, float64(ns)/1000)
	}
	return us, nil
}

// pingReport judges hawser's rows by what they have beyond the direct one's; without one nothing is judged.
func pingReport(rows []*pingRow) *report {
	r := &report{
		Title: fmt.Sprintf("pings: round trips of %d bytes over one bare uplink, us, %d turns each", pingSize, len(rows[0].Us)),
		Head:  []string{"way", "p50", "p99", "p50 beyond direct", "p99 beyond direct"},
		Raw:   rows,
		Notes: []string{"client and server: a process each that waits in the kernel; medians of the turns' quantiles"},
	}
	var base *pingRow
	for _, row := range rows {
		if row.Way == nothingBetween {
			base = row
		}
	}
	for _, row := range rows {
		p50, p99 := row.mid(0.5), row.mid(0.99)
		cells := []string{row.Way, fmt.Sprintf("%.0f", p50), fmt.Sprintf("%.0f", p99), "", ""}
		if base != nil && base != row {
			p50, p99 = p50-base.mid(0.5), p99-base.mid(0.99)
			cells[3], cells[4] = fmt.Sprintf("%.0f", p50), fmt.Sprintf("%.0f", p99)
			if !row.Peer {
				r.Gates = append(r.Gates,
					gate{What: row.Way + ", added at p50", Got: p50, Want: addedP50, Most: true, Unit: " us"},
					gate{What: row.Way + ", added at p99", Got: p99, Want: addedP99, Most: true, Unit: " us"})
			}
		}
		r.add(cells...)
	}
	return r
}

// mid is the median over the turns of each one's quantile.
func (p *pingRow) mid(q float64) float64 {
	return median(each(p.Us, func(us []float64) float64 { return quantile(us, q) }))
}
