// Package park says when a goroutine that waits for a descriptor had better
// not park yet.
//
// While all processors are busy, Go's scheduler looks at its netpoller only
// every 10 ms: a goroutine that parks on a socket then is told of new bytes as
// late as that. Such a goroutine lets the others run and looks again instead,
// for as long as the others have much to do; on an idle machine it parks.
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

// Contended lets other goroutines run, and says whether they had much to do:
// then the caller should look at its descriptor again before it parks.
func Contended() bool {
	start := time.Now()
	runtime.Gosched()
	return time.Since(start) > contendedTime
}
