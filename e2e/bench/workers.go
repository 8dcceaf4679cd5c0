package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"hawser/e2e/pair"
)

const (
	// spreadFlows are opened to see which worker gets them.
	spreadFlows = 400
	// hotPings are the round trips timed on a flow beside the hot one.
	hotPings = 1500
)

// workersRow is one number of workers.
type workersRow struct {
	Workers int                  `json:"workers"`
	Flows   map[string][]uint64  `json:"flows"` // by agent and worker
	Bulk    map[string][]window  `json:"bulk"`  // by direction
	Pings   map[string][]float64 `json:"pings_us"`
}

// workers measures one worker against two.
func (b *bench) workers() (*report, error) {
	r := &report{
		Title: "workers: 1 and 2 relay workers at each agent, hub to hub, unshaped, 16 flows of noise",
		Head:  []string{"workers", "down Gbit/s", "up Gbit/s", "of 400 flows: edge's workers", "cloud's workers"},
	}
	var rows []*workersRow
	for n := 1; n <= 2; n++ {
		row, err := b.workersOn(n)
		if err != nil {
			return nil, fmt.Errorf("%d workers: %w", n, err)
		}
		rows = append(rows, row)
		gbps := func(d string) string {
			return spread("%.2f", each(row.Bulk[d], func(w window) float64 { return w.mbps() / 1000 }))
		}
		r.add(fmt.Sprint(n), gbps("down"), gbps("up"), fmt.Sprint(row.Flows["edge"]), fmt.Sprint(row.Flows["cloud"]))
	}
	r.Raw = rows
	for _, row := range rows {
		for _, what := range []string{"alone", "beside a hot flow of the same worker", "beside a hot flow of the other worker"} {
			if us := row.Pings[what]; len(us) > 0 {
				r.Notes = append(r.Notes, fmt.Sprintf("%d workers, ping-pong of 64 bytes %s: p50 %.0f us, p99 %.0f us", row.Workers, what, quantile(us, 0.5), quantile(us, 0.99)))
			}
		}
	}
	for agent, counts := range rows[1].Flows {
		r.Gates = append(r.Gates, gate{What: agent + ", least worker's share of flows of two", Got: float64(min(counts[0], counts[1])) / spreadFlows, Want: 0.4})
	}
	two := rows[1].Pings
	r.Gates = append(r.Gates, gate{
		What: "p99 beside a hot flow of the other worker, to that beside one of the same",
		Got:  quantile(two["beside a hot flow of the other worker"], 0.99) / quantile(two["beside a hot flow of the same worker"], 0.99),
		Want: 1, Most: true,
	})
	r.Notes = append(r.Notes, "all roles share this machine's cores: with two workers at both agents, clients and servers there is none to spare")
	return r, nil
}

func (b *bench) workersOn(n int) (row *workersRow, err error) {
	w, err := open(bareLines(), pair.Options{Workers: n})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	row = &workersRow{Workers: n, Flows: map[string][]uint64{}, Bulk: map[string][]window{}, Pings: map[string][]float64{}}
	if err := w.spread(row); err != nil {
		return nil, err
	}
	for range b.runs {
		for d, kind := range map[string]byte{"down": download, "up": upload} {
			m, err := b.bulk(w, way{}, request{kind: kind}, 16, phases{unshapedFirst, unshapedSteady})
			if err != nil {
				return nil, err
			}
			row.Bulk[d] = append(row.Bulk[d], m.Steady)
		}
	}
	return row, w.besideHot(row)
}

// byWorker is how many flows each of an agent's workers has begun.
func (w *world) byWorker(role string, n int) ([]uint64, error) {
	s, err := w.pair.Status(role)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for i := range n {
		out = append(out, s.Counters[fmt.Sprintf("worker_%d_flows", i)])
	}
	return out, nil
}

// spread opens flows and sees which workers got them.
func (w *world) spread(row *workersRow) error {
	for range spreadFlows {
		if _, err := w.pingN(way{}, 1); err != nil {
			return err
		}
	}
	for _, role := range []string{"edge", "cloud"} {
		flows, err := w.byWorker(role, row.Workers)
		if err != nil {
			return err
		}
		row.Flows[role] = flows
	}
	return nil
}

// echoFlow is a flow to play ping-pong on, and the workers that have it.
type echoFlow struct {
	conn        *net.TCPConn
	edge, cloud int
}

func (f echoFlow) sameAs(g echoFlow) bool  { return f.edge == g.edge && f.cloud == g.cloud }
func (f echoFlow) apartOf(g echoFlow) bool { return f.edge != g.edge && f.cloud != g.cloud }

// place opens a flow and finds out which workers have it.
func (w *world) place(q request, n int) (f echoFlow, err error) {
	var before, after [2][]uint64
	for i, role := range []string{"edge", "cloud"} {
		if before[i], err = w.byWorker(role, n); err != nil {
			return f, err
		}
	}
	if f.conn, _, err = w.dial(way{}); err != nil {
		return f, err
	}
	if _, err = f.conn.Write(q.encode()); err != nil {
		return f, err
	}
	time.Sleep(20 * ms) // until both ends have it
	for i, role := range []string{"edge", "cloud"} {
		if after[i], err = w.byWorker(role, n); err != nil {
			return f, err
		}
	}
	for i := range n {
		if after[0][i] > before[0][i] {
			f.edge = i
		}
		if after[1][i] > before[1][i] {
			f.cloud = i
		}
	}
	return f, nil
}

// besideHot plays ping-pong alone, then beside one flow that takes all it can
// get, on the workers that have that one and on the others.
func (w *world) besideHot(row *workersRow) (err error) {
	hot, err := w.place(request{kind: download}, row.Workers)
	if err != nil {
		return err
	}
	defer hot.conn.Close()
	// Nothing is read of it yet: it stops when the windows are full.
	flows := map[string]*echoFlow{}
	for tries := 0; len(flows) < row.Workers && tries < 64; tries++ {
		f, err := w.place(request{kind: echo}, row.Workers)
		if err != nil {
			return err
		}
		defer f.conn.Close()
		switch {
		case f.sameAs(hot) && flows["beside a hot flow of the same worker"] == nil:
			flows["beside a hot flow of the same worker"] = &f
		case f.apartOf(hot) && flows["beside a hot flow of the other worker"] == nil:
			flows["beside a hot flow of the other worker"] = &f
		}
	}
	same := flows["beside a hot flow of the same worker"]
	if same == nil || len(flows) < row.Workers {
		return fmt.Errorf("64 flows, and none is where it is wanted: %+v", flows)
	}
	if row.Pings["alone"], err = pingOn(same.conn, hotPings); err != nil {
		return err
	}
	go drainAll(hot.conn)
	time.Sleep(300 * ms)
	for what, f := range flows {
		if row.Pings[what], err = pingOn(f.conn, hotPings); err != nil {
			return err
		}
	}
	return nil
}

// drainAll reads until the connection ends.
func drainAll(c net.Conn) {
	b := make([]byte, readSize)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}
