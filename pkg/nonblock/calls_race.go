//go:build race

package nonblock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2).
func Read(fd int, p []byte) (int, error) {
	n, err := unix.Read(fd, p)
	return max(n, 0), err
}

// Write is write(2).
func Write(fd int, p []byte) (int, error) {
	n, err := unix.Write(fd, p)
	return max(n, 0), err
}

// Poll is epoll_wait(2) that takes what there is.
func Poll(epoll int, events []unix.EpollEvent) (int, error) {
	n, err := unix.EpollWait(epoll, events, 0)
	return max(n, 0), err
}

func (v *Vectors) call(call uintptr, fd int, bufs [][]byte) (int, error) {
	io := unix.Writev
	if call == unix.SYS_READV {
		io = unix.Readv
	}
	n, err := io(fd, bufs[:min(len(bufs), MaxVectors)])
	return max(n, 0), err
}

// Mmsg is recvmmsg(2) or sendmmsg(2) with MSG_DONTWAIT of count message
// headers; the caller keeps alive what they point to.
func Mmsg(call, fd uintptr, msgs unsafe.Pointer, count int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(call, fd, uintptr(msgs), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// Sendmsg is sendmsg(2) with MSG_DONTWAIT; the caller keeps alive what msg points
// to.
func Sendmsg(fd uintptr, msg *unix.Msghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(msg)), unix.MSG_DONTWAIT)
	return int(n), errno
}
