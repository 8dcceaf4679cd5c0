package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// gauge measures a download at the client, while it runs. Other goroutines may
// look at got and wait for half and done; the other fields belong to read
// until done is closed.
type gauge struct {
	begin time.Time     // when curl was started
	size  int64         // bytes that are expected
	got   atomic.Int64  // bytes that have arrived
	half  chan struct{} // closed when half of them have
	done  chan struct{} // closed when read has returned

	sum     string        // SHA-256 of all that arrived, in hex
	took    time.Duration // from begin to the last byte
	stall   time.Duration // longest time without a byte, after the first one
	stalled time.Duration // when that began, since begin
	late    time.Duration // longest time without a byte in the second half
	err     error         // of reading; nil at the end of the stream
}

// newGauge makes a gauge for a download that begins now.
func newGauge(size int64) *gauge {
	return &gauge{begin: time.Now(), size: size, half: make(chan struct{}), done: make(chan struct{})}
}

// read takes curl's output to its end.
func (g *gauge) read(r io.Reader) {
	defer close(g.done)
	hash := sha256.New()
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			g.note(n, time.Since(g.begin))
			hash.Write(buf[:n])
		}
		if err != nil {
			g.sum = hex.EncodeToString(hash.Sum(nil))
			if !errors.Is(err, io.EOF) {
				g.err = err
			}
			return
		}
	}
}

// note counts n bytes that have arrived at the time now, since begin.
func (g *gauge) note(n int, now time.Duration) {
	before := g.got.Load()
	after := g.got.Add(int64(n))
	gap, middle := now-g.took, (g.size+1)/2
	if before > 0 && gap > g.stall {
		g.stall, g.stalled = gap, g.took
	}
	if before >= middle {
		g.late = max(g.late, gap)
	}
	g.took = now
	if before < middle && after >= middle {
		close(g.half)
	}
}

// rate is the mean rate of the whole download, in bit/s.
func (g *gauge) rate() float64 {
	return float64(g.got.Load()) * 8 / max(g.took.Seconds(), 1e-9)
}
