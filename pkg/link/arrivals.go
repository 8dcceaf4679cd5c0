package link

import (
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

const (
	// arrivalsAtOnce is how many datagrams one call receives, each of which may
	// have been several packets.
	arrivalsAtOnce = 8
	// arrivalsAtFirst is the same of a socket that has had no load: most are those of
	// dials that go nowhere, and eight would be half a megabyte.
	arrivalsAtFirst = 2
	// arrivalMost is what the kernel gathers at most, bytes.
	arrivalMost = 64 << 10
	// arrivalControl is for the control messages of a datagram, bytes: ECN, where
	// to, and the packets' size.
	arrivalControl = 128
	// knownMost bounds the addresses that are kept.
	knownMost = 1 << 10
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	msg unix.Msghdr
	len uint32 // bytes received
}

// arrivals are datagrams that were received and not handed over yet.
type arrivals struct {
	msgs     [arrivalsAtOnce]mmsghdr
	iovs     [arrivalsAtOnce]unix.Iovec
	names    [arrivalsAtOnce]unix.RawSockaddrInet6
	controls [arrivalsAtOnce][arrivalControl]byte
	data     [arrivalsAtOnce][]byte

	ready int // how many of these have memory
	count int // received by the last call
	errno unix.Errno

	// The one that is handed over.
	next    int
	packets []byte // what is left of it
	size    int    // of each of its packets but the last
	control []byte
	from    *net.UDPAddr

	name  unix.RawSockaddrInet6 // whom from stands for
	known map[unix.RawSockaddrInet6]*net.UDPAddr
}

func (a *arrivals) init() {
	a.known = map[unix.RawSockaddrInet6]*net.UDPAddr{}
	a.prepare(arrivalsAtFirst)
}

// prepare gives memory to the first n.
func (a *arrivals) prepare(n int) {
	for ; a.ready < n; a.ready++ {
		i := a.ready
		a.data[i] = make([]byte, arrivalMost)
		a.iovs[i].Base = &a.data[i][0]
		a.iovs[i].SetLen(arrivalMost)
		m := &a.msgs[i].msg
		m.Name, m.Control, m.Iov = (*byte)(unsafe.Pointer(&a.names[i])), &a.controls[i][0], &a.iovs[i]
		m.SetIovlen(1)
	}
}

// receive is one attempt; false asks to be called again when there is something.
func (d *datagrams) receive(fd uintptr) bool {
	a := &d.in
	if a.count == a.ready { // there was more than that, perhaps
		a.prepare(min(2*a.ready, arrivalsAtOnce))
	}
	for i := range a.ready {
		a.names[i] = unix.RawSockaddrInet6{}
		a.msgs[i].msg.Namelen = unix.SizeofSockaddrInet6
		a.msgs[i].msg.SetControllen(arrivalControl)
	}
	a.next, a.count = 0, 0
	for {
		n, errno := nonblock.Mmsg(unix.SYS_RECVMMSG, fd, unsafe.Pointer(&a.msgs), a.ready)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			a.count = n
		}
		a.errno = errno
		return true
	}
}

// ReadBatch fills ms with packets and waits for the first one.
func (d *datagrams) ReadBatch(ms []ipv4.Message, _ int) (n int, err error) {
	a := &d.in
	for !a.more() {
		if err := d.raw.Read(d.readOnce); err != nil {
			return 0, err
		}
		if a.errno != 0 {
			return 0, &net.OpError{Op: "read", Net: "udp", Source: d.LocalAddr(), Err: os.NewSyscallError("recvmmsg", a.errno)}
		}
	}
	if d.heard != nil && !d.heard() {
		d.heard = nil
	}
	for n < len(ms) && a.more() {
		a.hand(&ms[n])
		n++
	}
	return n, nil
}

// more has packets be the next that there are, unless there are none.
func (a *arrivals) more() bool {
	for len(a.packets) == 0 && a.next < a.count {
		a.open(a.next)
		a.next++
	}
	return len(a.packets) > 0
}

// open begins with a datagram.
func (a *arrivals) open(i int) {
	a.packets = a.data[i][:a.msgs[i].len]
	a.control = a.controls[i][:a.msgs[i].msg.Controllen]
	a.size = max(gathered(a.control), 0)
	if a.size == 0 {
		a.size = len(a.packets)
	}
	if a.from == nil || a.names[i] != a.name {
		a.name, a.from = a.names[i], a.address(a.names[i])
	}
}

// hand copies the next packet to m, whose memory is the library's.
func (a *arrivals) hand(m *ipv4.Message) {
	packet := a.packets[:min(a.size, len(a.packets))]
	a.packets = a.packets[len(packet):]
	m.N = copy(m.Buffers[0], packet)
	m.NN = copy(m.OOB, a.control)
	m.Addr = a.from
}

// gathered is the size of the packets of a datagram, 0 if it is only one.
func gathered(control []byte) int {
	for len(control) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0
		}
		if header.Level == unix.IPPROTO_UDP && header.Type == unix.UDP_GRO && len(data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(data)))
		}
		control = rest
	}
	return 0
}

// address is who a name stands for, the same pointer again and again.
func (a *arrivals) address(name unix.RawSockaddrInet6) *net.UDPAddr {
	if known := a.known[name]; known != nil {
		return known
	}
	addr := &net.UDPAddr{Port: int(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:]))}
	if name.Family == unix.AF_INET {
		of := (*unix.RawSockaddrInet4)(unsafe.Pointer(&name))
		addr.IP = append(addr.IP, of.Addr[:]...)
	} else {
		addr.IP = append(addr.IP, name.Addr[:]...)
		addr.Zone = zone(int(name.Scope_id))
	}
	if len(a.known) >= knownMost {
		clear(a.known)
	}
	a.known[name] = addr
	return addr
}

// zone is the name of an IPv6 zone, "" without one.
func zone(index int) string {
	if index == 0 {
		return ""
	}
	if device, err := net.InterfaceByIndex(index); err == nil {
		return device.Name
	}
	return strconv.Itoa(index)
}
