package spray

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"hawser/e2e/lab"
)

// Shaker completes handshakes in the name of many addresses, and says no more.
// Nobody else answers for these addresses: what comes for them is read from
// the wire.
type Shaker struct {
	*Sender
	from  int
	ears  int
	Acked int // SYN-ACKs answered
}

// NewShaker returns a shaker of rate handshakes per second from count addresses
// below 10.96.0.0/16.
func NewShaker(l *lab.Lab, to netip.AddrPort, rate, count int) (*Shaker, error) {
	sender, err := NewSender(l, to, rate)
	if err != nil {
		return nil, err
	}
	s := &Shaker{Sender: sender, from: count}
	err = l.Do("client1", func() (err error) {
		const protocol = 0x0008 // ETH_P_IP in network byte order
		if s.ears, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(s.ears, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		return unix.Bind(s.ears, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: s.index})
	})
	return s, err
}

// Run shakes hands at the rate until stop is closed and returns how many SYNs
// it has sent. A shaker runs once.
func (s *Shaker) Run(stop <-chan struct{}) (sent int) {
	defer unix.Close(s.fd)
	defer unix.Close(s.ears)
	began := time.Now()
	for {
		select {
		case <-stop:
			return sent
		default:
		}
		s.answer()
		if time.Duration(float64(sent)/float64(s.rate)*1e9) > time.Since(began) {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		for i := range s.frames {
			n := sent + i
			source := 10<<24 | 96<<16 | uint32(n%s.from)
			s.forgeAs(i, source, uint16(1024+n/s.from%60000), s.random.Uint32())
		}
		sent += max(s.sendAll(), 0)
	}
}

// answer acknowledges the SYN-ACKs that have come.
func (s *Shaker) answer() {
	var p [2048]byte
	for {
		n, _, err := unix.Recvfrom(s.ears, p[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		if ack := acknowledge(p[:n]); ack != nil {
			if _, err := unix.Write(s.fd, ack); err == nil {
				s.Acked++
			}
		}
	}
}

// acknowledge turns a SYN-ACK for one of the shaker's addresses into its ACK;
// nil if it is none.
func acknowledge(p []byte) []byte {
	if len(p) < 54 || p[12] != 8 || p[13] != 0 || p[14] != 0x45 || p[23] != 6 || p[30] != 10 || p[31] != 96 || p[47]&0x17 != 0x12 {
		return nil
	}
	out := make([]byte, 54+12)
	copy(out, p[6:12])
	copy(out[6:], p[:6])
	out[12] = 8
	ip, tcp := out[14:], out[34:]
	copy(ip, []byte{0x45, 0, 0, 52, 0, 0, 0x40, 0, 64, 6})
	copy(ip[12:], p[30:34])
	copy(ip[16:], p[26:30])
	binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip[:20], 0))
	copy(tcp, p[36:38])
	copy(tcp[2:], p[34:36])
	copy(tcp[4:], p[42:46])
	binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(p[38:])+1)
	copy(tcp[12:], []byte{0x80, 0x10, 0xfa, 0xf0})
	copy(tcp[20:], []byte{1, 1, 8, 10, 0, 0, 0, 2})
	if val, ok := timestamp(p[54:min(len(p), 34+int(p[46]>>4)*4)]); ok {
		binary.BigEndian.PutUint32(tcp[28:], val)
	}
	sum := checksum.Combine(checksum.Checksum(ip[12:20], 6), 32)
	binary.BigEndian.PutUint16(tcp[16:], ^checksum.Checksum(tcp, sum))
	return out
}

// timestamp finds the sender's timestamp among options.
func timestamp(o []byte) (uint32, bool) {
	for len(o) > 0 && o[0] != 0 {
		switch {
		case o[0] == 1:
			o = o[1:]
			continue
		case len(o) < 2 || o[1] < 2 || int(o[1]) > len(o):
			return 0, false
		case o[0] == 8 && o[1] == 10:
			return binary.BigEndian.Uint32(o[2:]), true
		}
		o = o[o[1]:]
	}
	return 0, false
}
