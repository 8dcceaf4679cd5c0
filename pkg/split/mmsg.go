package split

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	msg unix.Msghdr
	len uint32 // bytes received or sent
}

// point makes m describe iovs. The caller keeps iovs alive and in place for as
// long as m is in use.
func (m *mmsghdr) point(iovs []unix.Iovec) {
	m.msg.Iov = &iovs[0]
	m.msg.SetIovlen(len(iovs))
}

// iovec describes p, which is not empty.
func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	return v
}

// recvmmsg receives as many frames as there are, at most len(msgs).
func recvmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	return mmsg(unix.SYS_RECVMMSG, fd, msgs)
}

// sendmmsg sends msgs in order. The error is that of the first message; later
// ones only cut the count short.
func sendmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	return mmsg(unix.SYS_SENDMMSG, fd, msgs)
}

func mmsg(call, fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	for {
		n, errno := nonblock.Mmsg(call, fd, unsafe.Pointer(&msgs[0]), len(msgs))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return n, 0
	}
}
