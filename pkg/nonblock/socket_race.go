//go:build race

package nonblock

import (
	"time"

	"golang.org/x/sys/unix"
)

// TCPInfo is getsockopt(2) of TCP_INFO.
func TCPInfo(fd int, info *unix.TCPInfo) error {
	got, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err == nil {
		*info = *got
	}
	return err
}

// GetInt is getsockopt(2) of an option that is a number.
func GetInt(fd, level, name int) (int, error) { return unix.GetsockoptInt(fd, level, name) }

// SetInt is setsockopt(2) of an option that is a number.
func SetInt(fd, level, name, value int) error { return unix.SetsockoptInt(fd, level, name, value) }

// SetLinger is setsockopt(2) of SO_LINGER.
func SetLinger(fd int, linger unix.Linger) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger)
}

// Shutdown is shutdown(2).
func Shutdown(fd, how int) error { return unix.Shutdown(fd, how) }

// Close is close(2) of a socket that does not linger.
func Close(fd int) error { return unix.Close(fd) }

// CPUTime is the processor time that the process has used.
func CPUTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // cannot fail
	return time.Duration(ts.Nano())
}
