package emu

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

const etherHeader = 14

// port is one interface of a path: a raw packet socket with a receive ring.
type port struct {
	name string
	fd   int
	ring *ring
	lost uint64 // frames that found the ring full
}

// openPort opens an interface of the calling thread's namespace. The socket stays in
// that namespace whichever thread uses it later.
func openPort(name string) (*port, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if err := DisableOffloads(name); err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing until bind, so no frame of another interface slips in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	p := &port{name: name, fd: fd}
	if err := p.prepare(iface); err != nil {
		p.close()
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	return p, nil
}

func (p *port) prepare(iface *net.Interface) error {
	// Without it the socket receives what it sends, and the path forwards it back.
	if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("ignore outgoing: %w", err)
	}
	var err error
	if p.ring, err = openRing(p.fd, iface.MTU+etherHeader); err != nil {
		return err
	}
	promisc := unix.PacketMreq{Ifindex: int32(iface.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(p.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promisc); err != nil {
		return fmt.Errorf("promiscuous mode: %w", err)
	}
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8) // network byte order
	if err := unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: iface.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// ringLosses returns the frames lost to a full ring since the port was opened.
func (p *port) ringLosses() uint64 {
	// The kernel clears its counter with every reading.
	if s, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		p.lost += uint64(s.Drops)
	}
	return p.lost
}

func (p *port) close() {
	if p.ring != nil {
		p.ring.close()
	}
	unix.Close(p.fd)
}

const batchSize = 64

// batch sends up to batchSize frames with one system call.
type batch struct {
	frames [batchSize]Packet
	msgs   [batchSize]mmsghdr
	iovs   [batchSize]unix.Iovec
	n      int
}

// mmsghdr is struct mmsghdr of socket(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func (b *batch) full() bool { return b.n == batchSize }

func (b *batch) add(p Packet) {
	b.frames[b.n] = p
	b.iovs[b.n].Base = &p.Frame[0]
	b.iovs[b.n].SetLen(len(p.Frame))
	b.msgs[b.n].hdr.Iov = &b.iovs[b.n]
	b.msgs[b.n].hdr.SetIovlen(1)
	b.n++
}

// send hands all frames to the interface and counts those that it refused.
func (b *batch) send(to *port, refused *Tally) {
	for i := 0; i < b.n; {
		// Raw: the socket never blocks, so the scheduler need not know of the call.
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(to.fd),
			uintptr(unsafe.Pointer(&b.msgs[i])), uintptr(b.n-i), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			refused.add(b.frames[i].Size)
			i++
		default:
			i += int(sent)
		}
	}
}
