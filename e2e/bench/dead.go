package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/guard"
)

const (
	// deadClients is how many clients connect to servers that never answer.
	deadClients = 20_000
	// deadTime is how long they are at it: the cloud gives a server 10 s.
	deadTime = 25 * time.Second
	// deadObject is what others fetch meanwhile, in bytes, time after time.
	deadObject = 10_000
	// deadGrowth bounds what an agent's memory grows by, in MB: 4096 pending
	// connections (limits.pending), which in fast mode the TCP stack has, too,
	// and the collector's slack. It does not depend on the number of clients.
	deadGrowth = 128
	// deadSlower bounds how much longer the median of the others' objects takes.
	// The clients and the agents share two cores with them.
	deadSlower = 4.0
)

// deadRow is one mode's reading.
type deadRow struct {
	Mode               string    `json:"mode"`
	Before, Half, Peak footprint `json:"-"`
	Quiet              []float64 `json:"quiet"` // ms of the others' objects
	Busy               []float64 `json:"busy"`
	Failed             int       `json:"failed"`
	Error              string    `json:"error"`   // the first of those
	Pending            uint64    `json:"pending"` // the most
	Flights            uint64    `json:"flights"` // the most bytes of pending connections
	Now                string    `json:"now"`     // mode in force at the height
	Begun              int       `json:"begun"`
	Connected          int       `json:"connected"`
	Ended              int       `json:"ended"`
	Acked              int       `json:"acked"`
	Most               int       `json:"most"` // bytes acknowledged on one connection
}

// dead measures what clients of dead servers cost.
func (b *bench) dead() (*report, error) {
	r := &report{
		Title: "dead: clients that push all they can to servers that never answer",
		Head: []string{"mode", "clients", "accepted", "bytes taken", "most of one", "pending at most", "first flights at most", "in force",
			"edge MB before, half-way, peak", "cloud MB", "others' 10 KB p50, p95, longest ms, quiet", "meanwhile", "failed"},
	}
	var rows []*deadRow
	for _, mode := range []string{"fast", "auto", "zero-window"} {
		row, err := b.deadOn(mode)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mode, err)
		}
		rows = append(rows, row)
		r.deadRow(row)
	}
	r.Raw = rows
	r.Notes = append(r.Notes, "every client has an address of its own and sends for "+deadTime.String()+"; the servers' host drops all",
		"the clients run on the agents' two cores")
	return r, nil
}

func (r *report) deadRow(row *deadRow) {
	mb := func(of func(footprint) int64) string {
		return fmt.Sprintf("%.1f, %.1f, %.1f", mega(of(row.Before)), mega(of(row.Half)), mega(of(row.Peak)))
	}
	times := func(ms []float64) string {
		return quantileCell(ms, 0.5) + ", " + quantileCell(ms, 0.95) + ", " + quantileCell(ms, 1)
	}
	r.add(row.Mode, strconv.Itoa(row.Begun), strconv.Itoa(row.Connected), strconv.Itoa(row.Acked), strconv.Itoa(row.Most),
		strconv.FormatUint(row.Pending, 10), strconv.FormatUint(row.Flights, 10), row.Now,
		mb(edgeOf), mb(cloudOf), times(row.Quiet), times(row.Busy), strconv.Itoa(row.Failed))
	gates := []gate{
		{What: row.Mode + ", edge's growth", Got: mega(row.Peak.Edge - row.Before.Edge), Want: deadGrowth, Most: true, Unit: " MB"},
		{What: row.Mode + ", cloud's growth", Got: mega(row.Peak.Cloud - row.Before.Cloud), Want: deadGrowth, Most: true, Unit: " MB"},
		{What: row.Mode + ", bytes of one first flight", Got: float64(row.Most), Want: guard.DefaultFirstFlight, Most: true},
		{What: row.Mode + ", bytes of all first flights", Got: float64(row.Flights), Want: guard.DefaultFirstFlights, Most: true},
		{What: row.Mode + ", pending connections", Got: float64(row.Pending), Want: guard.DefaultPending, Most: true},
		{What: row.Mode + ", others' median", Got: quantile(row.Busy, 0.5) / quantile(row.Quiet, 0.5), Want: deadSlower, Most: true, Unit: " times the quiet"},
		{What: row.Mode + ", others that failed", Got: float64(row.Failed), Want: 0, Most: true},
	}
	if row.Mode == "auto" {
		zero := 0.0
		if row.Now == "zero-window" {
			zero = 1
		}
		gates = append(gates, gate{What: "auto has turned to zero-window", Got: zero, Want: 1})
	}
	r.Gates = append(r.Gates, gates...)
	if row.Error != "" {
		r.Notes = append(r.Notes, row.Mode+": "+row.Error)
	}
}

// deadOn measures one mode.
func (b *bench) deadOn(mode string) (row *deadRow, err error) {
	w, err := openWith(bareLines(), 1, pair.Options{Handshake: mode})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	clients, err := w.deadServers()
	if err != nil {
		return nil, err
	}
	row = &deadRow{Mode: mode}
	if err := b.sleep(3 * time.Second); err != nil {
		return nil, err
	}
	for range 300 {
		took, err := w.fetch(way{}, deadObject)
		if err != nil {
			return nil, err
		}
		row.Quiet = append(row.Quiet, millis(took))
	}
	if row.Before, err = w.footprint(); err != nil {
		return nil, err
	}
	crew := &crew{}
	if err := clients(crew, min(b.flows, deadClients)); err != nil {
		return nil, errors.Join(err, crew.dismiss())
	}
	if err := b.besideDead(w, row); err != nil {
		return nil, errors.Join(err, crew.dismiss())
	}
	return row, row.ended(crew)
}

// deadServers makes servers that never answer, and returns what starts n
// clients of theirs, with an address each.
func (w *world) deadServers() (start func(c *crew, n int) error, err error) {
	for _, s := range [][]string{
		{"cloud", "ip route add 198.18.201.0/24 via " + w.Address("origin", lab.IPv4).String()},
		{"origin", "iptables -w -t raw -I PREROUTING -d 198.18.201.0/24 -j DROP"},
		{"client", "ip route add local 10.64.0.0/16 dev lo"},
		{"edge", "ip route add 10.64.0.0/16 via " + w.Address("client", lab.IPv4).String()},
	} {
		if out, err := w.Exec(s[0], strings.Fields(s[1])...); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", s[1], err, out)
		}
	}
	var to []string
	for i := range 16 {
		to = append(to, fmt.Sprintf("198.18.201.%d:80", 10+i))
	}
	return func(c *crew, n int) error {
		processes := (n + crowdShare - 1) / crowdShare
		for i := range processes {
			share := n*(i+1)/processes - n*i/processes
			_, err := c.enlist(w.Lab, "client", "push", "-to", strings.Join(to, ","), "-buffer", "4096",
				"-from", fmt.Sprintf("10.64.%d.0/17", 128*i), "-conns", strconv.Itoa(share))
			if err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// besideDead fetches objects and reads the agents while the clients push.
func (b *bench) besideDead(w *world, row *deadRow) error {
	read := time.Time{}
	for began := time.Now(); time.Since(began) < deadTime; {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if took, err := w.fetch(way{}, deadObject); err != nil {
			if row.Failed++; row.Failed == 1 {
				row.Error = err.Error()
			}
		} else {
			row.Busy = append(row.Busy, millis(took))
		}
		time.Sleep(5 * time.Millisecond)
		if time.Since(read) < 300*time.Millisecond {
			continue
		}
		read = time.Now()
		f, err := w.footprint()
		if err != nil {
			return err
		}
		if time.Since(began) < deadTime/2 {
			row.Half = f
		}
		row.Peak.Edge, row.Peak.Cloud = max(row.Peak.Edge, f.Edge), max(row.Peak.Cloud, f.Cloud)
		s, err := w.pair.Status("edge")
		if err != nil {
			return err
		}
		h := s.Handshakes
		if h.Pending >= row.Pending {
			row.Pending, row.Now = h.Pending, h.Now
		}
		row.Flights = h.FirstFlightsPeak
	}
	return nil
}

// ended ends the clients and adds up what they say.
func (r *deadRow) ended(c *crew) error {
	for _, m := range c.members {
		if err := m.in.Close(); err != nil {
			return errors.Join(err, c.dismiss())
		}
		said, err := m.hear("pushed")
		if err != nil {
			return errors.Join(err, c.dismiss())
		}
		var n [5]int
		for i, s := range said {
			n[i], _ = strconv.Atoi(s)
		}
		r.Begun, r.Connected, r.Ended = r.Begun+n[0], r.Connected+n[1], r.Ended+n[2]
		r.Acked, r.Most = r.Acked+n[3], max(r.Most, n[4])
	}
	return c.dismiss()
}
