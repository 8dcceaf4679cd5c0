// Package nonblock makes system calls on non-blocking descriptors without
// telling Go's scheduler.
//
// An ordinary system call tells it, so that another thread can go on if the
// call blocks. A call that takes longer than 20 us counts as one that blocks:
// the runtime's monitor gives the processor to another thread and looks again
// every 20 us from then on, and the caller must win a processor back. Sending
// to a veth takes that long, because the kernel does the receiver's work in it,
// and never blocks: all of this would be for nothing.
//
// Only calls that return EAGAIN instead of waiting may be made so. Under the
// race detector the calls are ordinary ones, which tell it what they touch.
//
// The package starts no goroutines.
package nonblock

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// MaxVectors is how many pieces one Readv or Writev takes: UIO_MAXIOV.
const MaxVectors = 1024

// Vectors is the memory of Readv and Writev, so that they allocate nothing. It
// belongs to one caller at a time; the zero value is ready.
type Vectors struct{ iovs []unix.Iovec }

// point describes at most MaxVectors of bufs; empty ones are left out.
func (v *Vectors) point(bufs [][]byte) []unix.Iovec {
	v.iovs = v.iovs[:0]
	for _, p := range bufs {
		if len(p) == 0 {
			continue
		}
		if len(v.iovs) == MaxVectors {
			break
		}
		iov := unix.Iovec{Base: &p[0]}
		iov.SetLen(len(p))
		v.iovs = append(v.iovs, iov)
	}
	return v.iovs
}

// Readv is readv(2).
func (v *Vectors) Readv(fd int, bufs [][]byte) (int, error) {
	return v.call(unix.SYS_READV, fd, bufs)
}

// Writev is writev(2) of the first MaxVectors of bufs.
func (v *Vectors) Writev(fd int, bufs [][]byte) (int, error) {
	return v.call(unix.SYS_WRITEV, fd, bufs)
}

// scope is the kernel's number of an address's zone; 0 is none.
func scope(a netip.Addr) uint32 {
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}
