package main

import (
	"fmt"
	"slices"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

func sortSteps(steps []step) {
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
}

// perform makes a scenario's changes at their times, until it is over or the
// bench is told to end.
func (b *bench) perform(l *lab.Lab, steps []step, began time.Time) error {
	for _, s := range steps {
		if wait := time.Until(began.Add(s.at)); wait > 0 {
			if err := b.sleep(wait); err != nil {
				return err
			}
		}
		if err := l.Set(s.uplink, s.dir, s.changes...); err != nil {
			return fmt.Errorf("at %v: %w", s.at, err)
		}
	}
	return nil
}

// grain is the resolution of capacity.
const grain = 5 * ms

// capacity is what the uplinks could have carried in the bulk flow's direction
// within d, in bytes, and how long at most none of them carried anything.
func (s scenario) capacity(d time.Duration) (bytes float64, allDead time.Duration, err error) {
	lines, err := s.lines()
	if err != nil {
		return 0, 0, err
	}
	next, dead := 0, time.Duration(0)
	for now := time.Duration(0); now < d; now += grain {
		for ; next < len(s.script) && s.script[next].at <= now; next++ {
			lines[s.script[next].uplink].apply(s.script[next])
		}
		some := 0.0
		for _, l := range lines {
			some += l.carries(now, now+grain)
		}
		bytes += some
		dead += grain
		if some > 0 {
			dead = 0
		}
		allDead = max(allDead, dead)
	}
	return bytes, allDead, nil
}

// line is an uplink's state in the bulk flow's direction.
type line struct {
	rate  float64 // bytes per second, without a trace
	trace *emu.Trace
	dead  bool
}

func (s scenario) lines() (map[string]*line, error) {
	lines := map[string]*line{}
	for _, u := range s.uplinks {
		l := &line{rate: float64(u.Rate) / 8}
		if s.up && u.Up != nil {
			l.rate = float64(u.Up.Rate) / 8
		}
		lines[u.Name] = l
	}
	for _, st := range s.script {
		file, ok := st.traceFile()
		if !ok || !s.concerns(st.dir) {
			continue
		}
		t, err := emu.LoadTrace(file)
		if err != nil {
			return nil, err
		}
		lines[st.uplink].trace = t
	}
	return lines, nil
}

func (s scenario) concerns(dir emu.Direction) bool {
	return dir == emu.Both || (dir == emu.Up) == s.up
}

// traceFile is the trace that a step sets.
func (s step) traceFile() (string, bool) {
	for _, c := range s.changes {
		if v, ok := c.Value("trace").(string); ok {
			return v, true
		}
	}
	return "", false
}

func (l *line) apply(s step) {
	for _, c := range s.changes {
		if v, ok := c.Value("rate").(int64); ok {
			l.rate = float64(v) / 8
		}
		if v, ok := c.Value("blackhole").(bool); ok {
			l.dead = v
		}
	}
}

// carries is how many bytes pass between two times.
func (l *line) carries(from, to time.Duration) float64 {
	switch {
	case l.dead:
		return 0
	case l.trace != nil:
		return l.trace.Bytes(from, to)
	}
	return l.rate * (to - from).Seconds()
}
