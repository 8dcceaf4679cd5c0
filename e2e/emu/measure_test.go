package emu_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
)

// The measuring instruments. They use kernel time stamps where they can, so that a
// busy machine delays the reading and not what is read.

const (
	ipUDP   = 28   // bytes of IPv4 and UDP headers
	fullMTU = 1500 // IP bytes of a flood packet
)

// arrivalAt is one datagram at the sink.
type arrivalAt struct {
	seq uint64
	at  time.Duration // kernel time since the Unix epoch
}

// sink is a UDP socket on a node that notes the sequence numbers that arrive.
type sink struct {
	fd   int
	addr netip.AddrPort
}

func openSink(t *testing.T, l *lab.Lab, node string, addr netip.AddrPort) *sink {
	t.Helper()
	s := &sink{addr: addr}
	err := l.Do(node, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	err = errors.Join(
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500_000}),
		unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// collect reads until nothing has come for half a second after stop is closed.
func (s *sink) collect(stop <-chan struct{}, result chan<- []arrivalAt) {
	got := make([]arrivalAt, 0, 1<<17)
	in := newMessages(8, 128)
	for {
		n, errno := in.receive(s.fd)
		switch {
		case errno == 0:
			for i := range n {
				oob := in.oob[i][:in.msgs[i].hdr.Controllen]
				got = append(got, arrivalAt{binary.BigEndian.Uint64(in.data[i]), stampOf(oob)})
			}
		case errno == unix.EAGAIN:
			select {
			case <-stop:
				result <- got
				return
			default:
			}
		}
	}
}

// stampOf returns the SCM_TIMESTAMPNS of a control message.
func stampOf(oob []byte) time.Duration {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS {
			sec := binary.NativeEndian.Uint64(m.Data)
			nsec := binary.NativeEndian.Uint64(m.Data[8:])
			return time.Duration(sec)*time.Second + time.Duration(nsec)
		}
	}
	return 0
}

// source sends numbered datagrams from a node.
type source struct {
	fd   int
	next uint64
	out  *messages
}

func openSource(t *testing.T, l *lab.Lab, node string, from netip.Addr, to netip.AddrPort) *source {
	t.Helper()
	s := &source{out: newMessages(fullMTU-ipUDP, 0)}
	err := l.Do(node, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	err = errors.Join(
		unix.Bind(s.fd, &unix.SockaddrInet4{Addr: from.As4()}),
		unix.Connect(s.fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// flood sends packets of the given size (IP bytes) at a rate in bit/s for a time. It
// makes up for late wake-ups, but never with more than 20 ms worth at once.
func (s *source) flood(size int, rate float64, d time.Duration) {
	perPacket := time.Duration(float64(size*8) / rate * 1e9)
	start := time.Now()
	due := start
	for now := start; now.Sub(start) < d; now = time.Now() {
		if late := now.Add(-20 * time.Millisecond); due.Before(late) {
			due = late
		}
		for due.Before(now) {
			n := min(messageBatch, int(now.Sub(due)/perPacket)+1)
			s.send(size, n)
			due = due.Add(time.Duration(n) * perPacket)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// send sends n packets at once.
func (s *source) send(size, n int) {
	for i := range n {
		binary.BigEndian.PutUint64(s.out.data[i], s.next)
		s.out.iovs[i].SetLen(size - ipUDP)
		s.next++
	}
	for sent := 0; sent < n; { // a closed port answers with an ICMP error: no matter
		sent += max(0, s.out.send(s.fd, sent, n))
	}
}

const messageBatch = 32

// messages is a batch of datagrams for sendmmsg and recvmmsg.
type messages struct {
	data [messageBatch][]byte
	oob  [messageBatch][]byte
	iovs [messageBatch]unix.Iovec
	msgs [messageBatch]struct {
		hdr unix.Msghdr
		len uint32
		_   [4]byte
	}
}

func newMessages(size, control int) *messages {
	m := &messages{}
	for i := range m.msgs {
		m.data[i], m.oob[i] = make([]byte, size), make([]byte, control)
		m.iovs[i].Base = &m.data[i][0]
		m.iovs[i].SetLen(size)
		m.msgs[i].hdr.Iov = &m.iovs[i]
		m.msgs[i].hdr.SetIovlen(1)
		if control > 0 {
			m.msgs[i].hdr.Control = &m.oob[i][0]
		}
	}
	return m
}

// receive waits for one datagram and takes those that are there.
func (m *messages) receive(fd int) (int, unix.Errno) {
	for i := range m.msgs {
		m.msgs[i].hdr.SetControllen(len(m.oob[i]))
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.msgs[0])),
		messageBatch, unix.MSG_WAITFORONE, 0, 0)
	return int(n), errno
}

// send sends the datagrams from index from up to n and returns how many it did.
func (m *messages) send(fd, from, n int) int {
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.msgs[from])),
		uintptr(n-from), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(sent)
}

// run floods from the source while the sink collects, and returns what arrived.
func run(src *source, s *sink, size int, rate float64, d time.Duration) []arrivalAt {
	stop, result := make(chan struct{}), make(chan []arrivalAt, 1)
	go s.collect(stop, result)
	src.flood(size, rate, d)
	close(stop)
	return <-result
}

// rateBetween returns the rate in IP bit/s of the arrivals between two times after
// the first one.
func rateBetween(got []arrivalAt, size int, from, to time.Duration) float64 {
	if len(got) == 0 {
		return 0
	}
	first := got[0].at
	var a, b *arrivalAt
	n := 0
	for i := range got {
		at := got[i].at - first
		if at < from || at > to {
			continue
		}
		if a == nil {
			a = &got[i]
		} else {
			n++
		}
		b = &got[i]
	}
	if n == 0 {
		return 0
	}
	return float64(n*size*8) / (b.at - a.at).Seconds()
}

// rateWithin returns the mean rate over a window that may begin or end in a pause.
func rateWithin(got []arrivalAt, size int, from, to time.Duration) float64 {
	n := 0
	for _, a := range got {
		if at := a.at - got[0].at; at >= from && at < to {
			n++
		}
	}
	return float64(n*size*8) / (to - from).Seconds()
}

// echoTimes measures n round trips with ICMP echo from a node, spaced by the gap. The
// peer's kernel answers; the arrival time is the kernel's. A lost echo is left out.
func echoTimes(l *lab.Lab, node string, to netip.Addr, n int, gap time.Duration) ([]time.Duration, error) {
	var fd int
	err := l.Do(node, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 400_000}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}),
	); err != nil {
		return nil, err
	}
	var times []time.Duration
	for seq := range n {
		rtt, err := echo(fd, uint16(seq))
		if err == nil {
			times = append(times, rtt)
		} else if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		time.Sleep(gap)
	}
	slices.Sort(times)
	return times, nil
}

// echo sends one request and waits for its reply.
func echo(fd int, seq uint16) (time.Duration, error) {
	id := uint16(os.Getpid())
	msg := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0}, id)
	msg = binary.BigEndian.AppendUint16(msg, seq)
	sum := ^fold(uint32(0x0800) + uint32(id) + uint32(seq))
	binary.BigEndian.PutUint16(msg[2:], sum)
	sent := time.Duration(time.Now().UnixNano())
	if _, err := unix.Write(fd, msg); err != nil {
		return 0, fmt.Errorf("echo: %w", err)
	}
	buf, oob := make([]byte, 256), make([]byte, 128)
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		reply := buf[:n]
		if n >= 28 && reply[20] == 0 && binary.BigEndian.Uint16(reply[24:]) == id && binary.BigEndian.Uint16(reply[26:]) == seq {
			return stampOf(oob[:oobn]) - sent, nil
		}
	}
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// quantile of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}
