package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"hawser/e2e/pair"
)

// objectSamples is how often each object is fetched on each way.
const objectSamples = 200

// objectRow is the readings of one size on one way.
type objectRow struct {
	Bytes int       `json:"bytes"`
	Way   string    `json:"way"`
	Ms    []float64 `json:"ms"`
}

var objectWays = []struct {
	name string
	way  way
}{
	{"hawser", way{}},
	{"direct, cubic", way{direct: true, congestion: "cubic"}},
	{"direct, bbr", way{direct: true, congestion: "bbr"}},
}

// objects measures small objects over new connections. The ways take turns.
func (b *bench) objects() (*report, error) {
	l := twinLines()
	w, err := open(l.uplinks, pair.Options{})
	if err != nil {
		return nil, err
	}
	var rows []*objectRow
	for _, size := range []int{10_000, 100_000} {
		var more []*objectRow
		if more, err = b.fetchAll(w, size); err != nil {
			break
		}
		rows = append(rows, more...)
	}
	if err := errors.Join(err, w.close()); err != nil {
		return nil, err
	}
	r := &report{
		Title: fmt.Sprintf("objects: fetched over a new connection each, %s, ms from connect to the last byte", l.name),
		Head:  []string{"object", "way", "p50", "p90", "p99", "max"},
		Raw:   rows,
	}
	for _, row := range rows {
		r.add(fmt.Sprintf("%d KB", row.Bytes/1000), row.Way, quantileCell(row.Ms, 0.5), quantileCell(row.Ms, 0.9), quantileCell(row.Ms, 0.99), quantileCell(row.Ms, 1))
	}
	direct := min(quantile(rows[1].Ms, 0.5), quantile(rows[2].Ms, 0.5))
	r.Gates = []gate{{What: "p50 of 10 KB objects against the direct path's", Got: quantile(rows[0].Ms, 0.5), Want: direct, Most: true, Unit: " ms"}}
	return r, nil
}

func quantileCell(values []float64, q float64) string {
	return fmt.Sprintf("%.1f", quantile(values, q))
}

func (b *bench) fetchAll(w *world, size int) ([]*objectRow, error) {
	var rows []*objectRow
	for _, o := range objectWays {
		rows = append(rows, &objectRow{Bytes: size, Way: o.name})
	}
	for range objectSamples {
		for i, o := range objectWays {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			took, err := w.fetch(o.way, size)
			if err != nil {
				return nil, fmt.Errorf("fetch %d bytes, %s: %w", size, o.name, err)
			}
			rows[i].Ms = append(rows[i].Ms, millis(took))
		}
	}
	return rows, nil
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
