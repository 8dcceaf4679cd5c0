package agent

import (
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/link"
)

// line is what a connection's figures are made of.
type line struct {
	down, up float64 // Mbit/s
	loss     float64 // share, each way
	rtt      time.Duration
}

// figures are those of a connection that has stood for some time.
func (l line) figures(stood time.Duration) link.Stats {
	down, up := l.down*1e6/8*stood.Seconds(), l.up*1e6/8*stood.Seconds()
	came := down / thinPacket
	w := max(l.down*1e6/8*l.rtt.Seconds()/thinPacket, 1)
	return link.Stats{
		RTT: l.rtt, BytesIn: uint64(down), BytesOut: uint64(up), DataIn: uint64(came),
		Reordered: uint64(came * (1 - math.Pow(1-l.loss, w))), Lost: uint64(up / thinPacket * l.loss),
	}
}

const ms = time.Millisecond

// TestThin: what loses as much as where it is policed looks so, one way or the other, after some
// looks under load; what loses as radio lines do, or is asked for little, does not.
func TestThin(t *testing.T) {
	for name, c := range map[string]struct {
		line
		want bool
	}{
		"policed down":     {line{2, 0.05, 0.2, 45 * ms}, true},
		"policed up":       {line{0.05, 2, 0.2, 45 * ms}, true},
		"policed quick":    {line{20, 0.2, 0.12, 20 * ms}, true},
		"well":             {line{19, 0.3, 0, 60 * ms}, false},
		"1 %":              {line{50, 0.5, 0.01, 20 * ms}, false},
		"3 %, far":         {line{30, 0.3, 0.03, 200 * ms}, false},
		"3 %, slow and up": {line{0.1, 3, 0.03, 80 * ms}, false},
		"at rest":          {line{0.1, 0.1, 0.3, 45 * ms}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var th thin
			begin := time.Now()
			for i := range thinLooks + 1 {
				at := time.Duration(i) * thinEvery
				if got, want := th.look(begin.Add(at), c.figures(at)), c.want && i == thinLooks; got != want {
					t.Errorf("look %d: %v, want %v", i, got, want)
				}
			}
			next := begin.Add((thinLooks + 1) * thinEvery)
			if th.look(next, link.Stats{}) || th.row != 0 {
				t.Error("another connection's figures look policed")
			}
		})
	}
}

// TestPolicedIsTriedSoon: a link that looks policed tries its other transport after some
// seconds, and so does one that is loaded by QUIC, of which nothing tells, unless that was
// chosen under load; and not again before they would if they were loaded. One that is well does
// when that is due.
func TestPolicedIsTriedSoon(t *testing.T) {
	well := line{19, 0.3, 0, 60 * ms}
	for name, c := range map[string]struct {
		line
		by, proven link.Transport
		soon       bool
	}{
		"policed":              {line{2, 0.05, 0.2, 45 * ms}, link.TCP, "", true},
		"well":                 {well, link.TCP, "", false},
		"quic chosen at rest":  {well, link.QUIC, "", true},
		"quic proven":          {well, link.QUIC, link.QUIC, false},
		"quic proven, policed": {line{0.05, 2, 0.2, 45 * ms}, link.QUIC, link.QUIC, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUplink(0, "a", &tunnels{log: slog.New(slog.DiscardHandler)})
				u.chooser = chooser{trials: trialsEvery(10 * time.Minute), dialer: new(link.Dialer), proven: c.proven}
				u.chooser.schedule(u.chooser.first)
				begin := time.Now()
				now := serving{transport: c.by, ended: make(chan struct{}), stats: func() link.Stats { return c.figures(time.Since(begin)) }}
				if u.watch(t.Context(), now) {
					t.Fatal("another connection is wanted")
				}
				if took := time.Since(begin); c.soon != (took < 15*time.Second) || !c.soon && took < 2*time.Minute {
					t.Errorf("tried after %v", took)
				}
				if !c.soon {
					return
				}
				u.chooser.thin, u.chooser.due = thin{}, nil // a trial, of which nothing came
				first := time.Now()
				if u.watch(t.Context(), now) {
					t.Fatal("another connection is wanted")
				}
				if took := time.Since(first); took < 10*time.Minute-thinEvery {
					t.Errorf("tried again %v later", took)
				}
			})
		})
	}
}
