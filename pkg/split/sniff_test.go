package split

import (
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/pkg/guard"
)

// seen is one TCP frame on the client's interface.
type seen struct {
	at       time.Duration // since the sniffer began, by the kernel's clock
	out      bool          // from the end
	flags    header.TCPFlags
	seq, ack uint32
	window   uint16
	payload  int
	port     uint16 // the end's
	tcp      []byte // header with options
}

// sniffer records what passes an end's interface.
type sniffer struct {
	fd    int
	mu    sync.Mutex
	all   []seen
	rests int // how often there was nothing to record
	done  chan struct{}
}

// sniff records at the client until the test ends.
func (l *lab) sniff() *sniffer { return l.sniffAt(l.client, "lan-c") }

// sniffAt records at an interface of an end until the test ends.
func (l *lab) sniffAt(ns netns.NsHandle, name string) *sniffer {
	l.t.Helper()
	s := &sniffer{done: make(chan struct{})}
	in(l.t, ns, func() {
		dev, err := net.InterfaceByName(name)
		must(l.t, err)
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(l.t, err)
		must(l.t, unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
		must(l.t, unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
		must(l.t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 30000}))
		proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		must(l.t, unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: dev.Index}))
	})
	stop := make(chan struct{})
	go s.loop(stop)
	l.t.Cleanup(func() {
		close(stop)
		<-s.done
		unix.Close(s.fd)
	})
	return s
}

func (s *sniffer) loop(stop chan struct{}) {
	defer close(s.done)
	p, oob := make([]byte, 1<<16), make([]byte, 256)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, on, _, from, err := unix.Recvmsg(s.fd, p, oob, 0)
		if err != nil {
			if err == unix.EAGAIN { // not a signal
				s.mu.Lock()
				s.rests++
				s.mu.Unlock()
			}
			continue
		}
		f, ok := dissect(p[:n])
		if !ok {
			continue
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok {
			f.out = sa.Pkttype == unix.PACKET_OUTGOING
		}
		f.at = stampOf(oob[:on])
		f.port = binary.BigEndian.Uint16(f.tcp[2:])
		if f.out {
			f.port = binary.BigEndian.Uint16(f.tcp)
		}
		s.mu.Lock()
		s.all = append(s.all, f)
		s.mu.Unlock()
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

func dissect(p []byte) (f seen, ok bool) {
	if len(p) < 14 {
		return f, false
	}
	ip, start, end := p[14:], 0, 0
	switch binary.BigEndian.Uint16(p[12:]) {
	case 0x0800:
		if len(ip) < 20 || ip[9] != 6 {
			return f, false
		}
		start, end = int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	case 0x86dd:
		if len(ip) < 40 || ip[6] != 6 {
			return f, false
		}
		start, end = 40, 40+int(binary.BigEndian.Uint16(ip[4:]))
	default:
		return f, false
	}
	h := header.TCP(ip[start:])
	f = seen{flags: h.Flags(), seq: h.SequenceNumber(), ack: h.AckNumber(), window: h.WindowSize()}
	f.tcp = append([]byte(nil), h[:h.DataOffset()]...)
	f.payload = end - start - int(h.DataOffset())
	return f, true
}

// catchUp waits until what has passed is recorded: nothing was left for a moment,
// twice, as the first may have begun before.
func (s *sniffer) catchUp() {
	rests := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.rests
	}
	for n := rests(); rests() < n+2; time.Sleep(time.Millisecond) {
	}
}

// of returns the frames of one port of the end so far.
func (s *sniffer) of(port int) []seen {
	s.catchUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []seen
	for _, f := range s.all {
		if int(f.port) == port {
			out = append(out, f)
		}
	}
	return out
}

// guarded are a stack's options with the guard in front.
func (l *lab) guarded(m guard.Mode, limits guard.Limits) Options {
	o := l.options(0, 1)
	l.filter(o.FD, false)
	syn := l.capture(0, 1)
	l.filter(syn, true)
	o.Guard = &GuardOptions{SYN: syn, Gate: NewGate(m, limits)}
	return o
}

// filter lets a socket hear TCP, either SYNs alone or all but SYNs. IPv4 and
// IPv6 without options and extension headers.
func (l *lab) filter(fd int, syns bool) {
	yes, no := uint32(0), uint32(1<<18)
	if syns {
		yes, no = no, yes
	}
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x86dd, SkipTrue: 2},
		bpf.LoadAbsolute{Off: 14 + 20 + 13, Size: 1},
		bpf.Jump{Skip: 1},
		bpf.LoadAbsolute{Off: 14 + 40 + 13, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x12},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 2, SkipFalse: 1},
		bpf.RetConstant{Val: yes},
		bpf.RetConstant{Val: no},
	})
	must(l.t, err)
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	must(l.t, unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}))
}

var _ testing.TB
