//go:build !race

package nonblock

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketFlags are those of all sockets here.
const socketFlags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC

// Socket is socket(2) of a TCP socket of a family.
func Socket(family int) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|socketFlags, 0)
	return descriptor(fd, errno)
}

// Connect is connect(2). A zone is a number.
func Connect(fd int, to netip.AddrPort) error {
	var name unix.RawSockaddrInet6 // the larger one
	size := uintptr(unix.SizeofSockaddrInet6)
	if to.Addr().Is4() {
		size = unix.SizeofSockaddrInet4
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&name)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: flip(to.Port()), Addr: to.Addr().As4()}
	} else {
		name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: flip(to.Port()), Addr: to.Addr().As16(), Scope_id: scope(to.Addr())}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&name)), size)
	return failure(errno)
}

// Accept is accept4(2); it also returns who has connected.
func Accept(fd int) (int, netip.AddrPort, error) {
	var name unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	got, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)), socketFlags, 0, 0)
	n, err := descriptor(got, errno)
	return n, addrPort(&name), err
}

// Local is getsockname(2).
func Local(fd int) (netip.AddrPort, error) {
	var name unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)))
	return addrPort(&name), failure(errno)
}

// Watch is epoll_ctl(2).
func Watch(epoll, op, fd int, event *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	return failure(errno)
}

func descriptor(fd uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// flip turns a port to or from the byte order of the wire.
func flip(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// addrPort reads the kernel's form; the zero AddrPort if it is of another family.
func addrPort(name *unix.RawSockaddrAny) netip.AddrPort {
	switch name.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), flip(a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), flip(a.Port))
	}
	return netip.AddrPort{}
}
