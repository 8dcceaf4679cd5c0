// Package procs decides how many processors an agent's goroutines may use: one
// while that is enough, all otherwise.
//
// A message that passes an agent makes a goroutine or two ready. Each time Go's
// scheduler wakes an idle thread as well, to look for more to do, as long as a
// processor is free. There is nothing more while traffic is light: the threads cost
// as much as all the rest of the message, and its latency. With one processor there
// is no thread to wake.
//
// The package starts no goroutines.
package procs

import "time"

// Constants of Gauge.
const (
	// Window is the least time between two looks.
	Window = 5 * time.Millisecond
	// enough is the share of one processor that is left to one.
	enough = 0.85
	// spent is the share below which one would have been enough for what several
	// do: they spend more on the same.
	spent = 0.7
	// rest is how long that must have been so.
	rest = time.Second
	// waits is how often, in a window, somebody must have waited for others to
	// make one processor too few whatever its share: other programs may have taken
	// the rest.
	waits = 4
	// between is the most time between two timers that were late, LateBy or more,
	// which together say that other programs want the processors: then several
	// threads get a larger part of them than one.
	between = 250 * time.Millisecond
	LateBy  = 2 * time.Millisecond
)

// Load is what the process has done since its start.
type Load struct {
	CPU time.Duration // processor time used
	// Of those who were about to wait for a descriptor, so many found that others
	// had much to do, and so many that nobody had.
	Contended, Calm uint64
	Late            uint64 // timers that fired late
}

// Gauge chooses the number of processors by the load. The zero Gauge is of no use.
type Gauge struct {
	all, now int
	at       time.Time // of the last look
	last     Load
	lateAt   time.Time // when a timer was last found late
	until    time.Time // while all are in use: when they stop being, unless that is put off
}

// NewGauge returns a gauge for so many processors, all of which are in use.
func NewGauge(all int, now time.Time, l Load) *Gauge {
	return &Gauge{all: all, now: all, at: now, last: l, until: now.Add(rest)}
}

// Look takes in the load and returns how many processors there should be. Looks
// that follow each other in less than Window say nothing.
func (g *Gauge) Look(now time.Time, l Load) int {
	span := now.Sub(g.at)
	if span < Window {
		return g.now
	}
	share := (l.CPU - g.last.CPU).Seconds() / span.Seconds()
	contended, calm := l.Contended-g.last.Contended, l.Calm-g.last.Calm
	crowded := contended >= waits && contended > calm
	if late := l.Late - g.last.Late; late > 0 {
		crowded = crowded || late > 1 || now.Sub(g.lateAt) < between
		g.lateAt = now
	}
	g.at, g.last = now, l
	switch {
	case g.now == 1 && (share > enough || crowded):
		g.now, g.until = g.all, now.Add(rest)
	case g.now > 1 && (share > spent || crowded):
		g.until = now.Add(rest)
	case g.now > 1 && now.After(g.until):
		g.now = 1
	}
	return g.now
}
