package netns

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// FanoutMode says which of several capture sockets gets a frame.
type FanoutMode int

const (
	// FanoutSource spreads connections by the client's address and port, for
	// stacks that accept: all packets of a connection go to one worker.
	FanoutSource FanoutMode = iota
	// FanoutLocalPort goes by the TCP port of the stack's end modulo n, for
	// stacks that dial: worker i must use local ports p with p % n == i.
	FanoutLocalPort
)

// String names the mode.
func (m FanoutMode) String() string {
	switch m {
	case FanoutSource:
		return "source"
	case FanoutLocalPort:
		return "local port"
	}
	return fmt.Sprintf("fanout mode %d", int(m))
}

const (
	// maxFanout is how many sockets the kernel takes into one group.
	maxFanout = 256
	// Socket buffers, in bytes.
	captureReceive = 16 << 20
	captureSend    = 8 << 20
	// captureSYN holds some thousand SYNs: what comes while the program waits
	// for a processor.
	captureSYN = 4 << 20
	// fanoutIgnoreOutgoing is PACKET_FANOUT_FLAG_IGNORE_OUTGOING: what we send does not
	// even reach the filter. In a group the sockets' own PACKET_IGNORE_OUTGOING is not looked
	// at. Kernels that do not know the flag take it and do nothing, as 6.1: the filter drops
	// what is outgoing as well (incomingOnly).
	fanoutIgnoreOutgoing = 0x4000
)

// Capture opens n raw packet sockets on hub1, one per worker, and returns them
// in the order of the workers. They are non-blocking, read and write whole
// Ethernet frames behind a struct virtio_net_hdr (10 bytes), and work from any
// namespace. The caller owns them and closes them; Close of the host does not.
//
// A socket receives TCP over IPv4, TCP directly over IPv6 (no extension
// headers), and ICMP and ICMPv6 errors about such TCP. Fragments of TCP come to
// be counted, to any of the group: the later ones carry no port, so a group
// could not keep them together, and TCP does not need them (path MTU discovery). With n > 1 the
// sockets share the frames by mode. A second Capture gets a copy of everything.
func (h *Host) Capture(n int, mode FanoutMode) ([]int, error) {
	return h.capture(n, mode, captureReceive, captureFilter(everySegment))
}

// CaptureClients is Capture with FanoutSource, but the frames with SYNs of
// clients come by n sockets of their own, so that a flood of them is lost there
// and nowhere else.
func (h *Host) CaptureClients(n int) (rest, syns []int, err error) {
	if rest, err = h.capture(n, FanoutSource, captureReceive, captureFilter(noSYN)); err != nil {
		return nil, nil, err
	}
	if syns, err = h.capture(n, FanoutSource, captureSYN, captureFilter(onlySYN)); err != nil {
		for _, fd := range rest {
			unix.Close(fd)
		}
		return nil, nil, err
	}
	return rest, syns, nil
}

func (h *Host) capture(n int, mode FanoutMode, receive int, filter program) ([]int, error) {
	if n < 1 || n > maxFanout {
		return nil, fmt.Errorf("capture: %d workers: use 1 to %d", n, maxFanout)
	}
	if mode != FanoutSource && mode != FanoutLocalPort {
		return nil, fmt.Errorf("capture: %v is unknown", mode)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("capture: the virtual host is closed")
	}
	if h.plan.Intercept == InterceptTPROXY {
		return nil, errors.New("capture: there is no hub: sockets take the connections")
	}
	var fds []int
	err := inside(h.space, func() (err error) {
		fds, err = openCapture(h.hub.Index, n, captureKind{mode, hubAddrs{h.hub.Hub4, h.hub.Hub6}, receive, filter})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", hubInner, err)
	}
	return fds, nil
}

// captureKind says what the sockets of a group get, and which of them.
type captureKind struct {
	mode    FanoutMode
	own     hubAddrs
	receive int // socket buffer, in bytes
	filter  program
}

// openCapture keeps all sockets deaf until the group is complete, so that no
// frame reaches a worker that it is not for. (A socket made with protocol 0
// hears nothing before bind, and the filter is there by then: there is nothing
// to drain.)
func openCapture(index, n int, k captureKind) (fds []int, err error) {
	defer func() {
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			fds = nil
		}
	}()
	for range n {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, fmt.Errorf("socket: %w", err)
		}
		fds = append(fds, fd)
		if err := prepareCapture(fd, index, k.receive); err != nil {
			return fds, err
		}
	}
	if n > 1 {
		if err := joinFanout(fds, k.mode, k.own); err != nil {
			return fds, err
		}
	}
	for _, fd := range fds {
		if err := attach(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, incomingOnly(k.filter)); err != nil {
			return fds, fmt.Errorf("SO_ATTACH_FILTER: %w", err)
		}
	}
	return fds, nil
}

func prepareCapture(fd, index, receive int) error {
	deaf := []bpf.Instruction{bpf.RetConstant{Val: 0}}
	if err := attach(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, deaf); err != nil {
		return fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	for _, o := range []struct {
		name              string
		level, opt, value int
	}{
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{"SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receive},
		{"SO_SNDBUFFORCE", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, captureSend},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	all := bits.ReverseBytes16(unix.ETH_P_ALL) // network byte order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// joinFanout makes a group of the sockets. The kernel numbers the members in
// the order in which they join; the program returns that number.
func joinFanout(fds []int, mode FanoutMode, own hubAddrs) error {
	const kind = unix.PACKET_FANOUT_CBPF | fanoutIgnoreOutgoing
	arg := (kind | unix.PACKET_FANOUT_FLAG_UNIQUEID) << 16
	for i, fd := range fds {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, arg); err != nil {
			return fmt.Errorf("PACKET_FANOUT: %w", err)
		}
		if i > 0 {
			continue
		}
		got, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
		if err != nil {
			return fmt.Errorf("PACKET_FANOUT: %w", err)
		}
		arg = kind<<16 | got&0xffff
	}
	if err := attach(fds[0], unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, fanoutProgram(mode, len(fds), own)); err != nil {
		return fmt.Errorf("PACKET_FANOUT_DATA: %w", err)
	}
	return nil
}

// attach gives a program to the kernel.
func attach(fd, level, opt int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, level, opt, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}
