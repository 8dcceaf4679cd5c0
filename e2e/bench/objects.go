package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"hawser/e2e/pair"
)

// objectKind is a size of object and how often it is fetched on each way. The
// bounds are those of issue 4's fifth gate.
type objectKind struct {
	bytes, samples int
	most           float64 // p50, ms; 0: no bound
	share          float64 // p50 as a multiple of the optimum, at most; 0: no bound
}

var objectKinds = []objectKind{
	{bytes: 10_000, samples: 200, most: 25},
	{bytes: 16_000, samples: 100, share: 1.3},
	{bytes: 100_000, samples: 100, share: 1.3},
	{bytes: 1_000_000, samples: 50, share: 1.3},
}

// objectRow is the readings of one size on one way.
type objectRow struct {
	Bytes   int       `json:"bytes"`
	Way     string    `json:"way"`
	Optimum float64   `json:"optimum_ms"`
	Ms      []float64 `json:"ms"`

	way  way
	kind objectKind
}

// share is the median as a multiple of the optimum.
func (r *objectRow) share() float64 { return quantile(r.Ms, 0.5) / r.Optimum }

// objects measures objects over new connections. The ways of one world take turns.
func (b *bench) objects() (*report, error) {
	l := twinLines()
	r := &report{
		Title: fmt.Sprintf("objects: fetched over a new connection each, %s, ms from connect to the last byte", l.name),
		Head:  []string{"object", "way", "p50", "p90", "p99", "max", "p50 / optimum"},
	}
	tcp, err := b.objectsOver(l, "tcp", []objectRow{
		{Way: "hawser, TCP links"},
		{Way: "direct, cubic", way: way{direct: true, congestion: "cubic"}},
		{Way: "direct, bbr", way: way{direct: true, congestion: "bbr"}},
	})
	if err != nil {
		return nil, err
	}
	quic, err := b.objectsOver(l, "quic", []objectRow{{Way: "hawser, QUIC links"}})
	if err != nil {
		return nil, err
	}
	for i, k := range objectKinds {
		rows := append(tcp[i], quic[i]...)
		for _, row := range rows {
			r.add(fmt.Sprintf("%d KB", row.Bytes/1000), row.Way, quantileCell(row.Ms, 0.5), quantileCell(row.Ms, 0.9), quantileCell(row.Ms, 0.99), quantileCell(row.Ms, 1), fmt.Sprintf("%.2f", row.share()))
		}
		direct := min(quantile(rows[1].Ms, 0.5), quantile(rows[2].Ms, 0.5))
		for _, row := range []*objectRow{rows[0], rows[3]} {
			r.Gates = append(r.Gates, k.gates(row, direct)...)
		}
	}
	r.Raw = [2][][]*objectRow{tcp, quic}
	r.Notes = append(r.Notes, "the optimum knows everything before: a round trip and the bytes at both uplinks' full rate")
	return r, nil
}

// gates are what the pair's median is held to; direct is the direct path's.
func (k objectKind) gates(row *objectRow, direct float64) (out []gate) {
	p50 := quantile(row.Ms, 0.5)
	what := fmt.Sprintf("%s, p50 of %d KB objects", row.Way, k.bytes/1000)
	out = append(out, gate{What: what + " against the direct path's", Got: p50, Want: direct, Most: true, Unit: " ms"})
	if k.most > 0 {
		out = append(out, gate{What: what, Got: p50, Want: k.most, Most: true, Unit: " ms"})
	}
	if k.share > 0 {
		out = append(out, gate{What: what + " / optimum", Got: row.share(), Want: k.share, Most: true})
	}
	return out
}

func quantileCell(values []float64, q float64) string {
	return fmt.Sprintf("%.1f", quantile(values, q))
}

// objectsOver fetches all kinds of objects on the given ways, over links of one
// transport; the result is by kind and way.
func (b *bench) objectsOver(l lines, transport string, ways []objectRow) (all [][]*objectRow, err error) {
	w, err := open(l.uplinks, pair.Options{Transport: transport})
	if err != nil {
		return nil, err
	}
	for _, k := range objectKinds {
		var rows []*objectRow
		for _, row := range ways {
			row.Bytes, row.kind, row.Optimum = k.bytes, k, millis(optimum(l.uplinks, k.bytes))
			rows = append(rows, &row)
		}
		if err = b.fetchAll(w, rows); err != nil {
			break
		}
		all = append(all, rows)
	}
	return all, errors.Join(err, w.close())
}

func (b *bench) fetchAll(w *world, rows []*objectRow) error {
	for range rows[0].kind.samples {
		for _, row := range rows {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			took, err := w.fetch(row.way, row.Bytes)
			if err != nil {
				return fmt.Errorf("fetch %d bytes, %s: %w", row.Bytes, row.Way, err)
			}
			row.Ms = append(row.Ms, millis(took))
		}
	}
	return nil
}

// fetchLimit bounds one object.
const fetchLimit = 20 * time.Second

// fetch gets size bytes over a new connection and returns how long that took.
func (w *world) fetch(v way, size int) (time.Duration, error) {
	c, began, err := w.dial(v)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(fetchLimit)); err != nil {
		return 0, err
	}
	q := request{kind: download, bytes: uint64(size), congestion: v.congestion}
	if _, err := c.Write(q.encode()); err != nil {
		return 0, err
	}
	n, err := io.CopyN(io.Discard, c, int64(size))
	if err != nil {
		return 0, fmt.Errorf("after %d bytes: %w", n, err)
	}
	return time.Since(began), nil
}
