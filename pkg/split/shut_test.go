package split

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/party"
)

// puppet is a client that sends exactly the segments that a test wants. It
// sits on the host's end of the hub.
type puppet struct {
	l        *lab
	fd       int
	me, them tcpip.Address
	next     uint32 // our next sequence number
	ack      uint32 // what we have of them
	theirAck uint32
	window   uint32 // their last window, in bytes
	edge     uint32 // the farthest right edge they gave
	scale    uint8
	got      []byte
}

func newPuppet(l *lab) *puppet {
	p := &puppet{l: l, next: 1000, me: tcpip.AddrFrom4([4]byte{198, 18, 9, 9}), them: tcpip.AddrFrom4([4]byte{198, 18, 200, 7})}
	in(l.t, l.host, func() {
		var err error
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(l.t, err)
		must(l.t, unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
		var index int
		l.with(l.host, func(h *netlink.Handle) error {
			link, err := h.LinkByName("hub0")
			if err == nil {
				index = link.Attrs().Index
			}
			return err
		})
		proto := binary.NativeEndian.Uint16([]byte{0x08, 0x00})
		must(l.t, unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}))
	})
	l.t.Cleanup(func() { unix.Close(p.fd) })
	return p
}

// send sends one segment with the sequence number seq.
func (p *puppet) send(seq uint32, flags header.TCPFlags, options, payload []byte) {
	p.l.t.Helper()
	n := header.TCPMinimumSize + len(options)
	segment := append(append(make([]byte, header.TCPMinimumSize), options...), payload...)
	h := header.TCP(segment)
	h.Encode(&header.TCPFields{SrcPort: 999, DstPort: 80, SeqNum: seq, AckNum: p.ack, DataOffset: uint8(n), Flags: flags, WindowSize: 65535})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, p.me, p.them, uint16(len(segment)))
	h.SetChecksum(^h.CalculateChecksum(onesSum(payload, sum)))
	ip := make(header.IPv4, header.IPv4MinimumSize)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(segment)), TTL: 64, Protocol: 6, SrcAddr: p.me, DstAddr: p.them})
	ip.SetChecksum(^ip.CalculateChecksum())
	frame := bytes.Join([][]byte{ether(header.IPv4ProtocolNumber), ip, segment}, nil)
	_, err := unix.Write(p.fd, frame)
	must(p.l.t, err)
}

// data sends n bytes and moves on.
func (p *puppet) data(n int) {
	p.send(p.next, header.TCPFlagAck, nil, make([]byte, n))
	p.next += uint32(n)
}

// hear takes one segment of theirs; false if there is none in time.
func (p *puppet) hear(limit time.Duration) bool {
	p.l.t.Helper()
	tv := unix.NsecToTimeval(limit.Nanoseconds())
	must(p.l.t, unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	buf := make([]byte, 70000)
	for {
		n, err := unix.Read(p.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		must(p.l.t, err)
		ip := header.IPv4(buf[etherLen:n])
		if ip.DestinationAddress() != p.me {
			continue
		}
		h := header.TCP(ip[ip.HeaderLength():ip.TotalLength()])
		p.theirAck = h.AckNumber()
		p.window = uint32(h.WindowSize()) << p.scale
		if edge := p.theirAck + p.window; int32(edge-p.edge) > 0 || p.edge == 0 {
			p.edge = edge
		}
		if h.Flags().Contains(header.TCPFlagSyn) {
			p.ack = h.SequenceNumber() + 1
			p.scale = uint8(max(0, header.ParseSynOptions(h.Options(), true).WS))
		} else if h.SequenceNumber() == p.ack {
			p.got = append(p.got, h.Payload()...)
			p.ack += uint32(len(h.Payload()))
		}
		return true
	}
}

// connect makes the handshake, with window scaling and without anything else.
func (p *puppet) connect() {
	p.l.t.Helper()
	p.send(p.next, header.TCPFlagSyn, []byte{2, 4, 0x05, 0xb4, 1, 3, 3, 7}, nil)
	if p.next++; !p.hear(ample) {
		p.l.t.Fatal("no SYN-ACK")
	}
	p.edge = 0
	p.send(p.next, header.TCPFlagAck, nil, nil)
}

// A party whose window is shut must still hear the client's acknowledgements,
// although the client has bytes in flight which an earlier window allowed.
func TestAcknowledgementsPassAShutWindow(t *testing.T) {
	l := newLab(t, true)
	conns := make(chan *Conn, 1)
	o := l.options(0, 1)
	o.MinRTO = time.Minute // a puppet on a busy machine is slow to acknowledge
	s, _ := l.start(o, func(c *Conn) { conns <- c })
	p := newPuppet(l)
	p.connect()
	w := watch(t, <-conns)
	p.data(1)
	p.hear(ample)
	for p.edge-p.next > 2000 { // nobody reads: the edge comes nearer
		p.data(1000)
		for p.hear(20 * time.Millisecond) {
		}
	}
	for n := int(p.edge-p.next) - 40; n > 0; n -= 1000 {
		p.data(min(n, 1000))
	}
	for p.theirAck != p.next || p.window != 0 {
		if !p.hear(ample) {
			break
		}
	}
	if p.window != 0 || p.theirAck != p.next || p.edge-p.next != 40 {
		t.Fatalf("window %d, acknowledged %d of %d, edge %d: the window is not shut by rounding", p.window, p.theirAck, p.next, p.edge)
	}
	p.data(40) // the earlier window has room for that
	download := random(200 << 10)
	sent := make(chan error, 1)
	go func() { sent <- w.write(download) }()
	for end := time.Now().Add(ample); len(p.got) < len(download) && time.Now().Before(end); {
		if p.hear(50 * time.Millisecond) {
			p.send(p.next, header.TCPFlagAck, nil, nil)
		}
	}
	if !bytes.Equal(p.got, download) {
		t.Fatalf("%d bytes of %d came", len(p.got), len(download))
	}
	must(t, <-sent)
	st := s.Stats()
	if st.ShutAcks == 0 || st.Timeouts != 0 {
		t.Errorf("%d acknowledgements passed the shut window, %d retransmission timeouts; want some, 0", st.ShutAcks, st.Timeouts)
	}
	// The client aborts: that, too, must be heard.
	p.send(p.next, header.TCPFlagRst|header.TCPFlagAck, nil, nil)
	w.wait(party.Hangup)
}

func TestShutWindows(t *testing.T) {
	id := stack.TransportEndpointID{LocalPort: 80, LocalAddress: test4[1], RemotePort: 1234, RemoteAddress: test4[0]}
	id6 := stack.TransportEndpointID{LocalPort: 80, LocalAddress: test6[1], RemotePort: 1234, RemoteAddress: test6[0]}
	segment := func(v6 bool, seq uint32, flags header.TCPFlags, payload int) (packet, []byte) {
		frame := frame4(make([]byte, payload), nil)
		if v6 {
			frame = frame6(make([]byte, payload), nil, 6)
		}
		p, _ := parseFrame(frame, len(frame), testHub)
		h := header.TCP(frame[etherLen+p.start:])
		h.SetSequenceNumber(seq)
		h.SetFlags(uint8(flags))
		return p, frame[etherLen:]
	}
	for _, tc := range []struct {
		name    string
		seq     uint32
		flags   header.TCPFlags
		payload int
		want    bool
	}{
		{"acknowledgement at the edge is accepted anyway", 5000, header.TCPFlagAck, 0, false},
		{"acknowledgement beyond", 5040, header.TCPFlagAck, 0, true},
		{"data at the edge", 5000, header.TCPFlagAck, 40, true},
		{"fin at the edge", 5000, header.TCPFlagAck | header.TCPFlagFin, 0, true},
		{"at the end of the slack", 5127, header.TCPFlagAck, 0, true},
		{"beyond the slack", 5128, header.TCPFlagAck, 0, false},
		{"probe", 4999, header.TCPFlagAck, 0, false},
		{"syn", 5040, header.TCPFlagSyn, 0, false},
	} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, " ipv6 ", v6), func(t *testing.T) {
				s := &shutWindows{slack: 127}
				p, ip := segment(v6, tc.seq, tc.flags, tc.payload)
				if extra, idle := s.inbound(p, ip); extra != nil || idle {
					t.Error("an extra segment while no window is shut")
				}
				s.note(id, true, shutWindow{next: 5000})
				s.note(id6, true, shutWindow{next: 5000})
				extra, idle := s.inbound(p, ip)
				if idle {
					t.Error("in a small crowd netstack does not hear of it")
				}
				if (extra != nil) != tc.want {
					t.Fatalf("extra segment: %v, want %v", extra != nil, tc.want)
				}
				if extra != nil {
					h := header.TCP(extra[p.start:])
					if len(h) != header.TCPMinimumSize || h.SequenceNumber() != 5000 || h.AckNumber() != 2 || h.Flags() != header.TCPFlagAck {
						t.Errorf("%d bytes, sequence number %d, acknowledges %d, flags %v", len(h), h.SequenceNumber(), h.AckNumber(), h.Flags())
					}
				}
				s.note(id, false, shutWindow{})
				s.note(id6, false, shutWindow{})
				if extra, _ := s.inbound(p, ip); extra != nil || s.count.Load() != 0 {
					t.Error("an extra segment after the window has opened")
				}
			})
		}
	}
}

func TestShutWindowsForgetStaleFlows(t *testing.T) {
	s := &shutWindows{slack: 127}
	for i := range 3 * shutSweep {
		s.note(stack.TransportEndpointID{LocalPort: uint16(i)}, true, shutWindow{next: seqnum.Value(i)})
	}
	if n := s.count.Load(); n != 3*shutSweep {
		t.Fatalf("%d flows, want %d: fresh ones were forgotten", n, 3*shutSweep)
	}
	s.sweep(time.Now().Add(2 * shutStale))
	if len(s.flows) != 0 {
		t.Errorf("%d stale flows are kept", len(s.flows))
	}
}

// TestShutWindowsForgetTheReset: what is noted of a party goes with its connection, also where
// that resets while its window is shut, so that we send no more.
func TestShutWindowsForgetTheReset(t *testing.T) {
	l := newLab(t, true)
	s, client, w := accepted(t, l, l.options(0, 1))
	shut := &s.out.shut
	must(t, client.SetWriteDeadline(time.Now().Add(ample)))
	go func() { _, _ = client.Write(make([]byte, 64<<20)) }()
	waitFor(t, "the window to be shut", func() bool { return shut.count.Load() == 1 })
	must(t, client.SetLinger(0))
	must(t, client.Close())
	w.wait(party.Hangup)
	if w.conn.Abort(); shut.count.Load() != 0 || len(shut.flows) != 0 {
		t.Errorf("%d shut windows are kept", shut.count.Load())
	}
}

// TestShutQuestions: where many windows are shut, netstack does not hear of parties that ask
// whether theirs still is, before a pause has passed since it last said so; it hears of all
// else, and in a small crowd of all.
func TestShutQuestions(t *testing.T) {
	const next, many = 5000, 2000
	id := stack.TransportEndpointID{LocalPort: 80, LocalAddress: test4[1], RemotePort: 1234, RemoteAddress: test4[0]}
	for _, tc := range []struct {
		name    string
		others  int
		seq     uint32
		flags   header.TCPFlags
		payload int
		since   time.Duration
		idle    bool
	}{
		{"question", many, next - 1, header.TCPFlagAck, 0, time.Second, true},
		{"question with a byte", many, next - 1, header.TCPFlagAck | header.TCPFlagPsh, 1, time.Second, true},
		{"question after the pause", many, next - 1, header.TCPFlagAck, 0, shutSilence, false},
		{"question in a small crowd", 10, next - 1, header.TCPFlagAck, 0, 0, false},
		{"acknowledgement", many, next, header.TCPFlagAck, 0, 0, false},
		{"data", many, next - 1, header.TCPFlagAck, 2, 0, false},
		{"end", many, next - 1, header.TCPFlagAck | header.TCPFlagFin, 0, 0, false},
		{"reset", many, next - 1, header.TCPFlagRst | header.TCPFlagAck, 0, 0, false},
	} {
		s := &shutWindows{slack: 127}
		s.note(id, true, shutWindow{next: next})
		for i := range tc.others {
			other := id
			other.LocalPort = uint16(1000 + i)
			s.note(other, true, shutWindow{next: next})
		}
		w := s.flows[id]
		w.seen = w.seen.Add(-tc.since)
		s.flows[id] = w
		frame := frame4(make([]byte, tc.payload), nil)
		p, _ := parseFrame(frame, len(frame), testHub)
		h := header.TCP(frame[etherLen+p.start:])
		h.SetSequenceNumber(tc.seq)
		h.SetFlags(uint8(tc.flags))
		if _, idle := s.inbound(p, frame[etherLen:]); idle != tc.idle {
			t.Errorf("%s: netstack hears of it: %v", tc.name, !idle)
		}
	}
}
