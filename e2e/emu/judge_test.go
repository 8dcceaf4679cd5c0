package emu_test

import (
	"fmt"
	"sync"
	"time"
)

// On a machine that gives the emulator its processor late, packets leave late, and
// what is measured then tells of the machine. The emulator counts this lateness
// itself. So a measurement that is out of its bounds while the emulator was late, or
// had to drop packets of its own, is made again; one that is out of bounds while the
// emulator kept its time fails at once.

const (
	maxTries = 5
	// punctual is the lateness up to which the bounds of the tests hold as they are.
	punctual = time.Millisecond
)

var paths = [...]string{"one", "two"}

// try is one run of a measurement. Its own complaints wait for the verdict.
type try struct {
	last bool

	mu         sync.Mutex
	complaints []string
}

// Errorf notes what is out of bounds.
func (r *rig) Errorf(format string, args ...any) {
	r.try.mu.Lock()
	defer r.try.mu.Unlock()
	r.try.complaints = append(r.try.complaints, fmt.Sprintf(format, args...))
}

// judge runs a measurement until it is within its bounds or can be blamed.
func (r *rig) judge(test func(*rig)) {
	for n := 1; ; n++ {
		r.try = &try{last: n == maxTries}
		for _, path := range paths {
			if err := r.l.ForgetLateness(path); err != nil {
				r.Fatal(err)
			}
		}
		faults := r.faults()
		test(r)
		late := r.late()
		if dropped := r.faults() - faults; dropped > 0 {
			r.Errorf("the emulator itself dropped %d packets", dropped)
			late = max(late, 2*punctual)
		}
		r.Logf("try %d: the emulator was at worst %v late", n, late)
		if len(r.try.complaints) == 0 {
			return
		}
		if r.try.last || late <= punctual {
			for _, c := range r.try.complaints {
				r.T.Error(c)
			}
			return
		}
		r.Logf("once more, that was no fair measurement: %q", r.try.complaints)
		time.Sleep(time.Duration(n) * 500 * ms)
	}
}

// late is how late the emulator let a packet go since this try began, at worst.
func (r *rig) late() (worst time.Duration) {
	r.Helper()
	for _, path := range paths {
		up, down := r.counters(path)
		worst = max(worst, up.Late.Worst, down.Late.Worst)
	}
	return worst
}

// slack widens a bound in the last try: by the measured lateness where there was any.
func (r *rig) slack() time.Duration {
	r.Helper()
	if late := r.late(); r.try.last && late > punctual {
		return late
	}
	return 0
}

func (r *rig) faults() (n uint64) {
	r.Helper()
	for _, path := range paths {
		up, down := r.counters(path)
		n += up.Faults() + down.Faults()
	}
	return n
}
