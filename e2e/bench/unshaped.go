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

// Times of one unshaped reading, and of ping-pong.
const (
	unshapedFirst  = 300 * ms
	unshapedSteady = 1200 * ms
	pings          = 1500
	pingSize       = 64
)

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

// pingRow is the round trips of one way.
type pingRow struct {
	Way string    `json:"way"`
	Us  []float64 `json:"us"`
}

// unshaped measures what the machine can do when no uplink holds it back.
func (b *bench) unshaped() (*report, error) {
	var rows []*unshapedRow
	var pingRows []*pingRow
	for _, h := range hosts {
		more, ping, err := b.unshapedOn(h)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		rows, pingRows = append(rows, more...), append(pingRows, ping...)
	}
	r := &report{
		Title: "unshaped: veth only, clients, both agents, servers and the kernel on all cores together",
		Head:  []string{"way", "payload", "flows", "direction", "Gbit/s", "CPU-s/GB edge", "cloud", "both", "clients and servers"},
		Raw:   map[string]any{"bulk": rows, "ping": pingRows},
	}
	for _, row := range rows {
		r.unshapedRow(row)
	}
	for _, p := range pingRows {
		r.Notes = append(r.Notes, fmt.Sprintf("ping-pong of %d bytes, %s: p50 %.0f us, p99 %.0f us", pingSize, p.Way, quantile(p.Us, 0.5), quantile(p.Us, 0.99)))
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
func (b *bench) unshapedOn(h host) ([]*unshapedRow, []*pingRow, error) {
	w, err := open(bareLines(), pair.Options{Intercept: h.intercept, Egress: h.egress})
	if err != nil {
		return nil, nil, err
	}
	var rows []*unshapedRow
	for _, t := range h.trials() {
		rows = append(rows, &unshapedRow{trial: t})
	}
	for range b.runs {
		for _, row := range rows {
			var m measured
			if m, err = b.bulk(w, row.way, row.request, row.Flows, phases{unshapedFirst, unshapedSteady}); err != nil {
				return nil, nil, errors.Join(fmt.Errorf("%+v: %w", row.trial, err), w.close())
			}
			row.Runs = append(row.Runs, m.Steady)
		}
	}
	ping, err := w.pingBoth(h.name)
	return rows, ping, errors.Join(err, w.close())
}

// pingBoth plays ping-pong through the tunnel and directly.
func (w *world) pingBoth(name string) ([]*pingRow, error) {
	rows := []*pingRow{{Way: name}, {Way: "direct, beside it"}}
	for i, v := range []way{{}, {direct: true}} {
		us, err := w.ping(v)
		if err != nil {
			return nil, fmt.Errorf("ping-pong, %s: %w", rows[i].Way, err)
		}
		rows[i].Us = us
	}
	return rows, nil
}

func (w *world) ping(v way) ([]float64, error) { return w.pingN(v, pings) }

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
