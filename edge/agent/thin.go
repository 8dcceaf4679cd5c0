package agent

import (
	"math"
	"time"

	"hawser/pkg/link"
	"hawser/scheduler"
)

// When a transport looks as if it was policed: a token bucket without a queue drops what is
// beyond its rate, for as long as there is a load.
const (
	thinEvery  = 2500 * time.Millisecond // between looks
	thinLooks  = 4                       // in a row that must find it so
	thinLoss   = 0.08                    // share of packets that are lost; radio lines lose 1 or 2 in a hundred
	thinTells  = 0.97                    // share that comes after a gap which still tells of one
	thinPacket = 1400                    // bytes of one, about
)

// thin finds out whether a link's connection looks policed, look by look. It is no proof: an
// uplink may lose as much whatever the transport. The trial that it brings forward measures.
type thin struct {
	last link.Stats
	at   time.Time // zero: no look yet
	row  int       // looks in a row that found it policed
	busy int       // looks in a row that found it loaded
}

// look takes in a connection's figures and reports whether it has looked policed for long.
func (t *thin) look(now time.Time, s link.Stats) bool {
	was, at := t.last, t.at
	t.last, t.at = s, now
	took := now.Sub(at)
	if at.IsZero() || took < thinEvery/2 || s.BytesIn < was.BytesIn {
		t.row, t.busy = 0, 0
		return false
	}
	up, down := float64(s.BytesOut-was.BytesOut)/took.Seconds(), float64(s.BytesIn-was.BytesIn)/took.Seconds()
	if m := (scheduler.Measure{Rate: up + down}); !m.Loaded() {
		t.row, t.busy = 0, 0
		return false
	}
	t.busy++
	if max(t.lost(was, up, took), t.missed(was, down)) >= thinLoss {
		t.row++
	} else {
		t.row = 0
	}
	return t.row >= thinLooks
}

// lost is the share of packets that were lost on their way up, if most of the load is that.
func (t *thin) lost(was link.Stats, up float64, took time.Duration) float64 {
	sent := up * took.Seconds() / thinPacket
	if up < t.least() || t.last.Lost < was.Lost {
		return 0
	}
	return float64(t.last.Lost-was.Lost) / sent
}

// missed is about the share that was lost on the way down. What follows a lost packet within a
// round trip comes after a gap, so that of packets that come w to a round trip a share of
// 1-(1-p)^w does, where a share of p is lost. Where nearly all do, w is large and tells little.
func (t *thin) missed(was link.Stats, down float64) float64 {
	came := t.last.DataIn - was.DataIn
	if down < t.least() || came == 0 || t.last.Reordered < was.Reordered {
		return 0
	}
	after := min(float64(t.last.Reordered-was.Reordered)/float64(came), thinTells)
	w := max(down*t.last.RTT.Seconds()/thinPacket, 1)
	return 1 - math.Pow(1-after, 1/w)
}

// least is the rate from which on a direction counts, bytes per second.
func (t *thin) least() float64 { return scheduler.LoadedMin / 2 }

// looks ticks while there is another transport to try. Call stop afterwards.
func (c *chooser) looks() (_ <-chan time.Time, stop func()) {
	if c.dialer == nil {
		return nil, func() {}
	}
	t := time.NewTicker(thinEvery)
	return t.C, t.Stop
}

// looksPoliced looks at a connection, and reports whether a trial is wanted now for that:
// no oftener than trials are made of a link that is loaded. By QUIC nothing here tells of
// packets that are lost on the way down. So that is tried as soon where it was not chosen for
// what it carries: it may have been for a few milliseconds at rest, hours before the next trial.
func (u *uplink) looksPoliced(now serving) bool {
	c, at := &u.chooser, time.Now()
	if isClosed(now.ended) || u.silent.Load() {
		return false
	}
	why := ""
	if c.thin.look(at, now.stats()) {
		why = "the link loses as much as if it was policed: the other transport is tried now"
	} else if now.transport == link.QUIC && c.proven != link.QUIC && c.thin.busy >= thinLooks {
		why = "the link is loaded, and its transports were not compared so: the other one is tried now"
	}
	if why == "" || !c.tried.IsZero() && at.Sub(c.tried) < c.every {
		return false
	}
	c.tried = at
	u.log.Info(why, "transport", now.transport)
	return true
}
