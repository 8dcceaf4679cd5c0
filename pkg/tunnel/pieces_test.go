package tunnel

import (
	"flag"
	"testing"
	"time"

	"hawser/pkg/simlink"
	"hawser/pkg/wire"
)

var piecesOn = flag.Bool("pieces", false, "let TestPieces print what comes of flows that write steadily")

const (
	piecesWarm = 2 * time.Second // from the links' first moment on
	piecesFor  = 8 * time.Second
)

// piecer lets the edge write a piece every so often, as a program that waits for no answer,
// and notes when the cloud has all of each. A worker without credit leaves what is written
// in the socket, and then reads as much of it as it may.
type piecer struct {
	sim   *sim
	flow  *simFlow
	size  int
	every time.Duration
	ends  []int // offsets of the ends of pieces that the cloud has not
	at    []time.Time
	took  []time.Duration
	over  bool
}

func (p *piecer) begin() {
	p.flow = p.sim.upload(1, requestBytes)
	p.sim.After(messageFirst, p.next)
	p.sim.After(messageFirst, p.look)
}

func (p *piecer) next() {
	if p.over {
		return
	}
	p.flow.size += p.size
	p.ends, p.at = append(p.ends, p.flow.size), append(p.at, p.sim.Now())
	p.sim.edge.answer(p.flow)
	p.sim.edge.wake()
	p.sim.After(p.every, p.next)
}

// look looks for what has come every tenth of a millisecond.
func (p *piecer) look() {
	for len(p.ends) > 0 && p.ends[0] <= p.flow.got {
		p.took = append(p.took, p.sim.Now().Sub(p.at[0]))
		p.ends, p.at = p.ends[1:], p.at[1:]
	}
	if !p.over {
		p.sim.After(100*time.Microsecond, p.look)
	}
}

// piecesOutcome is what came of pieces, by run or by piece, from piecesWarm on.
type piecesOutcome struct {
	goodput                []float64 // Mbit/s
	start, took            []time.Duration
	records, urgent, again float64 // records, those beside bulk, and MB sent twice, per MB
}

func (g terrain) pieces(size int, every time.Duration, seed uint64, out *piecesOutcome) {
	m, _ := g.enter(variant{beside: true}, seed)
	p := &piecer{sim: m, size: size, every: every}
	m.After(simStart+time.Duration(seed)*37*time.Millisecond, p.begin)
	records, urgent, got := 0, 0, 0
	var again uint64
	m.After(piecesWarm, func() {
		out.start, p.took = append(out.start, p.took...), nil
		got, again = p.flow.got, m.edge.s.count.BytesAgain
		m.tap = func(f fate) {
			if n := m.dataOf(p.flow, f); f.by == f.by.conn.bulk {
				records += n
			} else {
				records, urgent = records+n, urgent+n
			}
		}
	})
	m.Run(m.Now().Add(piecesFor), nil)
	p.over = true
	mb := float64(p.flow.got-got) / 1e6
	out.goodput = append(out.goodput, 8*mb/(piecesFor-piecesWarm).Seconds())
	out.took = append(out.took, p.took...)
	out.records += float64(records) / mb
	out.urgent += float64(urgent) / mb
	out.again += float64(m.edge.s.count.BytesAgain-again) / 1e6 / mb
	m.end()
}

// dataOf is how many of a record's frames are data of a flow from the edge.
func (m *sim) dataOf(of *simFlow, f fate) (n int) {
	for b := f.block; f.from == m.edge && len(b) > 0; {
		frame, rest, err := wire.Next(b)
		if err != nil || frame.Kind == wire.KindPad {
			break
		}
		if b = rest; frame.Kind == wire.KindData && frame.Flow == uint64(of.id) {
			n++
		}
	}
	return n
}

// plainPieces is the same by one TCP connection over the first line.
func (g terrain) plainPieces(size int, every time.Duration, seed uint64, out *piecesOutcome) {
	m := newBareSim(seed, variant{}.kinds)
	lines := [2]*simlink.Line{m.line(g.lines[0], 100*seed+1), m.line(g.lines[0], 100*seed+2)}
	tcp := m.NewTCP(lines[0], lines[1])
	warm, got := m.Now().Add(piecesWarm), 0
	var next func()
	next = func() {
		at := m.Now()
		tcp.Send(size, func() {
			if m.Now().Before(warm) {
				out.start = append(out.start, m.Now().Sub(at))
				return
			}
			out.took = append(out.took, m.Now().Sub(at))
			got += size
		})
		m.After(every, next)
	}
	next()
	m.Run(m.Now().Add(piecesFor), nil)
	out.goodput = append(out.goodput, float64(got)/mbit/(piecesFor-piecesWarm).Seconds())
}

// TestPieces prints what comes of flows that write steadily in small pieces, and in large
// ones at the same rate, and by one TCP connection over the first line.
func TestPieces(t *testing.T) {
	if !*piecesOn {
		t.Skip("prints a table: -args -pieces")
	}
	const ms, seeds = time.Millisecond, 2
	fast, slow := lineSpec{mbit: 50, rtt: 20 * ms}, lineSpec{mbit: 30, rtt: 50 * ms}
	lossy, lossySlow := fast, slow
	lossy.loss, lossySlow.loss = 0.005, 0.005
	for _, g := range []terrain{
		{name: "50+30", lines: []lineSpec{fast, slow}},
		{name: "50", lines: []lineSpec{fast}},
		{name: "50+30, 0.5 % loss", lines: []lineSpec{lossy, lossySlow}},
	} {
		for _, rate := range []float64{10, 20, 40, 60, 70, 75} {
			for _, size := range []int{1400, 14000} {
				every := time.Duration(float64(size) / (rate * mbit) * float64(time.Second))
				var o, plain piecesOutcome
				for seed := range uint64(seeds) {
					g.pieces(size, every, seed+1, &o)
					g.plainPieces(size, every, seed+1, &plain)
				}
				t.Logf("%-17s %2.0f Mbit/s by %5d B: %.1f, p50 %.0f p99 %.0f ms, before p99 %.0f; per MB %.0f records, %.0f urgent, %.3f twice; plain TCP %.1f, %.0f %.0f ms, before %.0f",
					g.name, rate, size, mean(o.goodput), quantile(o.took, 0.5), quantile(o.took, 0.99), quantile(o.start, 0.99), o.records/seeds, o.urgent/seeds, o.again/seeds,
					mean(plain.goodput), quantile(plain.took, 0.5), quantile(plain.took, 0.99), quantile(plain.start, 0.99))
			}
		}
	}
}
