//go:build !race

package nonblock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2).
func Read(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return result(n, errno)
}

// Write is write(2).
func Write(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return result(n, errno)
}

// Poll is epoll_wait(2) that takes what there is.
func Poll(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return result(n, errno)
}

func (v *Vectors) call(call uintptr, fd int, bufs [][]byte) (int, error) {
	iovs := v.point(bufs)
	if len(iovs) == 0 {
		return 0, nil
	}
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&iovs[0])), uintptr(len(iovs)))
	clear(iovs) // no reference to a buffer outlives the call
	return result(n, errno)
}

func result(n uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Mmsg is recvmmsg(2) or sendmmsg(2) with MSG_DONTWAIT of count message
// headers; the caller keeps alive what they point to.
func Mmsg(call, fd uintptr, msgs unsafe.Pointer, count int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(call, fd, uintptr(msgs), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// Sendmsg is sendmsg(2) with MSG_DONTWAIT; the caller keeps alive what msg points
// to.
func Sendmsg(fd uintptr, msg *unix.Msghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(msg)), unix.MSG_DONTWAIT)
	return int(n), errno
}
