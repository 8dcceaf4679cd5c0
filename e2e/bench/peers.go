package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Times of one turn of a racer.
const (
	peerWarmUp  = 250 * ms
	peerSteady  = 900 * ms
	peerChurn   = 1500 * ms
	churnWarmUp = 300 * ms // also fills the peers' caches of TLS sessions
	peerReady   = 10 * time.Second
)

// peerLoads are the bulk loads of a turn.
var peerLoads = []struct {
	name    string
	request request
	flows   int
}{
	{"1 down", request{kind: download}, 1},
	{"1 up", request{kind: upload}, 1},
	{"16 down", request{kind: download}, 16},
	{"16 up", request{kind: upload}, 16},
}

// peerRow is all readings of one racer.
type peerRow struct {
	racer
	port  uint16
	Name  string              `json:"name"`
	Bulk  map[string][]window `json:"bulk"` // by load
	Churn []churnRow          `json:"churn"`
}

// peers measures hawser beside other makes in one lab; all take turns.
func (b *bench) peers() (*report, error) {
	rows, err := b.chosen()
	if err != nil {
		return nil, err
	}
	a, err := openArena()
	if err != nil {
		return nil, err
	}
	for range b.runs {
		for _, row := range rows {
			if err := b.turn(a, row); err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", row.Name, err), a.close())
			}
		}
	}
	if err := a.close(); err != nil {
		return nil, err
	}
	return peerReport(rows), nil
}

// chosen returns the racers that the flag -racers names, all without it.
func (b *bench) chosen() (rows []*peerRow, err error) {
	for i, c := range racers {
		named := func(part string) bool { return strings.Contains(c.name, part) }
		if b.racers == "" || slices.ContainsFunc(strings.Split(b.racers, ","), named) {
			rows = append(rows, &peerRow{racer: c, port: bulkPort(i), Name: c.name, Bulk: map[string][]window{}})
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("-racers: no name holds any of %q", b.racers)
	}
	return rows, nil
}

// turn starts a racer, loads it in every way, and stops it.
func (b *bench) turn(a *arena, row *peerRow) (err error) {
	a.port = row.port
	a.carrier, err = row.start(a)
	if a.carrier != nil {
		defer a.carrier.stop()
	}
	if err != nil {
		return err
	}
	if err := a.ready(); err != nil {
		return err
	}
	for _, l := range peerLoads {
		m, err := b.bulk(a.world, way{}, l.request, l.flows, phases{peerWarmUp, peerSteady})
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		row.Bulk[l.name] = append(row.Bulk[l.name], m.Steady)
	}
	if _, err := b.churn(a.world, churnWarmUp); err != nil {
		return err
	}
	c, err := b.churn(a.world, peerChurn)
	row.Churn = append(row.Churn, c)
	return err
}

// ready waits until a connection goes through.
func (a *arena) ready() error {
	for limit := time.Now().Add(peerReady); ; {
		_, err := a.fetch(way{}, 100)
		if err == nil {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("nothing goes through after %v: %w\n%s", peerReady, err, a.carrier.output())
		}
		time.Sleep(50 * ms)
	}
}

func peerReport(rows []*peerRow) *report {
	r := &report{
		Title: fmt.Sprintf("peers: one bare uplink, noise, clients, servers and all programs on all cores together, %d turns each", len(rows[0].Churn)),
		Head:  []string{"way", "Gbit/s 1 down", "1 up", "16 down", "16 up", "CPU-s/GB 1 down", "16 down", "16 up", "conn/s", "CPU-ms/conn", "p50 ms", "p99 ms"},
		Raw:   rows,
	}
	for _, row := range rows {
		r.Rows = append(r.Rows, row.cells())
		r.Gates = append(r.Gates, row.gatesAgainst(rows)...)
	}
	r.Notes = []string{
		"CPU of both programs; TLS peers: TLS 1.3, AES-256-GCM, ECDSA P-256 certificates on both sides, sessions resumed as they do by default",
		fmt.Sprintf("conn/s: connect, %d bytes there, %d bytes back, closed by the server; %d at a time; times from connect to the end of the reply", churnRequest, churnReply, churnAtOnce),
	}
	for _, row := range rows {
		if n := row.failed(); n > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("%s: %d short connections failed", row.Name, n))
		}
	}
	return r
}

func (row *peerRow) cells() []string {
	cells := []string{row.Name}
	for _, l := range peerLoads {
		cells = append(cells, fmt.Sprintf("%.2f", row.rate(l.name)))
	}
	for _, load := range []string{"1 down", "16 down", "16 up"} {
		cells = append(cells, fmt.Sprintf("%.2f", median(each(row.Bulk[load], func(w window) float64 { return w.perGB(w.Edge + w.Cloud) }))))
	}
	late := func(q float64) string {
		return fmt.Sprintf("%.1f", median(each(row.Churn, func(c churnRow) float64 { return quantile(c.Ms, q) })))
	}
	cpu := median(each(row.Churn, func(c churnRow) float64 { return c.each(c.Edge + c.Cloud) }))
	return append(cells, spread("%.0f", each(row.Churn, churnRow.perSecond)), fmt.Sprintf("%.2f", cpu), late(0.5), late(0.99))
}

// rate is the median Gbit/s of a load.
func (row *peerRow) rate(load string) float64 {
	return median(each(row.Bulk[load], func(w window) float64 { return w.mbps() / 1000 }))
}

func (row *peerRow) perSecond() float64 { return median(each(row.Churn, churnRow.perSecond)) }

func (row *peerRow) failed() (n int) {
	for _, c := range row.Churn {
		n += c.Failed
	}
	return n
}

// gatesAgainst compares with the best peer, load by load.
func (row *peerRow) gatesAgainst(rows []*peerRow) (gates []gate) {
	best := func(of func(*peerRow) float64) (most float64) {
		for _, other := range rows {
			if other.peer {
				most = max(most, of(other))
			}
		}
		return most
	}
	add := func(what, unit string, want float64, of func(*peerRow) float64) {
		if most := best(of); most > 0 && want > 0 {
			gates = append(gates, gate{What: row.Name + ", " + what + ", against the best peer's", Got: of(row), Want: want * most, Unit: unit,
				Share: fmt.Sprintf("%.2f times, wanted %.2f", of(row)/most, want)})
		}
	}
	for _, l := range peerLoads {
		add(l.name, " Gbit/s", row.gates.rate, func(r *peerRow) float64 { return r.rate(l.name) })
	}
	add("connections", " per second", row.gates.churn, (*peerRow).perSecond)
	return gates
}
