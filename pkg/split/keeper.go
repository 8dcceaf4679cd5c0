package split

import (
	"crypto/rand"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
	"hawser/pkg/slim"
)

const (
	// lingering is how often the remains of a closed connection are looked at:
	// the stack's last segments need their translation.
	lingering = timeWait + time.Second
	// resetsPerSecond bounds the resets that answer segments of connections
	// nobody knows. What is beyond vanishes: it would hit forged sources.
	resetsPerSecond = 1000
	// resetPause is for how long there are none after a client was left without
	// a place.
	resetPause = 5 * time.Second
)

// GuardOptions make a stack answer handshakes by the guard instead of by
// netstack.
type GuardOptions struct {
	// SYN is a packet socket like Options.FD that gets all SYNs of clients;
	// Options.FD gets none. The stack owns it from a successful New on.
	SYN int
	// Gate is shared by the stacks of one agent.
	Gate *Gate
	// Mode returns what a policy says of a connection; nil: the gate's mode.
	// It is called on the stack's goroutines and must not block.
	Mode func(dst, src netip.AddrPort) guard.Mode
}

// keeper is the handshake guard of one stack: the filter that knows which
// client has a flow and in which state.
//
// Lock order: keeper.mu, then lull.mu, Gate.mu or Gate.unused.mu. None is held while netstack
// or the owner of a connection is called.
type keeper struct {
	stack *Stack
	opts  GuardOptions
	count guardCounters
	scale int8                 // of our windows
	lull  atomic.Pointer[lull] // nil before Run

	mu      sync.Mutex
	flows   map[guard.Ends]*ward
	pending wards // whose servers have not answered, in the order of their coming
	waiting map[guard.Server]*line
	entries wards     // whose servers are there, and that wait for their handshake with the stack
	peak    slim.Peak // of flows
	ending  []ending  // by time
	wound   bool      // expire will be called
	resets  int       // that may still be sent in the second since
	since   time.Time
	crowded time.Time // when a client was last left without a place
}

// ward is one flow that the guard keeps.
type ward struct {
	ends      guard.Ends
	v6        bool
	connected bool // counted by the gate as such
	again     bool // its client has sent the SYN of another connection
	strict    bool // the client's SYN is answered by netstack, once the server is there
	left      bool // its owner has let go of conn
	displaced bool // its place has gone to another client
	asked     bool // the server is asked for it; until then it waits in keeper.waiting, and has no conn
	refused   bool // the server has refused it, or
	silent    bool // not answered
	used      bool // a byte of payload has come from either end, or the flow is over
	unused    bool // in Gate.unused, whose mu guards it
	queued    bool // in keeper.entries
	flow      guard.Flow
	isn       uint32 // of the SYN that again is for
	conn      *Conn
	kept      [][]byte // segments that wait for the stack's SYN-ACK

	since slim.Instant // when it came; of unused ones when they began to be that
	near  [2]beside    // its neighbours in keeper.pending, and in keeper.waiting, entries or Gate.unused
}

// moments are what wards note of the time.
var moments = slim.NewClock(time.Now())

// server is whom the client wants to reach.
func (w *ward) server() guard.Server { return serverIn(&w.ends) }

func serverIn(e *guard.Ends) guard.Server { return guard.Server{Addr: e.Server, Port: e.ServerPort} }

// ending is a flow whose owner has gone.
type ending struct {
	w   *ward
	due time.Time
}

func newKeeper(s *Stack, o GuardOptions) *keeper {
	k := &keeper{stack: s, opts: o, flows: map[guard.Ends]*ward{}, waiting: map[guard.Server]*line{}, pending: wards{by: byAge}, entries: wards{by: byEntry}}
	k.scale = int8(tcp.FindWndScale(seqnum.Size(s.opts.MaxBuffer)))
	o.Gate.enlist(k)
	return k
}

// fill never fails (crypto/rand).
func fill(p []byte) { _, _ = rand.Read(p) }

// clock is the time in timestamp units (1 ms) as clients know it.
func (k *keeper) clock() uint32 { return k.opts.Gate.cookies.clock() }

// turn renews the cookies' keys when their time is over.
func (k *keeper) turn(now time.Time) *guard.Jar { return k.opts.Gate.cookies.turn(now) }

// inbound implements filter.
func (k *keeper) inbound(s *segment) action {
	ends := endsOf(s)
	k.mu.Lock()
	w := k.flows[ends]
	if w == nil {
		k.mu.Unlock()
		return k.stranger(&ends, s)
	}
	if (w.renewed(s.tcp()) || w.flow.Strange(s.tcp())) && k.replaced(w, s) {
		k.mu.Unlock()
		w.expel()
		return k.stranger(&ends, s)
	}
	switch w.flow.State() {
	case guard.Open:
	case guard.Bounded:
		if !k.take(w, s.tcp(), s.payload()) {
			k.mu.Unlock()
			return swallow
		}
	default:
		k.hear(w, s)
		return swallow
	}
	k.passed(w, s.tcp(), s.payload())
	k.mu.Unlock()
	return pass
}

// passed translates a client's segment, which goes to the stack. The caller holds mu.
func (k *keeper) passed(w *ward, tcp []byte, payload int) {
	if payload > 0 {
		k.use(w)
	}
	w.flow.Inbound(tcp)
}

// take asks for a segment's part of the first flight. The caller holds mu.
func (k *keeper) take(w *ward, tcp []byte, payload int) bool {
	n, ok := w.flow.Fresh(tcp, payload)
	if !ok || !k.opts.Gate.take(n, w.server(), time.Now()) {
		k.count.excess.Add(1)
		k.count.discarded.Add(uint64(payload))
		return false
	}
	w.flow.Took(n)
	return true
}

// hear reacts to a segment of a client whose connection the stack does not
// have yet. The caller holds mu, which it releases.
func (k *keeper) hear(w *ward, s *segment) {
	var reply guard.Segment
	switch w.flow.Hear(s.tcp(), s.payload()) {
	case guard.Reply:
		k.count.probes.Add(1)
		k.count.discarded.Add(uint64(max(s.payload(), 0)))
		reply = w.flow.Shut(k.clock())
	case guard.Doubt:
		k.count.doubted.Add(1)
		reply = w.flow.Shut(k.clock())
	case guard.Hold:
		k.keep(w, s)
	case guard.Gone:
		k.remove(w) // else the stack's handshake, if it is under way, would succeed
		k.mu.Unlock()
		k.count.abandoned.Add(1)
		if w.asked {
			w.conn.fail()
		}
		return
	case guard.Forged:
		k.count.forged.Add(1)
	}
	k.mu.Unlock()
	if reply.Flags != 0 {
		k.emit(&reply, &w.ends, w.v6)
	}
}

// keep copies a segment of the first flight for when the stack has answered.
func (k *keeper) keep(w *ward, s *segment) {
	held := 0
	for _, p := range w.kept {
		held += len(p)
	}
	if held+s.end > 2*k.opts.Gate.limits().FirstFlight {
		k.count.excess.Add(1)
		return
	}
	p := make([]byte, 0, s.end)
	w.kept = append(w.kept, append(append(p, s.ip...), s.tail...))
}

// stranger judges a segment of no flow: an ACK with a cookie makes one. Where a client's
// first segment was lost and another has come, that brings none: the first comes again.
func (k *keeper) stranger(ends *guard.Ends, s *segment) action {
	h := s.tcp()
	flags := byte(h.Flags())
	if flags&(guard.FlagSYN|guard.FlagRST) != 0 || flags&guard.FlagACK == 0 {
		k.count.strays.Add(1)
		return swallow
	}
	hello, offered, ok := k.check(ends, h, s.payload())
	switch {
	case ok:
	case k.stack.syns.awaits(ends, h.AckNumber()):
		k.count.strays.Add(1)
		return swallow
	default:
		k.count.forged.Add(1)
		k.deny(ends, h, s.v6)
		return swallow
	}
	k.opts.Gate.floods.valid.Add(1)
	if !k.stack.splice.adopt(ends, hello, s) {
		k.admit(ends, hello, offered, s)
	} else {
		k.opts.Gate.floods.count(0, 1, time.Now())
	}
	return swallow
}

// check looks for a cookie. The first data of a client follows its SYN's
// number, and so does its empty ACK; a probe of a window of 0 repeats that.
func (k *keeper) check(ends *guard.Ends, h header.TCP, payload int) (guard.Hello, bool, bool) {
	j := k.turn(time.Now())
	_, echo, stamped := guard.Stamps(h)
	isn, cookie := h.SequenceNumber()-1, h.AckNumber()-1
	hello, offered, ok := j.Check(ends, isn, cookie, stamped, echo)
	if !ok && payload <= 1 {
		hello, offered, ok = j.Check(ends, isn+1, cookie, stamped, echo)
	}
	return hello, offered, ok
}

// deny answers a segment of a connection that nobody knows, such as one from
// before a restart. While clients wait for places it does not: what follows the
// first segment of one of those has no valid cookie, and the first comes again.
func (k *keeper) deny(ends *guard.Ends, h header.TCP, v6 bool) {
	now := time.Now()
	k.mu.Lock()
	if now.Sub(k.since) >= time.Second {
		k.since, k.resets = now, resetsPerSecond
	}
	k.resets--
	ok := k.resets >= 0 && now.Sub(k.crowded) > resetPause
	k.mu.Unlock()
	if !ok {
		return
	}
	k.count.denied.Add(1)
	r := guard.Segment{Flags: guard.FlagRST, Seq: h.AckNumber(), Scale: guard.NoScale}
	k.emit(&r, ends, v6)
}

// renewed says that a segment has the number of the first after the last SYN, or of a probe
// before it. Of the others of a connection that goes on, with millions of numbers, one in
// four million would pass for one with a cookie where there are no timestamps.
func (w *ward) renewed(h header.TCP) bool { return w.again && h.SequenceNumber()-w.isn <= 1 }

// replaced says that a segment begins a new connection between the ends of w,
// which is forgotten then. The caller holds mu.
func (k *keeper) replaced(w *ward, s *segment) bool {
	h := s.tcp()
	if h.Flags()&(header.TCPFlagSyn|header.TCPFlagRst) != 0 || !h.Flags().Contains(header.TCPFlagAck) {
		return false
	}
	hello, _, ok := k.check(&w.ends, h, s.payload())
	if !ok || hello.ISN == w.flow.Hello.ISN {
		return false
	}
	k.count.replaced.Add(1)
	k.remove(w)
	return true
}

// remove forgets a flow. The caller holds mu.
func (k *keeper) remove(w *ward) {
	if k.flows[w.ends] == w {
		delete(k.flows, w.ends)
		k.flows = slim.Map(k.flows, &k.peak)
	}
	if !w.asked && !w.left {
		k.unlist(w)
	}
	k.use(w)
	k.lull.Load().forget(w.ends)
	k.unqueue(w)
	k.opts.Gate.give(w.flow.Settle())
	w.flow.End()
	w.kept = nil
}

// idle implements filter.
func (k *keeper) idle() {
	now := time.Now()
	k.mu.Lock()
	k.sweep(now)
	k.mu.Unlock()
}

// wind lets expire look at what is ending although nothing comes in any more: the
// last connections of a rush would be kept for as long. The caller holds mu.
func (k *keeper) wind() {
	if !k.wound && len(k.ending) > 0 {
		k.wound = true
		time.AfterFunc(lingering, k.expire)
	}
}

// expire is idle when nothing has come in for a while.
func (k *keeper) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wound = false
	k.sweep(time.Now())
	k.wind()
}

// sweep forgets flows that the stack has finished. The caller holds mu.
func (k *keeper) sweep(now time.Time) {
	for len(k.ending) > 0 && now.After(k.ending[0].due) {
		w := k.ending[0].w
		k.ending = k.ending[1:]
		if w.flow.State() == guard.Over {
			continue
		}
		if w.conn.finished() {
			k.remove(w)
			continue
		}
		k.ending = append(k.ending, ending{w, now.Add(lingering)})
	}
	if len(k.ending) == 0 {
		k.ending = nil
	}
}

// emit sends a segment to the client.
func (k *keeper) emit(s *guard.Segment, ends *guard.Ends, v6 bool) {
	l := k.stack.link
	frame := make([]byte, 0, etherLen+guard.MaxHeaders)
	frame = appendEther(frame, l, v6)
	frame = s.Append(frame, ends, v6, guard.ToClient)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	_ = k.stack.out.enqueue(pkt) // full: as lost on the way
	pkt.DecRef()
}

// inject gives the stack a segment of the guard's.
func (k *keeper) inject(s *guard.Segment, ends *guard.Ends, v6 bool) {
	k.injectRaw(s.Append(make([]byte, 0, guard.MaxHeaders), ends, v6, guard.ToServer), v6)
}

func (k *keeper) injectRaw(ip []byte, v6 bool) {
	network := header.IPv4ProtocolNumber
	if v6 {
		network = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	k.stack.link.dispatcher.DeliverNetworkPacket(network, pkt)
	pkt.DecRef()
}

func appendEther(b []byte, l *link, v6 bool) []byte {
	b = append(append(b, l.host...), l.hub...)
	if v6 {
		return append(b, 0x86, 0xdd)
	}
	return append(b, 0x08, 0)
}

// endsOf are the ends of a segment that a client has sent.
func endsOf(s *segment) (e guard.Ends) {
	put(&e.Client, s.source())
	put(&e.Server, s.destination())
	h := s.tcp()
	e.ClientPort, e.ServerPort = h.SourcePort(), h.DestinationPort()
	return e
}

// put writes an address in its mapped form.
func put(to *[16]byte, a []byte) {
	if len(a) == 16 {
		copy(to[:], a)
		return
	}
	to[10], to[11] = 0xff, 0xff
	copy(to[12:], a)
}

// clientOf and serverOf are the ends as addresses.
func clientOf(e *guard.Ends) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(e.Client).Unmap(), e.ClientPort)
}

func serverOf(e *guard.Ends) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(e.Server).Unmap(), e.ServerPort)
}
