package split

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
	"hawser/pkg/splice"
)

// splicer is the filter that takes connections around netstack and the tunnel:
// out of the hub again, to the server, by the host's own route.
type splicer struct {
	direct func(client, server netip.AddrPort) bool
	isn    func() uint32
	scale  int8 // shift of our windows towards clients
	epoch  time.Time
	out    *injector
	keeper *keeper // whose gate bounds clients; nil without a guard
	count  *counters

	kick chan struct{} // one slot: the next deadline is earlier than it was

	mu     sync.Mutex
	table  *splice.Table
	armed  time.Duration // the deadline that loop waits for
	closed bool
	last   splice.Counters // when it was closed
}

// noDeadline is later than any.
const noDeadline = time.Duration(1<<63 - 1)

// newSplicer returns the filter that Options.Direct asks for.
func newSplicer(o Options, raw syscall.RawConn, l *link, count *counters) (*splicer, error) {
	// What netstack and the guard tell clients, so that a handshake can lead to
	// any of them.
	scale := int8(tcp.FindWndScale(seqnum.Size(o.MaxBuffer)))
	s := &splicer{direct: o.Direct, scale: scale, isn: random32, epoch: time.Now(), kick: make(chan struct{}, 1), armed: noDeadline, count: count}
	s.out = newInjector(raw, l)
	var err error
	s.table, err = splice.New(splice.Config{
		Hub4: o.Hub4, Hub6: o.Hub6, Worker: o.Worker, Workers: o.Workers,
		MSS:   uint16(min(o.MTU, 1<<16-1) - header.IPv4MinimumSize - header.TCPMinimumSize),
		Scale: scale,
		Limit: o.MaxSpliced, Door: s, Emit: s.emit, Random: random32, Shunt: o.Shunt,
	})
	return s, err
}

// random32 returns bits that nobody can guess.
func random32() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.NativeEndian.Uint32(b[:])
}

func (s *splicer) now() time.Duration { return time.Since(s.epoch) }

// emit sends a packet of the table's own.
func (s *splicer) emit(packet []byte) {
	if !s.out.send(packet) {
		s.count.sendErrors.Add(1)
	}
}

// inbound implements filter.
func (s *splicer) inbound(g *segment) action {
	p := splice.Packet{Header: g.ip, Start: g.start, Size: g.end, Partial: g.partial, Segment: g.mss()}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.table.Handle(now, &p) {
	case splice.Took:
		return swallow
	case splice.Forward:
		g.replace(p.Out, p.Skip)
		if grown := len(p.Out) - p.Skip; grown > 0 || p.Partial != g.partial || p.Segment != g.mss() {
			g.offload(p.Segment, p.Partial, len(p.Out))
		}
		return forward
	}
	if s.closed || !g.opening() || !s.direct(g.ends()) {
		return pass
	}
	s.table.Greet(now, &p, s.isn())
	return swallow
}

// wants says that a new connection is for the splicer; a nil one wants none.
func (s *splicer) wants(client, server netip.AddrPort) bool {
	return s != nil && s.direct(client, server)
}

// knows says that a SYN has come for a connection that is spliced, and has been
// dealt with.
func (s *splicer) knows(g *segment) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := splice.Packet{Header: g.ip, Start: g.start, Size: g.end}
	return s.table.Handle(s.now(), &p) == splice.Took
}

// ask passes a SYN on to the server; false leaves it to the guard's cookies, which cost
// nothing, as where many wait for servers.
func (s *splicer) ask(g *segment, now time.Time) bool {
	if s == nil || !s.direct(g.ends()) || s.keeper.opts.Gate.resolve(guard.Auto, false, now) == guard.ZeroWindow {
		return false
	}
	p := splice.Packet{Header: g.ip, Start: g.start, Size: g.end}
	s.mu.Lock()
	taken := !s.closed && s.table.Ask(s.now(), &p)
	s.mu.Unlock()
	if taken {
		s.keeper.opts.Gate.floods.count(0, 1, now)
	}
	return taken
}

// adopt takes over a client at the first segment after the SYN, whose cookie
// the guard has found valid; false leaves it to the guard. For one without a
// place nothing is done: its probes ask anew. What the segment carries is
// dropped, and comes again once the window is open.
func (s *splicer) adopt(ends *guard.Ends, hello guard.Hello, g *segment) bool {
	if !s.wants(clientOf(ends), serverOf(ends)) {
		return false
	}
	h := g.tcp()
	val, echo, _ := guard.Stamps(h)
	offered := splice.Options{MSS: hello.MSS, Scale: hello.Scale, SACK: hello.SACK, Stamps: hello.Stamps, Val: val}
	told := splice.Options{Scale: s.scale, SACK: hello.SACK, Stamps: hello.Stamps, Val: echo}
	s.mu.Lock()
	taken := !s.closed && s.table.Open(s.now(), splice.Client{
		Addr: clientOf(ends), Server: serverOf(ends), ISS: hello.ISN, Ours: h.AckNumber() - 1,
		Window: h.WindowSize(), Offered: offered, Told: told,
	})
	s.mu.Unlock()
	if taken {
		s.keeper.stack.syns.settle(ends)
	}
	return true
}

// Admit implements splice.Door: what is spliced counts among a client's flows.
func (s *splicer) Admit(client [16]byte) bool {
	if s.keeper == nil {
		return true
	}
	v := s.keeper.opts.Gate.admit(client, guard.Server{}, time.Now())
	if v != guard.Admitted {
		s.keeper.count.refused[v].Add(1)
	}
	return v == guard.Admitted
}

// Connected implements splice.Door.
func (s *splicer) Connected(client [16]byte) {
	if s.keeper != nil {
		s.keeper.opts.Gate.connected(client, guard.Server{}, 0)
	}
}

// Refused implements splice.Door.
func (s *splicer) Refused(client [16]byte) {
	if s.keeper != nil {
		s.keeper.opts.Gate.refuse(client, guard.Server{}, false)
	}
}

// Closed implements splice.Door.
func (s *splicer) Closed(client [16]byte) {
	if s.keeper != nil {
		s.keeper.opts.Gate.closed(client)
	}
}

// opening says that the segment asks for a new connection.
func (s *segment) opening() bool {
	const which = header.TCPFlagSyn | header.TCPFlagAck | header.TCPFlagRst | header.TCPFlagFin
	return s.tcp().Flags()&which == header.TCPFlagSyn
}

// ends are the segment's source and destination.
func (s *segment) ends() (src, dst netip.AddrPort) {
	from, _ := netip.AddrFromSlice(s.source())
	to, _ := netip.AddrFromSlice(s.destination())
	return netip.AddrPortFrom(from, s.tcp().SourcePort()), netip.AddrPortFrom(to, s.tcp().DestinationPort())
}

// inboundError implements errorFilter.
func (s *splicer) inboundError(ip []byte, start, end int) action {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.HandleError(s.now(), &splice.Packet{Header: ip, Start: start, Size: end}) == splice.Foreign {
		return pass
	}
	return swallow
}

// outbound implements filter: netstack knows nothing of spliced connections.
func (s *splicer) outbound(*stack.PacketBuffer) bool { return true }

// idle implements filter: it wakes loop when something is due earlier.
func (s *splicer) idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.table.Deadline(); ok && d < s.armed {
		s.armed = d
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// loop does what is due until stop is closed, then resets what still stands.
func (s *splicer) loop(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(s.sweep())
		select {
		case <-stop:
			s.close()
			return
		case <-s.kick:
		case <-timer.C:
		}
	}
}

// sweep does what is due and returns how long it has time until the next.
func (s *splicer) sweep() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if d, ok := s.table.Deadline(); ok && d <= now {
		s.table.Sweep(now)
	}
	d, ok := s.table.Deadline()
	if !ok {
		s.armed = noDeadline
		return time.Hour
	}
	s.armed = d
	return max(d-now, time.Millisecond)
}

// close resets every connection and takes no more.
func (s *splicer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.table.Reset(s.now())
	s.last = s.table.Counters() // the shunt may be gone when they are wanted
}

// stats adds the splicer's figures.
func (s *splicer) stats(st *Stats) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		st.Spliced = s.last
		return
	}
	st.Spliced, st.SplicedNow, st.ShuntedNow = s.table.Counters(), s.table.Flows(), s.table.Shunted()
}

// injector sends single packets out of the hub, from any goroutine that its
// owner allows one at a time.
type injector struct {
	raw   syscall.RawConn
	vnet  [vnetLen]byte // all zero: nothing is left to do
	ether [etherLen]byte
	iovs  [3]unix.Iovec
	msg   [1]mmsghdr
	sent  int
	write func(fd uintptr)
}

func newInjector(raw syscall.RawConn, l *link) *injector {
	i := &injector{raw: raw}
	copy(i.ether[:6], l.host)
	copy(i.ether[6:], l.hub)
	i.iovs[0], i.iovs[1] = iovec(i.vnet[:]), iovec(i.ether[:])
	i.write = i.attempt
	return i
}

// send sends an IP packet, or drops it when the socket has no room.
func (i *injector) send(packet []byte) bool {
	proto := header.IPv4ProtocolNumber
	if packet[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	binary.BigEndian.PutUint16(i.ether[12:], uint16(proto))
	i.iovs[2] = iovec(packet)
	i.msg[0].point(i.iovs[:])
	i.sent = 0
	return i.raw.Control(i.write) == nil && i.sent == 1
}

func (i *injector) attempt(fd uintptr) { i.sent, _ = sendmmsg(fd, i.msg[:]) }
