package emu

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct {
	cmd  uint32
	data uint32
}

// ifreqData is struct ifreq with the pointer member of its union.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// DisableOffloads makes an interface of the calling thread's namespace send and
// receive frames of at most one MTU with their checksums filled in: it turns off
// checksum offload, scatter-gather, TSO, GSO and GRO. Without it a veth pair hands
// over packets of up to 64 KB with unfinished checksums.
func DisableOffloads(ifname string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", ifname, err)
	}
	defer unix.Close(fd)
	for _, f := range []struct {
		name string
		cmd  uint32
	}{
		{"gro", unix.ETHTOOL_SGRO},
		{"gso", unix.ETHTOOL_SGSO},
		{"tso", unix.ETHTOOL_STSO},
		{"scatter-gather", unix.ETHTOOL_SSG},
		{"tx checksum", unix.ETHTOOL_STXCSUM},
	} {
		err := ethtoolSet(fd, ifname, f.cmd)
		// A driver without the feature has nothing to turn off.
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("turn off %s of %s: %w", f.name, ifname, err)
		}
	}
	return nil
}

func ethtoolSet(fd int, ifname string, cmd uint32) error {
	value := ethtoolValue{cmd: cmd}
	req := ifreqData{data: unsafe.Pointer(&value)}
	copy(req.name[:unix.IFNAMSIZ-1], ifname)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return errno
	}
	return nil
}
