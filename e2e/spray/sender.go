// Package spray sends what attackers send, from the interface of a lab's
// client: SYNs of forged sources, and handshakes of many addresses that nothing
// follows.
//
// Goroutines: none of its own; Run works on its caller's.
package spray

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"hawser/e2e/lab"
)

const (
	synBatch = 64
	synLen   = 14 + 20 + 40 // Ethernet, IPv4, TCP with Linux's options
)

// Sender sends SYNs of forged sources from the client's interface.
type Sender struct {
	fd    int
	index int // of the client's interface
	// CPU is what Run has used. On a veth pair that is also what the host behind
	// it does with the packets until it queues them.
	CPU time.Duration

	rate   int
	sent   atomic.Int64
	frames [synBatch][synLen]byte
	iovs   [synBatch]unix.Iovec
	msgs   [synBatch]mmsg
	random *rand.Rand
}

type mmsg struct {
	msg unix.Msghdr
	len uint32
	_   [4]byte
}

// NewSender returns a sender of rate SYNs per second to a server behind the
// edge, or to the edge itself. Sources are below 10.64.0.0/11.
func NewSender(l *lab.Lab, to netip.AddrPort, rate int) (*Sender, error) {
	s := &Sender{rate: rate, random: rand.New(rand.NewPCG(rand.Uint64(), 2))} // connection tracking knows those of the flood before
	err := l.Do("client1", func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		s.index = dev.Index
		gateway, err := neighbour(dev.Index, l.Address("edge", lab.IPv4))
		if err != nil {
			return err
		}
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		for i := range s.frames {
			s.template(i, dev.HardwareAddr, gateway, to)
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Ifindex: dev.Index})
	})
	return s, err
}

// neighbour asks for the hardware address of the edge.
func neighbour(dev int, addr netip.Addr) (net.HardwareAddr, error) {
	for range 50 {
		list, err := netlink.NeighList(dev, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			if n.IP.Equal(net.IP(addr.AsSlice())) && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, nil
			}
		}
		if c, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String()); err == nil {
			_, _ = c.Write([]byte{0}) // whoever sends a datagram asks first
			c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, fmt.Errorf("the client does not know the neighbour %v", addr)
}

// template makes frame i but for what each SYN has of its own.
func (s *Sender) template(i int, from, to net.HardwareAddr, server netip.AddrPort) {
	f := s.frames[i][:]
	copy(f, to)
	copy(f[6:], from)
	f[12] = 8
	ip := f[14:]
	copy(ip, []byte{0x45, 0, 0, synLen - 14, 0, 0, 0x40, 0, 64, 6})
	copy(ip[16:], server.Addr().AsSlice())
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp[2:], server.Port())
	copy(tcp[12:], []byte{0xa0, 2, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7})
	s.iovs[i].Base = &f[0]
	s.iovs[i].SetLen(synLen)
	s.msgs[i].msg.Iov = &s.iovs[i]
	s.msgs[i].msg.SetIovlen(1)
}

// forge gives frame i another source.
func (s *Sender) forge(i int) {
	r := s.random.Uint64()
	s.forgeAs(i, 10<<24|64<<16|uint32(r)&0x1fffff, uint16(r>>32)|1024, uint32(r>>24))
}

// forgeAs gives frame i a source and a sequence number.
func (s *Sender) forgeAs(i int, source uint32, port uint16, seq uint32) {
	ip := s.frames[i][14:]
	binary.BigEndian.PutUint32(ip[12:], source)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip[:20], 0))
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, port)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint16(tcp[16:], 0)
	sum := checksum.Combine(checksum.Checksum(ip[12:20], 6), 40)
	binary.BigEndian.PutUint16(tcp[16:], ^checksum.Checksum(tcp, sum))
}

// Run sends at the rate until stop is closed and returns how many it has sent.
// A sender runs once.
func (s *Sender) Run(stop <-chan struct{}) int {
	defer unix.Close(s.fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func(before time.Duration) { s.CPU = threadCPU() - before }(threadCPU())
	began := time.Now()
	for {
		select {
		case <-stop:
			return s.Sent()
		default:
		}
		ahead := time.Duration(float64(s.Sent())/float64(s.rate)*1e9) - time.Since(began)
		if ahead > 0 {
			time.Sleep(ahead)
		}
		for i := range s.frames {
			s.forge(i)
		}
		s.sent.Add(int64(max(s.sendAll(), 0)))
	}
}

// Sent is how many SYNs have gone so far.
func (s *Sender) Sent() int { return int(s.sent.Load()) }

// threadCPU is the time that the calling thread has used.
func threadCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// sendAll sends all frames and returns how many have gone.
func (s *Sender) sendAll() int {
	n, _, _ := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msgs[0])), synBatch, 0, 0, 0)
	return int(n)
}
