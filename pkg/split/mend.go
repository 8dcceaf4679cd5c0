package split

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
	"hawser/pkg/repair"
)

// Bounds of the mender.
const (
	mendFlows = 1 << 12 // flows with something unacknowledged; more go unmended
	// mendBudget bounds what all flows of a stack have acknowledged to netstack
	// before their clients have, in bytes: netstack's own bounds do not hold it.
	// mendCredit bounds what one flow has.
	mendBudget = 32 << 20
	mendCredit = 8 << 20
	// Ticks are at least mendTick apart, and mendSlow where more than mendMany
	// flows are to be looked at or none is for now.
	mendTick  = time.Millisecond
	mendSlow  = 10 * time.Millisecond
	mendMany  = 256
	mendSpare = 64 // states that are kept for the flows to come
	// A flow that sends nothing for mendIdle is forgotten if its client is owed
	// nothing: it may have ended without a word, as netstack may send once more
	// after the mender has seen a reset.
	mendIdle = 10 * time.Second
	// While more than mendQueue packets wait to be sent, nothing counts as lost by
	// time: it may be among them, and what is sent again would only make more wait. That
	// holds for mendPause in a row at most, as what clients are owed nobody else sends.
	mendQueue = 256
	mendPause = time.Second
	// What is further from what a connection has sent or acknowledged than mendReach, in
	// bytes, which is more than can be under way, is not of it.
	mendReach = 1 << 24
	// For mendOwn after the outbox has dropped packets a gap says nothing of a line.
	mendOwn = 2 * time.Second
)

// mender makes good what a lossy LAN loses, below netstack. netstack alone takes
// each loss for congestion, and waits for its least retransmission timeout of
// 200 ms wherever a train of segments is lost whole, or a segment that it sends
// again. The mender keeps what netstack sends to a client until the client has
// it, sends it again as package repair says, and tells netstack at once of what
// has arrived beyond a gap.
//
// What netstack sends again although the mender does, or the client has it, is not
// sent: after a timeout that would be all that is under way, one segment after another.
// Nor is what it asks with whether a window is still shut where the client may lack that
// byte: it is not the one that was there.
//
// It does so for clients only that have reported a gap before: the first of a
// client's losses is netstack's. So a LAN that loses nothing costs a look at the
// length of each header.
//
// outbound is called by whatever goroutine sends, inbound by the receive loop,
// tick by the runtime's timer while something waits to be sent again.
type mender struct {
	scale   func(*guard.Ends) (shift uint8, ok bool)     // of the client's windows; false: not to be mended
	send    func(*stack.PacketBuffer)                    // takes over the reference
	waiting func() int                                   // packets that have not left yet
	reset   func(ends *guard.Ends, next uint32, v6 bool) // ends netstack's connection
	count   *counters
	peers   *peers
	live    atomic.Int32 // of flows: a look without the lock

	mu     sync.Mutex
	flows  map[guard.Ends]*mended
	debt   int                   // of all flows
	parts  map[[16]byte]mendPart // by client
	spare  []*mended
	timer  *time.Timer
	tickAt time.Duration // when timer fires; 0: it does not
	paused time.Duration // since when nothing counts as lost by time; 0: it does
	drops  uint64        // of the outbox, as last seen
	dropAt time.Duration // and when they were; 0: never
	closed bool
	again  []*stack.PacketBuffer
}

// mended is one connection's sending half.
type mended struct {
	flow   repair.Flow
	pieces []piece // not acknowledged, in order; pieces[:first] are
	first  int
	head   template
	at     time.Duration // of the last payload sent
	shift  uint8         // of the client's windows
	heard  uint32        // newest acknowledgement and window that netstack has seen
	window uint16
	debt   int // the flow's, as counted in mender.debt
}

// piece is something sent.
type piece struct {
	repair.Range
	base uint32 // sequence number of pkt's payload
	pkt  *stack.PacketBuffer
}

// mend makes a mender the last filter so far. It is for clients
// that the guard has let in, as that knows their windows' scale.
func (s *Stack) mend() *mender {
	m := &mender{count: &s.count, peers: s.keeper.opts.Gate.poor, send: s.out.again, waiting: s.out.waiting, scale: s.keeper.scaleOf, reset: s.keeper.giveUp}
	m.flows = map[guard.Ends]*mended{}
	s.out.beyond = len(s.out.filters)
	s.in.filters = append(s.in.filters, m)
	s.out.filters = append(s.out.filters, m)
	return m
}

// scaleOf is the shift of the windows of a client that reports gaps.
func (k *keeper) scaleOf(ends *guard.Ends) (shift uint8, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.flows[*ends]
	if w == nil || w.flow.State() != guard.Open || !w.flow.Hello.SACK {
		return 0, false
	}
	return uint8(max(w.flow.Hello.Scale, 0)), true
}

// giveUp resets netstack's end of a connection; next is the sequence number that
// netstack expects of the client.
func (k *keeper) giveUp(ends *guard.Ends, next uint32, v6 bool) {
	k.inject(&guard.Segment{Flags: guard.FlagRST, Seq: next, Scale: guard.NoScale}, ends, v6)
}

// outbound implements filter: it sees a packet of netstack's before anybody
// changes it, and lets it pass unless all of it is being mended.
func (m *mender) outbound(pkt *stack.PacketBuffer) bool { return !m.awake() || m.keep(pkt) }

// awake reports whether there is anything to mend.
func (m *mender) awake() bool { return m.peers.size.Load() > 0 || m.live.Load() > 0 }

// idle implements filter.
func (m *mender) idle() {}

// keep notes a packet of netstack's; false: it is not to be sent.
func (m *mender) keep(pkt *stack.PacketBuffer) bool {
	tcp := header.TCP(pkt.TransportHeader().Slice())
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber || len(tcp) < header.TCPMinimumSize {
		return true
	}
	ends := endsTo(pkt, tcp)
	n := pkt.Data().Size()
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.flows[ends]
	if tcp.Flags()&(header.TCPFlagSyn|header.TCPFlagRst) != 0 {
		m.forget(&ends, f)
		return true
	}
	now := m.peers.now()
	if f == nil && n > 0 {
		f = m.make(&ends, now)
	}
	if f == nil {
		return true
	}
	f.head.note(pkt, tcp)
	if n == 0 {
		return true
	}
	f.at = now
	base := tcp.SequenceNumber()
	all := repair.Range{From: base, To: base + uint32(n)}
	fresh, ok := f.flow.Sent(now, all, segmentSize(pkt), f.head.stamp)
	if !ok {
		if f.flow.Owes(all) { // a question whether the window is shut, with a byte that means nothing
			return false
		}
		return f.head.ipLen == 0 || !f.flow.Mends(all) // netstack repairs by itself
	}
	f.pieces = append(f.pieces, piece{fresh, base, pkt.IncRef()})
	m.arm(f, now)
	return true
}

// make returns the state of a connection that begins to send, nil if it is not
// to be mended. The caller holds mu, which make lets go for a moment.
func (m *mender) make(ends *guard.Ends, now time.Duration) *mended {
	line, ok := m.peers.line(&ends.Client, now)
	if !ok || m.closed {
		return nil
	}
	if !m.room(&ends.Client) {
		return nil
	}
	m.mu.Unlock()
	shift, ok := m.scale(ends)
	m.mu.Lock()
	if !ok || m.closed || m.flows[*ends] != nil {
		return m.flows[*ends]
	}
	f := &mended{}
	if n := len(m.spare); n > 0 {
		f, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	f.shift = shift
	f.flow.Begin(line)
	m.flows[*ends] = f
	m.has(&ends.Client, 1, 0)
	m.live.Store(int32(len(m.flows)))
	return f
}

// inbound sees a segment before netstack does and may swallow it.
func (m *mender) inbound(s *segment) action {
	tcp := s.tcp()[:s.data-s.start]
	awake := m.awake()
	if !awake && !longer(tcp) {
		return pass
	}
	var list [4]repair.Range
	blocks := selective(tcp, list[:0])
	if !awake && len(blocks) == 0 {
		return pass
	}
	ends := endsOf(s)
	m.mu.Lock()
	f := m.flows[ends]
	if f == nil {
		m.meet(&ends, tcp, blocks)
		m.mu.Unlock()
		return pass
	}
	a := m.acknowledged(&ends, f, s, tcp, blocks)
	again := m.takeAgain()
	m.mu.Unlock()
	m.sendAll(again)
	return a
}

// meet remembers a client that reports a gap. The caller holds mu.
func (m *mender) meet(ends *guard.Ends, tcp header.TCP, blocks []repair.Range) {
	for _, b := range blocks {
		if int32(b.To-tcp.AckNumber()) > 0 && !m.closed { // else it is a duplicate (RFC 2883)
			if now := m.peers.now(); !m.ours(now) {
				m.peers.note(&ends.Client, now)
			}
			return
		}
	}
}

// ours reports whether a gap may be of the outbox's making. The caller holds mu.
func (m *mender) ours(now time.Duration) bool {
	if n := m.count.sendDrops.Load(); n != m.drops {
		m.drops, m.dropAt = n, now
	}
	return m.dropAt > 0 && now-m.dropAt < mendOwn
}

// acknowledged works on an acknowledgement. The caller holds mu.
func (m *mender) acknowledged(ends *guard.Ends, f *mended, s *segment, tcp header.TCP, blocks []repair.Range) action {
	flags, ack := tcp.Flags(), tcp.AckNumber()
	switch {
	case flags&header.TCPFlagRst != 0:
		if f.ends(tcp.SequenceNumber()) {
			m.forget(ends, f)
		}
		return pass
	case flags&header.TCPFlagSyn != 0 || flags&header.TCPFlagAck == 0 || !f.takes(tcp.SequenceNumber(), ack):
		return pass // netstack takes nothing of it
	}
	now := m.peers.now()
	if len(blocks) > 0 {
		m.peers.note(&ends.Client, now)
	}
	edge := ack + uint32(tcp.WindowSize())<<f.shift
	v := f.flow.Ack(now, ack, edge, blocks, m.credit(ends, f), func(r repair.Range) { m.build(f, r) })
	if v.Pass {
		return pass
	}
	f.release(f.flow.Acked())
	m.account(ends, f)
	if f.flow.Idle() {
		m.peers.learn(&ends.Client, f.flow.Line)
		m.forget(ends, f)
		return pass
	}
	m.arm(f, now)
	return f.tell(v, tcp, len(blocks) > 0, s.payload() == 0 && flags == header.TCPFlagAck)
}

// ends says that a reset may well be one that netstack minds: it has the number that comes
// next, or one beyond that which netstack has not acknowledged yet. What is owed to the
// client is lost with its connection, so another reset must not be taken for its end
// (RFC 5961 section 3.2).
func (f *mended) ends(seq uint32) bool { return seq-f.head.ack < mendReach }

// takes says that netstack may well mind what a segment acknowledges (RFC 5961 section 5.2).
func (f *mended) takes(seq, ack uint32) bool {
	return seq-f.head.ack+mendReach < 2*mendReach && int32(ack-f.flow.End()) < mendReach
}

// tell makes an acknowledgement say to netstack what it is to know. pure says
// that it says nothing else.
func (f *mended) tell(v repair.Verdict, tcp header.TCP, blocks, pure bool) action {
	changed := blocks
	if ack := tcp.AckNumber(); v.Tell != ack || v.Edge != ack+uint32(tcp.WindowSize())<<f.shift {
		changed = true
		left := max(int32(v.Edge-v.Tell), 0)
		tcp.SetWindowSize(uint16(min(left>>f.shift, 0xffff)))
		tcp.SetAckNumber(v.Tell)
		if at := stampAt(tcp); at > 0 && v.Ahead {
			binary.BigEndian.PutUint32(tcp[at+4:], v.Stamp)
		}
	}
	if v.Asks && v.Tell == f.heard && f.window > 0 && tcp.WindowSize() > 0 {
		tcp.SetWindowSize(f.window) // with another one it would be no duplicate (RFC 5681 section 2)
	}
	if blocks {
		hide(tcp, v)
	}
	window := tcp.WindowSize()
	if changed && !v.Show && pure && v.Tell == f.heard && window == f.window && window > 0 {
		return swallow // netstack would count it as a duplicate
	}
	f.heard, f.window = v.Tell, window
	return pass
}

// account keeps the sums of debts. The caller holds mu.
func (m *mender) account(ends *guard.Ends, f *mended) {
	more := f.flow.Debt() - f.debt
	m.debt += more
	f.debt += more
	m.has(&ends.Client, 0, more)
}

// release gives back what is acknowledged.
func (f *mended) release(acked uint32) {
	n := f.first
	for n < len(f.pieces) && int32(f.pieces[n].To-acked) <= 0 {
		f.pieces[n].pkt.DecRef()
		f.pieces[n].pkt = nil
		n++
	}
	if f.first = n; n == len(f.pieces) || n > 64 && n > len(f.pieces)/2 {
		kept := copy(f.pieces, f.pieces[n:])
		clear(f.pieces[kept:])
		f.pieces, f.first = f.pieces[:kept], 0
	}
}

// forget drops a connection's state. The caller holds mu.
func (m *mender) forget(ends *guard.Ends, f *mended) {
	if f == nil {
		return
	}
	for i := f.first; i < len(f.pieces); i++ {
		f.pieces[i].pkt.DecRef()
	}
	m.debt -= f.debt
	m.has(&ends.Client, -1, -f.debt)
	delete(m.flows, *ends)
	m.live.Store(int32(len(m.flows)))
	clear(f.pieces)
	if len(m.spare) < mendSpare && cap(f.pieces) <= 1<<8 {
		f.flow.Reset()
		*f = mended{flow: f.flow, pieces: f.pieces[:0]}
		m.spare = append(m.spare, f)
	}
}

// takeAgain returns what is to be sent again. The caller holds mu.
func (m *mender) takeAgain() []*stack.PacketBuffer {
	again := m.again
	m.again = nil
	return again
}

func (m *mender) sendAll(pkts []*stack.PacketBuffer) {
	for _, pkt := range pkts {
		m.send(pkt)
	}
}

// arm sees to it that a tick follows in time for f. The caller holds mu.
func (m *mender) arm(f *mended, now time.Duration) {
	at, ok := f.flow.Due()
	if !ok {
		at = f.at + mendIdle
	}
	if m.closed || m.tickAt > now && m.tickAt <= at {
		return
	}
	wait := max(at-now, mendTick)
	if len(m.flows) > mendMany || m.paused > 0 {
		wait = max(wait, mendSlow)
	}
	if m.tickAt > now && m.tickAt <= now+wait {
		return
	}
	m.tickAt = now + wait
	if m.timer == nil {
		m.timer = time.AfterFunc(wait, m.tick)
		return
	}
	m.timer.Reset(wait)
}

// tick sends again what is due by time.
func (m *mender) tick() {
	type victim struct {
		ends guard.Ends
		next uint32
		v6   bool
	}
	var lost []victim
	m.mu.Lock()
	m.tickAt = 0
	now := m.peers.now()
	looks := m.looks(now)
	for ends, f := range m.flows {
		if hopeless := f.flow.Hopeless(now); hopeless || f.flow.Debt() == 0 && now-f.at >= mendIdle {
			if hopeless {
				lost = append(lost, victim{ends, f.head.ack, f.head.v6()})
			}
			m.forget(&ends, f)
			continue
		}
		if at, ok := f.flow.Due(); ok && at <= now && looks {
			f.flow.Tick(now, func(r repair.Range) { m.build(f, r) })
		}
		m.arm(f, now)
	}
	again := m.takeAgain()
	m.mu.Unlock()
	m.sendAll(again)
	for _, l := range lost {
		m.reset(&l.ends, l.next, l.v6)
	}
}

// looks reports whether what is due by time is to be done. The caller holds mu.
func (m *mender) looks(now time.Duration) bool {
	switch {
	case m.waiting() <= mendQueue:
		m.paused = 0
		return true
	case m.paused == 0:
		m.paused = now
	case now-m.paused >= mendPause:
		m.paused = now
		return true
	}
	return false
}

// close gives everything back; nothing is mended any more.
func (m *mender) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	for ends, f := range m.flows {
		m.forget(&ends, f)
	}
}
