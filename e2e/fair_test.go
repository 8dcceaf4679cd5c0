package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hawser/e2e/lab"
)

// A measurement that is out of its bounds while the machine gave the test, the
// emulator or an agent no processor tells of the machine. It is made again, at
// most fairTries times in all; one that is out of bounds in a calm machine fails
// at once.
const (
	fairTries = 3
	calmClock = 20 * time.Millisecond // a sleeper's delay in a machine that has time
	// calmWait is the share of the time in which threads of an agent have waited
	// for a processor, added up, in a machine that has time.
	calmWait = 0.25
)

// fairly runs a measurement, which returns what is out of bounds.
func (r *rig) fairly(t *testing.T, measure func() []string) {
	t.Helper()
	for try := 1; ; try++ {
		r.forgetLateness(t)
		done, late := make(chan struct{}), make(chan time.Duration, 1)
		go oversleep(done, late)
		before, begin := r.waits(), time.Now()
		complaints := measure()
		close(done)
		worst, waited := max(<-late, r.lateness(t)), r.waits().since(before).Seconds()/time.Since(begin).Seconds()
		if len(complaints) == 0 {
			return
		}
		if try == fairTries || worst < calmClock && waited < calmWait {
			for _, c := range complaints {
				t.Error(c)
			}
			t.Logf("try %d: the machine was late by %v at worst, an agent waited for it %.0f %% of the time", try, worst, waited*100)
			return
		}
		t.Logf("once more, the machine was late by %v, an agent waited for it %.0f %% of the time: %q", worst, waited*100, complaints)
	}
}

// waits are how long threads have waited for a processor, by process and thread.
type waits map[int]map[string]time.Duration

// waits reads them for the agents that run. Where the kernel does not count them
// there are none.
func (r *rig) waits() waits {
	w := waits{}
	if r.pair == nil {
		return w
	}
	for _, p := range []*lab.Proc{r.pair.Edge, r.pair.Cloud} {
		if p == nil {
			continue
		}
		threads := map[string]time.Duration{}
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.Pid()))
		for _, file := range files {
			text, err := os.ReadFile(file)
			var ran, waited int64 // nanoseconds
			if n, _ := fmt.Sscan(string(text), &ran, &waited); err == nil && n == 2 {
				threads[file] = time.Duration(waited)
			}
		}
		w[p.Pid()] = threads
	}
	return w
}

// since is how long the threads of the process that waited most have done so.
func (w waits) since(before waits) (most time.Duration) {
	for pid, threads := range w {
		var sum time.Duration
		for thread, waited := range threads {
			sum += waited - before[pid][thread]
		}
		most = max(most, sum)
	}
	return most
}

// oversleep tells the longest delay of a sleeper until done is closed.
func oversleep(done <-chan struct{}, result chan<- time.Duration) {
	const nap = 5 * time.Millisecond
	var worst time.Duration
	for {
		begin := time.Now()
		select {
		case <-done:
			result <- worst
			return
		case <-time.After(nap):
			worst = max(worst, time.Since(begin)-nap)
		}
	}
}

// forgetLateness begins the emulator's lateness counters anew.
func (r *rig) forgetLateness(t *testing.T) {
	t.Helper()
	for _, name := range r.shaped() {
		if err := r.ForgetLateness(name); err != nil {
			t.Fatal(err)
		}
	}
}

// lateness is how late the emulator let a packet go, at worst.
func (r *rig) lateness(t *testing.T) (worst time.Duration) {
	t.Helper()
	for _, name := range r.shaped() {
		s, err := r.Counters(name)
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, s.Up.Counters.Late.Worst, s.Down.Counters.Late.Worst)
	}
	return worst
}

// shaped are the uplinks that the emulator carries.
func (r *rig) shaped() (names []string) {
	for _, u := range r.uplinks {
		if !u.Unshaped {
			names = append(names, u.Name)
		}
	}
	return names
}

// bounds collects what is out of bounds.
type bounds []string

// within checks one figure.
func (b *bounds) within(what string, got, most time.Duration) {
	if got > most {
		*b = append(*b, fmt.Sprintf("%s: %v, at most %v is wanted", what, got.Round(ms), most))
	}
}
