// Package park says when a goroutine that waits for a descriptor had better
// not park yet.
//
// While all processors are busy, Go's scheduler looks at its netpoller only
// every 10 ms: a goroutine that parks on a socket then is told of new bytes as
// late as that. Such a goroutine lets the others run and looks again instead,
// for as long as the others have much to do; on an idle machine it parks. So it does, too,
// when it has found nothing for a while: some dozens that only look would keep each other
// awake for good.
//
// The package starts no goroutines.
package park

import (
	"runtime"
	"time"
)

// contendedTime is how long others must have run for a call of the scheduler
// to count as contended. Less would let several goroutines that only look at
// their sockets keep each other awake.
const contendedTime = 20 * time.Microsecond

// patience is how long a goroutine looks in vain. What comes later may be told of 10 ms
// late; most round trips are shorter.
const patience = 50 * time.Millisecond

// Contended lets other goroutines run, and says whether they had much to do:
// then the caller should look at its descriptor again before it parks.
func Contended() bool {
	start := time.Now()
	runtime.Gosched()
	return time.Since(start) > contendedTime
}

// Look is one wait for a descriptor, from the first look in vain on. The zero value is ready.
type Look struct{ since time.Time }

// Again is Contended until the goroutine has looked for long enough.
func (l *Look) Again() bool { return Contended() && l.Patient() }

// Patient says whether the goroutine has not looked for long enough yet.
func (l *Look) Patient() bool {
	now := time.Now()
	if l.since.IsZero() {
		l.since = now
	}
	return now.Sub(l.since) < patience
}
