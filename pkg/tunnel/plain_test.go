package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/simlink"
	"hawser/pkg/wire"
)

// TestLargeRecords: records are larger than they used to be where a link is fast and the
// peer takes them, and nowhere else.
func TestLargeRecords(t *testing.T) {
	for _, c := range []struct {
		name        string
		version     uint16
		mbit        float64
		least, most int // plain bytes of a record
	}{
		{"fast", wire.VersionLarge, 1000, 40 << 10, plainMost},
		{"fast, an older peer", wire.VersionLarge - 1, 1000, buffer.Plain, buffer.Plain},
		{"of 100 Mbit/s", wire.VersionLarge, 100, buffer.Plain, buffer.Plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.close()
				w.version = c.version
				w.pairs = append(w.pairs, nil)
				w.connect(0, simlink.Spec{Rate: c.mbit * 125_000, Delay: 2 * time.Millisecond, Queue: 256 << 10})
				w.serve(int(c.mbit * 125_000)) // what takes a second
				w.open(1000).await(10 * time.Second)
				if n := w.cloud.s.Record(); n < c.least || n > c.most {
					t.Errorf("records of up to %d bytes", n)
				}
				if n := w.edge.s.Record(); n != buffer.Plain {
					t.Errorf("records of up to %d bytes where little is sent", n)
				}
				w.gone()
			})
		})
	}
}

// TestChunkSize: a chunk takes a slow link ten milliseconds, holds an ordinary record where
// a link is quicker, and one that a fast link carries in 0.4 ms.
func TestChunkSize(t *testing.T) {
	for _, c := range []struct {
		mbit float64
		want int
	}{
		{0, chunkMin}, {0.5, chunkMin}, {8, 10_000}, {13, 16_250}, {14, ordinary}, {250, ordinary},
		{300, ordinary}, {400, 20_000 + buffer.Slack}, {1000, wire.MaxBody}, {100_000, wire.MaxBody},
	} {
		if n := chunkSize(c.mbit * 125_000); n != c.want {
			t.Errorf("%v Mbit/s: %d bytes, want %d", c.mbit, n, c.want)
		}
	}
}
