package e2e

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// frame is one TCP segment that was captured; with offloading on it may stand
// for several.
type frame struct {
	at           time.Duration // by the kernel's clock
	out          bool          // leaves the node
	flags        header.TCPFlags
	seq, ack     uint32
	window       int // as it stands in the header
	payload      int
	segment      int // the payload of the segments that it stands for, at most
	sport, dport int
	tcp          []byte // the header with its options
}

// vnetLen is the length of struct virtio_net_hdr, which tells what a frame stands
// for.
const vnetLen = 10

// capture records the TCP segments that pass a node's interface eth0.
type capture struct {
	fd   int
	mu   sync.Mutex
	all  []frame
	last time.Duration // the newest frame's, of any kind
	rest int           // how often there was nothing to record
	stop chan struct{}
	done chan struct{}
}

// capture records until the test ends.
func (r *rig) capture(node string) *capture {
	r.t.Helper()
	c := &capture{stop: make(chan struct{}), done: make(chan struct{})}
	err := r.Do(node, func() (err error) {
		if c.fd, err = packetSocket("eth0", unix.ETH_P_ALL); err == nil {
			err = unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	go c.loop()
	r.t.Cleanup(func() {
		close(c.stop)
		<-c.done
		unix.Close(c.fd)
	})
	return c
}

// packetSocket opens a packet socket on an interface of the thread's namespace.
func packetSocket(dev string, protocol uint16) (int, error) {
	at, err := net.InterfaceByName(dev)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, o := range [][3]int{
		{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1}, {unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8 << 20},
	} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fd, err
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}); err != nil {
		return fd, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: at.Index})
}

func (c *capture) loop() {
	defer close(c.done)
	p, oob := make([]byte, 1<<17), make([]byte, 256)
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		n, on, _, from, err := unix.Recvmsg(c.fd, p, oob, 0)
		if err != nil {
			if err == unix.EAGAIN {
				c.mu.Lock()
				c.rest++
				c.mu.Unlock()
			}
			continue
		}
		at := stampOf(oob[:on])
		c.mu.Lock()
		c.last = at
		c.mu.Unlock()
		if n < vnetLen {
			continue
		}
		f, ok := parseFrame(p[vnetLen:n])
		if !ok {
			continue
		}
		if f.segment = f.payload; p[1] != 0 { // the kernel will cut it, or has put it together
			f.segment = int(binary.NativeEndian.Uint16(p[4:]))
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok {
			f.out = sa.Pkttype == unix.PACKET_OUTGOING
		}
		f.at = at
		c.mu.Lock()
		c.all = append(c.all, f)
		c.mu.Unlock()
	}
}

// stampOf is the kernel's time of a frame.
func stampOf(oob []byte) time.Duration {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 || len(msgs[0].Data) < 16 {
		return 0
	}
	d := msgs[0].Data
	return time.Duration(binary.NativeEndian.Uint64(d))*time.Second + time.Duration(binary.NativeEndian.Uint64(d[8:]))
}

// parseFrame reads an Ethernet frame with a TCP segment.
func parseFrame(p []byte) (f frame, ok bool) {
	if len(p) < 14+header.IPv4MinimumSize {
		return f, false
	}
	ip, start, end := p[14:], 0, 0
	switch binary.BigEndian.Uint16(p[12:]) {
	case unix.ETH_P_IP:
		if ip[9] != unix.IPPROTO_TCP || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
			return f, false
		}
		start, end = int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	case unix.ETH_P_IPV6:
		if len(ip) < header.IPv6MinimumSize || ip[6] != unix.IPPROTO_TCP {
			return f, false
		}
		start, end = header.IPv6MinimumSize, header.IPv6MinimumSize+int(binary.BigEndian.Uint16(ip[4:]))
	default:
		return f, false
	}
	if len(ip) < start+header.TCPMinimumSize {
		return f, false
	}
	h := header.TCP(ip[start:])
	if int(h.DataOffset()) < header.TCPMinimumSize || len(h) < int(h.DataOffset()) {
		return f, false
	}
	return frame{
		flags: h.Flags(), seq: h.SequenceNumber(), ack: h.AckNumber(), window: int(h.WindowSize()),
		payload: end - start - int(h.DataOffset()), sport: int(h.SourcePort()), dport: int(h.DestinationPort()),
		tcp: append([]byte(nil), h[:h.DataOffset()]...),
	}, true
}

// catchUp waits until what has passed is recorded: something that came later is, or
// nothing was left for a moment, twice, as the first may have begun before.
func (c *capture) catchUp() {
	look := func() (last time.Duration, rest int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.last, c.rest
	}
	asked := time.Duration(time.Now().UnixNano())
	_, before := look()
	for last, rest := look(); last <= asked && rest < before+2; last, rest = look() {
		time.Sleep(ms)
	}
}

// of returns the segments from and to a port so far.
func (c *capture) of(port int) []frame {
	c.catchUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []frame
	for _, f := range c.all {
		if f.sport == port || f.dport == port {
			out = append(out, f)
		}
	}
	return out
}

// first returns the first segment that is as wanted.
func first(all []frame, want func(frame) bool) (frame, bool) {
	for _, f := range all {
		if want(f) {
			return f, true
		}
	}
	return frame{}, false
}
