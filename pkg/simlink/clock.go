package simlink

import (
	"time"
	"unsafe"
)

// Stepped is the moment t as the host's clock tells it after it was set forward by so
// many seconds, or back: a time whose distance from others that time.Now has returned is
// unchanged. t must be one of these.
func Stepped(t time.Time, seconds int) time.Time {
	// The upper bit says that there is a monotonic reading, in the second word; 33 bits
	// of seconds and 30 of nanoseconds are the clock's.
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(int64(seconds)) << 30
	return t
}
