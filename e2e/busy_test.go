package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"hawser/e2e/lab"
)

const (
	calmClock = 20 * time.Millisecond // a sleeper's delay in a machine that has time
	// calmWait is the share of the time in which threads of an agent have waited
	// for a processor, added up, in a machine that has time.
	calmWait = 0.25
	// mostOthers is the share of the processors that is too much for a measurement
	// to mean anything when programs outside of the test take it.
	mostOthers = 1.0 / 3
)

// lateness is how busy the machine was during a measurement.
type lateness struct {
	worst  time.Duration // of the test and the emulator
	waited float64       // by an agent's threads, share of the time
	others float64       // used by programs outside of the test, share of all processors
}

func (l lateness) busy() bool { return l.worst >= calmClock || l.waited >= calmWait }

func (l lateness) hopeless() bool { return l.busy() && l.others >= mostOthers }

func (l lateness) String() string {
	return fmt.Sprintf("the machine was late by %v at worst, an agent waited for it %.0f %% of the time, others took %.0f %% of it",
		l.worst.Round(ms), l.waited*100, l.others*100)
}

// watch looks at the machine during a measurement.
type watch struct {
	r     *rig
	begin time.Time
	waits waits
	used  map[int]time.Duration
	all   time.Duration
	done  chan struct{}
	slept chan time.Duration
}

func (r *rig) watch(t *testing.T) *watch {
	t.Helper()
	r.forgetLateness(t)
	w := &watch{r: r, begin: time.Now(), waits: r.waits(), used: r.used(t), all: processors(t), done: make(chan struct{}), slept: make(chan time.Duration, 1)}
	go oversleep(w.done, w.slept)
	return w
}

func (w *watch) end(t *testing.T) lateness {
	t.Helper()
	close(w.done)
	took := time.Since(w.begin).Seconds()
	others := processors(t) - w.all
	for pid, used := range w.r.used(t) {
		others -= used - w.used[pid]
	}
	return lateness{
		worst:  max(<-w.slept, w.r.lateness(t)),
		waited: w.r.waits().since(w.waits).Seconds() / took,
		others: max(0, others.Seconds()) / took / float64(runtime.NumCPU()),
	}
}

// agents are those that have been started last.
func (r *rig) agents() (procs []*lab.Proc) {
	if r.pair == nil {
		return nil
	}
	for _, p := range []*lab.Proc{r.pair.Edge, r.pair.Cloud} {
		if p != nil {
			procs = append(procs, p)
		}
	}
	return procs
}

// used is the processor time of the test, the emulator and the agents so far.
func (r *rig) used(t *testing.T) map[int]time.Duration {
	t.Helper()
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		t.Fatal(err)
	}
	used := map[int]time.Duration{os.Getpid(): time.Duration(self.Utime.Nano() + self.Stime.Nano())}
	for _, p := range append(r.agents(), r.Emulator()) {
		if p == nil {
			continue
		}
		if user, system, err := p.CPU(); err == nil {
			used[p.Pid()] = user + system
		}
	}
	return used
}

// processors is what all processors have spent on programs so far, and on other
// machines on this one's host: user, nice, system and steal of proc(5).
func processors(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	var name string
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &name, &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+nice+system+steal) * tick
}

// waits are how long threads have waited for a processor, by process and thread.
type waits map[int]map[string]time.Duration

// waits reads them for the agents that run. Where the kernel does not count them
// there are none.
func (r *rig) waits() waits {
	w := waits{}
	for _, p := range r.agents() {
		threads := map[string]time.Duration{}
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.Pid()))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil { // the thread has ended
				continue
			}
			var ran, waited int64 // nanoseconds
			if n, _ := fmt.Sscan(string(text), &ran, &waited); n == 2 {
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
