//go:build !race

package nonblock

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TCPInfo is getsockopt(2) of TCP_INFO.
func TCPInfo(fd int, info *unix.TCPInfo) error {
	return get(fd, unix.IPPROTO_TCP, unix.TCP_INFO, unsafe.Pointer(info), unsafe.Sizeof(*info))
}

// GetInt is getsockopt(2) of an option that is a number.
func GetInt(fd, level, name int) (int, error) {
	var value int32
	err := get(fd, level, name, unsafe.Pointer(&value), unsafe.Sizeof(value))
	return int(value), err
}

// SetInt is setsockopt(2) of an option that is a number.
func SetInt(fd, level, name, value int) error {
	v := int32(value)
	return set(fd, level, name, unsafe.Pointer(&v), unsafe.Sizeof(v))
}

// SetLinger is setsockopt(2) of SO_LINGER.
func SetLinger(fd int, linger unix.Linger) error {
	return set(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
}

// Shutdown is shutdown(2).
func Shutdown(fd, how int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
	return failure(errno)
}

// Close is close(2) of a socket that does not linger.
func Close(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return failure(errno)
}

func get(fd, level, name int, value unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), uintptr(unsafe.Pointer(&n)), 0)
	return failure(errno)
}

func set(fd, level, name int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), size, 0)
	return failure(errno)
}

func failure(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// CPUTime is the processor time that the process has used.
func CPUTime() time.Duration {
	var ts unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_PROCESS_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0) // cannot fail
	return time.Duration(ts.Nano())
}
