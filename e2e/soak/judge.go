package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// figures are what an agent holds at a moment, edge and cloud.
type figures struct {
	at         time.Duration
	resident   [2]int64 // bytes
	fds        [2]int
	goroutines [2]uint64
}

const (
	// watchEvery is how often figures are read, reportEvery how often printed.
	watchEvery, reportEvery = 2 * time.Second, 30 * time.Second
	// settleTime is how long agents may take to give memory back in the end.
	settleTime = 30 * time.Second
	// growth and slack bound resident memory: the median of the last third of
	// the run against that of the second, and the end against the middle.
	growth, slack = 1.15, 8 << 20
	// longRun is how long a run must be for its thirds to be compared: before,
	// the agents have not yet held what their load makes them hold.
	longRun = 10 * time.Minute
	// moreFiles may be there in the end beyond the start.
	moreFiles = 8
	// handshakers and perLink are the goroutines that may have come since the start for good:
	// those that wait for the next handshake (pkg/split, porters), and what an uplink has more
	// with a link of the other transport, or with urgent connections, than it had then.
	handshakers, perLink = 8, 6
	// moreGoroutines may be there in the end beyond the usual number in the second third.
	moreGoroutines = 12
)

var roles = [2]string{"edge", "cloud"}

// read reads the figures now.
func (s *soak) read() (f figures, err error) {
	f.at = time.Since(s.began)
	for i, role := range roles {
		p := s.pair.Edge
		if i == 1 {
			p = s.pair.Cloud
		}
		dir := fmt.Sprintf("/proc/%d/", p.Pid())
		text, err := os.ReadFile(dir + "statm")
		if err != nil {
			return f, err
		}
		pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
		if err != nil {
			return f, err
		}
		f.resident[i] = pages * int64(os.Getpagesize())
		files, err := os.ReadDir(dir + "fd")
		if err != nil {
			return f, err
		}
		f.fds[i] = len(files)
		status, err := s.pair.Status(role)
		if err != nil {
			return f, fmt.Errorf("%s: %w", role, err)
		}
		f.goroutines[i] = status.Counters["goroutines"]
	}
	return f, nil
}

func (s *soak) note() error {
	f, err := s.read()
	if err == nil {
		s.seen = append(s.seen, f)
	}
	return err
}

// watch notes figures until the time is over.
func (s *soak) watch() {
	printed := time.Now()
	for s.ctx.Err() == nil {
		pause(s.ctx, watchEvery)
		if err := s.note(); err != nil {
			s.failed.Add(1)
			s.complain(err.Error())
		}
		if time.Since(printed) > reportEvery {
			printed = time.Now()
			s.print(s.seen[len(s.seen)-1])
		}
	}
}

func (s *soak) print(f figures) {
	var flows int64
	for i := range s.done {
		flows += s.done[i].Load()
	}
	fmt.Printf("%5.0f s: %d flows, %d MB, %d failed; resident %.1f and %.1f MB, descriptors %d and %d, goroutines %d and %d\n", f.at.Seconds(), flows,
		s.bytes.Load()>>20, s.failed.Load(), mega(f.resident[0]), mega(f.resident[1]), f.fds[0], f.fds[1], f.goroutines[0], f.goroutines[1])
}

func mega(n int64) float64 { return float64(n) / (1 << 20) }

// judge waits until the agents rest and compares.
func (s *soak) judge() error {
	if err := s.pair.WaitIdle(settleTime); err != nil {
		return err
	}
	var last figures
	var err error
	for deadline := time.Now().Add(settleTime); ; time.Sleep(time.Second) {
		if last, err = s.read(); err != nil {
			return err
		}
		if len(s.leftover(last)) == 0 || time.Now().After(deadline) {
			break
		}
	}
	s.print(last)
	fmt.Printf("flows by kind (download, upload, echo, client abort, server abort): %v\n", counts(s.done[:]))
	fmt.Printf("faults (blackhole, one way, all, loss, rate, resets): %v\n", counts(s.faults[:]))
	bad := append(append(s.leftover(last), s.grown()...), s.cards()...)
	if n := s.failed.Load(); n > 0 {
		bad = append(bad, fmt.Errorf("%d failures", n))
	}
	return errors.Join(bad...)
}

func counts(c []atomic.Int64) (out []int64) {
	for i := range c {
		out = append(out, c[i].Load())
	}
	return out
}

// leftover compares the agents at rest with the start.
func (s *soak) leftover(last figures) (bad []error) {
	first := s.seen[0]
	for i, role := range roles {
		if last.fds[i] > first.fds[i]+moreFiles {
			bad = append(bad, fmt.Errorf("%s: %d descriptors at rest, %d at the start", role, last.fds[i], first.fds[i]))
		}
		if last.goroutines[i] > first.goroutines[i]+handshakers+perLink*uint64(len(lines())) {
			bad = append(bad, fmt.Errorf("%s: %d goroutines at rest, %d at the start", role, last.goroutines[i], first.goroutines[i]))
		}
		if usual := s.usual(i); last.at >= longRun && last.goroutines[i] > usual+moreGoroutines {
			bad = append(bad, fmt.Errorf("%s: goroutines grow: %d at rest, as a rule %d in the second third", role, last.goroutines[i], usual))
		}
		if middle := s.median(i, 1); float64(last.resident[i]) > growth*float64(middle)+slack {
			bad = append(bad, fmt.Errorf("%s: %.1f MB at rest, %.1f MB in the middle of the run", role, mega(last.resident[i]), mega(middle)))
		}
	}
	return bad
}

// grown compares the last third of the run with the one before it.
func (s *soak) grown() (bad []error) {
	for i, role := range roles {
		middle, end := s.median(i, 1), s.median(i, 2)
		fmt.Printf("%s: resident %.1f MB in the second third, %.1f MB in the last (medians)\n", role, mega(middle), mega(end))
		if s.seen[len(s.seen)-1].at >= longRun && float64(end) > growth*float64(middle)+slack {
			bad = append(bad, fmt.Errorf("%s: memory grows: %.1f MB in the second third, %.1f MB in the last", role, mega(middle), mega(end)))
		}
	}
	return bad
}

// usual is the lower quartile of an agent's goroutines in the second third of the run: flows
// have none of their own, so that it is what the links and workers need. Above are moments
// of races and aborted handshakes, and the least is one in which links were down.
func (s *soak) usual(agent int) uint64 {
	var seen []uint64
	for _, f := range s.third(1) {
		seen = append(seen, f.goroutines[agent])
	}
	if len(seen) == 0 {
		return s.seen[0].goroutines[agent]
	}
	slices.Sort(seen)
	return seen[len(seen)/4]
}

// third is a third of the run, 0 to 2.
func (s *soak) third(n int) []figures { return s.seen[len(s.seen)*n/3 : len(s.seen)*(n+1)/3] }

// median is that of an agent's memory in a third of the run.
func (s *soak) median(agent, third int) int64 {
	part := s.third(third)
	if len(part) == 0 {
		return 0
	}
	values := make([]int64, len(part))
	for i, f := range part {
		values[i] = f.resident[agent]
	}
	slices.Sort(values)
	return values[len(values)/2]
}
