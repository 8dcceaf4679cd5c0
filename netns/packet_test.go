package netns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	vnetLen = 10
	flagFIN = 0x01
	flagSYN = 0x02
	flagACK = 0x10
)

// segment is a TCP segment.
type segment struct {
	src, dst netip.AddrPort
	seq, ack uint32
	flags    byte
	data     []byte
}

func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts { // every part but the last has an even length
		for i, b := range p {
			sum += uint32(b) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ipPacket puts an IP header before payload. options are bytes of IPv4 options.
func ipPacket(proto byte, src, dst netip.Addr, payload []byte, options int) []byte {
	if src.Is4() {
		h := make([]byte, 20+options)
		h[0] = 0x40 | byte(len(h)/4)
		for i := range options {
			h[20+i] = 1 // no operation
		}
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
		h[6] = 0x40 // don't fragment
		h[8], h[9] = 64, proto
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, payload...)
	}
	h := make([]byte, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = proto, 64
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

func (s segment) tcp() []byte {
	h := make([]byte, 20, 20+len(s.data))
	binary.BigEndian.PutUint16(h[0:], s.src.Port())
	binary.BigEndian.PutUint16(h[2:], s.dst.Port())
	binary.BigEndian.PutUint32(h[4:], s.seq)
	binary.BigEndian.PutUint32(h[8:], s.ack)
	h[12], h[13] = 5<<4, s.flags
	binary.BigEndian.PutUint16(h[14:], 0xffff)
	h = append(h, s.data...)
	pseudo := append(s.src.Addr().AsSlice(), s.dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, protoTCP, byte(len(h)>>8), byte(len(h)))
	binary.BigEndian.PutUint16(h[16:], checksum(pseudo, h))
	return h
}

func (s segment) packet() []byte { return ipPacket(protoTCP, s.src.Addr(), s.dst.Addr(), s.tcp(), 0) }

// icmpError quotes packet in the error that its destination's side sends back.
func icmpError(from, to netip.Addr, kind byte, packet []byte) []byte {
	proto := byte(protoICMP)
	if from.Is6() {
		proto = protoIP6I
	}
	return ipPacket(proto, from, to, append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, packet...), 0)
}

func ethernet(dst, src net.HardwareAddr, packet []byte) []byte {
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	f := append(append([]byte{}, dst...), src...)
	return append(binary.BigEndian.AppendUint16(f, kind), packet...)
}

// parseSegment reads a TCP segment from a frame, false if there is none.
func parseSegment(frame []byte) (s segment, ok bool) {
	ip := frame[etherLen:]
	var src, dst netip.Addr
	var tcp []byte
	switch {
	case ip[0]>>4 == 4 && ip[9] == protoTCP:
		src, dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
		tcp = ip[4*int(ip[0]&15) : binary.BigEndian.Uint16(ip[2:])]
	case ip[0]>>4 == 6 && ip[6] == protoTCP:
		src, dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
		tcp = ip[40 : 40+int(binary.BigEndian.Uint16(ip[4:]))]
	default:
		return s, false
	}
	return segment{
		src: netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp)), dst: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:])),
		seq: binary.BigEndian.Uint32(tcp[4:]), ack: binary.BigEndian.Uint32(tcp[8:]), flags: tcp[13],
		data: tcp[4*(tcp[12]>>4):],
	}, true
}

// echoStack is the simplest TCP that can stand on a hub: it accepts every
// connection and echoes what comes.
type echoStack struct {
	t    *testing.T
	hub  Hub
	fds  []int
	stop int // eventfd
	wait sync.WaitGroup

	mu   sync.Mutex
	seen []arrival
}

type arrival struct {
	worker int
	frame  []byte
}

// newEchoStack takes n capture sockets of h. Without answer it only listens.
func newEchoStack(t *testing.T, h *Host, n int, mode FanoutMode, answer bool) *echoStack {
	t.Helper()
	fds, err := h.Capture(n, mode)
	must(t, err)
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	must(t, err)
	s := &echoStack{t: t, hub: h.Hub(), fds: fds, stop: stop}
	s.wait.Add(1)
	go s.loop(answer)
	t.Cleanup(s.close)
	return s
}

func (s *echoStack) close() {
	_, err := unix.Write(s.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	must(s.t, err)
	s.wait.Wait()
	for _, fd := range append(s.fds, s.stop) {
		unix.Close(fd)
	}
}

func (s *echoStack) loop(answer bool) {
	defer s.wait.Done()
	var poll []unix.PollFd
	for _, fd := range append([]int{s.stop}, s.fds...) {
		poll = append(poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	buf := make([]byte, 1<<17)
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			s.t.Error(err)
			return
		}
		if poll[0].Revents != 0 {
			return
		}
		for worker, fd := range s.fds {
			for {
				n, _, err := unix.Recvfrom(fd, buf, 0)
				if err != nil {
					break
				}
				frame := append([]byte(nil), buf[vnetLen:n]...)
				s.mu.Lock()
				s.seen = append(s.seen, arrival{worker, frame})
				s.mu.Unlock()
				if in, ok := parseSegment(frame); ok && answer {
					s.answer(fd, in)
				}
			}
		}
	}
}

func (s *echoStack) answer(fd int, in segment) {
	out := segment{src: in.dst, dst: in.src, seq: in.ack, flags: flagACK, data: in.data}
	out.ack = in.seq + uint32(len(in.data))
	switch {
	case in.flags&flagSYN != 0:
		out.seq, out.flags = 1000, flagSYN|flagACK
		out.ack++
	case in.flags&flagFIN != 0:
		out.flags |= flagFIN
		out.ack++
	case len(in.data) == 0:
		return
	}
	s.send(fd, out)
}

func (s *echoStack) send(fd int, out segment) {
	frame := ethernet(s.hub.HostMAC, s.hub.HubMAC, out.packet())
	if _, err := unix.Write(fd, append(make([]byte, vnetLen), frame...)); err != nil {
		s.t.Errorf("send on hub1: %v", err)
	}
}

// calm waits until nothing more arrives, so that the sockets have room again, and
// returns how much has.
func (s *echoStack) calm() int {
	for n := -1; ; time.Sleep(100 * time.Millisecond) {
		if now := len(s.arrivals()); now != n {
			n = now
			continue
		}
		return n
	}
}

// arrivals copies what has been received up to now.
func (s *echoStack) arrivals() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.seen...)
}
