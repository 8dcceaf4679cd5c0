package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// pause is a stretch of silence and the bytes that end it.
type pause struct {
	wait time.Duration
	size int
}

// script is a reader that follows a list.
type script struct {
	list []pause
	err  error // at its end
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.list) == 0 {
		return 0, s.err
	}
	next := s.list[0]
	s.list = s.list[1:]
	time.Sleep(next.wait)
	clear(p[:next.size])
	return next.size, nil
}

func TestGauge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		g := newGauge(100)
		// The wait for the first byte is longest, but it is no stall.
		go g.read(&script{list: []pause{{900 * ms, 10}, {20 * ms, 39}, {300 * ms, 1}, {50 * ms, 50}}, err: io.EOF})
		<-g.half
		if at := time.Since(g.begin); at != 1220*ms || g.got.Load() != 50 {
			t.Errorf("half at %v with %d bytes, want 50 at 1.22 s", at, g.got.Load())
		}
		<-g.done
		sum := sha256.Sum256(make([]byte, 100))
		if g.sum != hex.EncodeToString(sum[:]) || g.got.Load() != 100 || g.err != nil {
			t.Errorf("%d bytes, sum %s, %v", g.got.Load(), g.sum, g.err)
		}
		if g.stall != 300*ms || g.stalled != 920*ms || g.late != 50*ms || g.took != 1270*ms {
			t.Errorf("stall of %v at %v, later %v, took %v; want 300ms at 920ms, 50ms, 1.27s", g.stall, g.stalled, g.late, g.took)
		}
		if got, want := g.rate(), 800/1.27; got < want-1 || got > want+1 {
			t.Errorf("rate %v, want %v", got, want)
		}
	})
}

func TestGaugeReportsReadErrors(t *testing.T) {
	broken := errors.New("broken")
	g := newGauge(100)
	g.read(&script{list: []pause{{0, 10}}, err: broken})
	select {
	case <-g.half:
		t.Error("half of the file is there")
	default:
	}
	if !errors.Is(g.err, broken) || g.got.Load() != 10 {
		t.Errorf("%d bytes, %v", g.got.Load(), g.err)
	}
}

func TestWindow(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	w := &window{}
	if w.rate(0) != 0 {
		t.Error("a rate without readings")
	}
	w.add(at(0), 0, 1000)
	if w.rate(0) != 0 {
		t.Error("a rate from one reading")
	}
	for i := 1; i <= 10; i++ {
		w.add(at(200*i), uint64(i*i*1000), 1000)
	}
	// The last second is from the fifth reading to the tenth.
	if got := w.rate(0); got != 8*(100-25)*1000 || w.rate(1) != 0 {
		t.Errorf("rates %v and %v, want 600000 and 0", got, w.rate(1))
	}
	w.add(at(2200), 5, 1000)
	if w.rate(0) != 0 {
		t.Errorf("rate %v of a counter that began again", w.rate(0))
	}
}
