package link

import (
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

// datagrams is a UDP socket as the QUIC library uses it: what the library does with
// one by itself, at a lower price. It receives with UDP_GRO, so that packets that the
// kernel or the card has gathered come in one piece, tells Go's scheduler nothing of
// calls that do not block, and keeps addresses instead of making one per packet.
type datagrams struct {
	*net.UDPConn
	raw  syscall.RawConn
	isV6 bool // addresses are sockaddr_in6

	apart    atomic.Bool // what follows is to be sent packet by packet
	mu       sync.Mutex  // one sends at a time
	out      outgoing    // guarded by mu
	sendOnce func(fd uintptr) bool

	in       arrivals    // the reader's
	heard    func() bool // the reader's: told of datagrams until it returns false; nil: nobody is
	readOnce func(fd uintptr) bool
}

// outgoing is the memory of one sendmsg.
type outgoing struct {
	msg   unix.Msghdr
	iov   unix.Iovec
	to    *net.UDPAddr // whom name stands for; the library does not change addresses
	name  unix.RawSockaddrInet6
	size  uint32 // of name, bytes
	errno unix.Errno
}

// newDatagrams takes over udp, which stays usable.
func newDatagrams(udp *net.UDPConn) (*datagrams, error) {
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &datagrams{UDPConn: udp, raw: raw}
	var domain int
	err = raw.Control(func(fd uintptr) {
		domain, err = nonblock.GetInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		_ = nonblock.SetInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) // without it packets come one by one
	})
	d.isV6 = domain == unix.AF_INET6
	d.sendOnce, d.readOnce = d.send, d.receive
	d.in.init()
	return d, err
}

// WriteMsgUDP sends one datagram, or several of one size with UDP_SEGMENT in oob.
func (d *datagrams) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	if len(oob) > 0 && d.apart.Load() && segmented(oob) {
		d.apart.Store(false)                                 // once is enough:
		return 0, 0, os.NewSyscallError("sendmsg", unix.EIO) // the library gives batches up
	}
	if d.write(b, oob, to) {
		return len(b), len(oob), nil
	}
	return d.UDPConn.WriteMsgUDP(b, oob, to) // tells what is wrong in the words the library knows
}

// segmented tells whether control messages have UDP_SEGMENT among them.
func segmented(oob []byte) bool {
	all, _ := unix.ParseSocketControlMessage(oob)
	return slices.ContainsFunc(all, func(m unix.SocketControlMessage) bool {
		return m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_SEGMENT
	})
}

func (d *datagrams) write(b, oob []byte, to *net.UDPAddr) bool {
	if len(b) == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o := &d.out
	if o.to != to && !o.address(to, d.isV6) {
		return false
	}
	o.point(b, oob)
	err := d.raw.Write(d.sendOnce)
	o.iov.Base, o.msg.Control = nil, nil
	return err == nil && o.errno == 0
}

// address makes name stand for to. It does not for addresses that need a zone.
func (o *outgoing) address(to *net.UDPAddr, v6 bool) bool {
	o.to = nil
	ip4 := to.IP.To4()
	port := [2]byte{byte(to.Port >> 8), byte(to.Port)}
	o.name = unix.RawSockaddrInet6{}
	switch {
	case to.Zone != "" || len(to.IP) == 0 || !v6 && ip4 == nil:
		return false
	case v6:
		o.name.Family = unix.AF_INET6
		*(*[2]byte)(unsafe.Pointer(&o.name.Port)) = port
		copy(o.name.Addr[:], to.IP.To16())
		o.size = unix.SizeofSockaddrInet6
	default:
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&o.name))
		name.Family = unix.AF_INET
		*(*[2]byte)(unsafe.Pointer(&name.Port)) = port
		copy(name.Addr[:], ip4)
		o.size = unix.SizeofSockaddrInet4
	}
	o.to = to
	return true
}

func (o *outgoing) point(b, oob []byte) {
	o.iov.Base = &b[0]
	o.iov.SetLen(len(b))
	o.msg = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&o.name)), Namelen: o.size, Iov: &o.iov}
	o.msg.SetIovlen(1)
	if len(oob) > 0 {
		o.msg.Control = &oob[0]
		o.msg.SetControllen(len(oob))
	}
}

// send is one attempt; false asks to be called again when there is room.
func (d *datagrams) send(fd uintptr) bool {
	for {
		_, d.out.errno = nonblock.Sendmsg(fd, &d.out.msg)
		if d.out.errno != unix.EINTR {
			return d.out.errno != unix.EAGAIN
		}
	}
}

// unbatch has the edge's socket send what follows packet by packet.
func (s *quicSocket) unbatch() {
	if s == nil {
		return
	}
	if d, ok := s.udp.(*datagrams); ok {
		d.apart.Store(true)
	}
}
