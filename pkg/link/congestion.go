package link

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// prefer asks for a congestion control. Without the module, or without the right to use
// it, the default stays: Info.Congestion shows which one it is.
func prefer(fd int, name string) {
	_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
}

// Congestion returns the congestion control of TCP links that begin here, and whether it
// is the one that they ask for.
func Congestion() (name string, wanted bool, err error) { return congestionFor(congestionControl) }

func congestionFor(wanted string) (string, bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", false, fmt.Errorf("congestion control: %w", err)
	}
	defer unix.Close(fd)
	prefer(fd, wanted)
	name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	if err != nil {
		return "", false, fmt.Errorf("congestion control: %w", err)
	}
	return name, name == wanted, nil
}

// bbrInfo is what BBR knows of a connection that it governs. Others have figures of their
// own where the kernel tells its.
func bbrInfo(fd int) (*unix.TCPBBRInfo, bool) {
	if name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || name != congestionControl {
		return nil, false
	}
	info, err := unix.GetsockoptTCPCCBBRInfo(fd, unix.IPPROTO_TCP, unix.TCP_CC_INFO)
	return info, err == nil
}
