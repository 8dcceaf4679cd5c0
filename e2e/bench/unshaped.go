package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Times of one unshaped reading.
const (
	unshapedFirst  = 300 * ms
	unshapedSteady = 1200 * ms
)

// mixPings is how many round trips are timed without a look at the clock.
const mixPings = 1500

// bareLines are two plain veth pairs.
func bareLines() []lab.Uplink {
	return []lab.Uplink{{Name: "wifi", Unshaped: true}, {Name: "lte", Unshaped: true}}
}

// trial is one kind of unshaped load.
type trial struct {
	Way       string `json:"way"`
	Payload   string `json:"payload"`
	Direction string `json:"direction"`
	Flows     int    `json:"flows"`

	way     way
	request request
}

// host is a way to take clients' connections and to make those to servers.
type host struct{ name, intercept, egress string }

var hosts = []host{
	{"hawser, hub to hub", "hub", "hub"},
	{"hawser, hub to socket", "hub", "socket"},
	{"hawser, tproxy to socket", "tproxy", "socket"},
}

// trials returns the loads for one world.
func (h host) trials() (out []trial) {
	for _, flows := range []int{1, 16} {
		for _, d := range []string{"down", "up"} {
			out = append(out, newTrial(h.name, "noise", d, flows, way{}))
		}
	}
	for _, d := range []string{"down", "up"} {
		out = append(out, newTrial(h.name, "text", d, 16, way{}))
	}
	for _, flows := range []int{1, 16} {
		for _, d := range []string{"down", "up"} {
			out = append(out, newTrial("direct, beside it", "noise", d, flows, way{direct: true}))
		}
	}
	return out
}

func newTrial(label, payload, direction string, flows int, v way) trial {
	t := trial{Way: label, Payload: payload, Direction: direction, Flows: flows, way: v}
	t.request = request{kind: download, text: payload == "text"}
	if direction == "up" {
		t.request.kind = upload
	}
	return t
}

// unshapedRow is the readings of one trial.
type unshapedRow struct {
	trial
	Runs []window `json:"runs"`
}

// unshaped measures what the machine can do when no uplink holds it back.
func (b *bench) unshaped() (*report, error) {
	var rows []*unshapedRow
	for _, h := range hosts {
		more, err := b.unshapedOn(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		rows = append(rows, more...)
	}
	r := &report{
		Title: "unshaped: veth only, clients, both agents, servers and the kernel on all cores together",
		Head:  []string{"way", "payload", "flows", "direction", "Gbit/s", "CPU-s/GB edge", "cloud", "both", "clients and servers"},
		Raw:   rows,
	}
	for _, row := range rows {
		r.unshapedRow(row)
	}
	r.Notes = append(r.Notes, "a veth sends inline: a sender's CPU seconds hold the kernel's forwarding and the receiver's interrupts")
	return r, nil
}

func (r *report) unshapedRow(row *unshapedRow) {
	per := func(cpu func(window) float64) string {
		return fmt.Sprintf("%.2f", median(each(row.Runs, func(w window) float64 { return w.perGB(cpu(w)) })))
	}
	r.add(row.Way, row.Payload, fmt.Sprint(row.Flows), row.Direction,
		spread("%.2f", each(row.Runs, func(w window) float64 { return w.mbps() / 1000 })),
		per(func(w window) float64 { return w.Edge }), per(func(w window) float64 { return w.Cloud }),
		per(func(w window) float64 { return w.Edge + w.Cloud }), per(func(w window) float64 { return w.Ends }))
}

// unshapedOn measures one kind of host and, in the same world and in turn, the
// direct path.
func (b *bench) unshapedOn(h host) ([]*unshapedRow, error) {
	w, err := open(bareLines(), pair.Options{Intercept: h.intercept, Egress: h.egress})
	if err != nil {
		return nil, err
	}
	var rows []*unshapedRow
	for _, t := range h.trials() {
		rows = append(rows, &unshapedRow{trial: t})
	}
	for range b.runs {
		for _, row := range rows {
			var m measured
			if m, err = b.bulk(w, row.way, row.request, row.Flows, phases{unshapedFirst, unshapedSteady}); err != nil {
				return nil, errors.Join(fmt.Errorf("%+v: %w", row.trial, err), w.close())
			}
			row.Runs = append(row.Runs, m.Steady)
		}
	}
	return rows, w.close()
}

// pingN times n round trips, in microseconds.
func (w *world) pingN(v way, n int) ([]float64, error) {
	c, _, err := w.dial(v)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(fetchLimit)); err != nil {
		return nil, err
	}
	if _, err := c.Write(request{kind: echo}.encode()); err != nil {
		return nil, err
	}
	return pingOn(c, n)
}

// pingOn times n round trips on a flow that echoes, in microseconds. With an error it
// returns those before it.
func pingOn(c *net.TCPConn, n int) ([]float64, error) {
	var us []float64
	var b [pingSize]byte
	for range n {
		began := time.Now()
		if _, err := c.Write(b[:]); err != nil {
			return us, err
		}
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return us, err
		}
		us = append(us, float64(time.Since(began))/1000)
	}
	return us, nil
}
