package relay

import (
	"errors"
	"net/netip"
	"sync/atomic"

	"hawser/pkg/compress"
	"hawser/pkg/party"
	"hawser/pkg/slim"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// state is where a flow stands.
type state uint8

const (
	// connecting: the server is being dialled; data from the tunnel is kept,
	// bounded by the credit, and neither direction runs. Cloud only.
	connecting state = iota
	// open: both directions run, each until it has ended.
	open
	// over: the flow is forgotten by the worker. Blocks that are still in the
	// card are thrown away when they come back.
	over
)

func (s state) String() string {
	switch s {
	case connecting:
		return "connecting"
	case open:
		return "open"
	}
	return "over"
}

// half is what both directions of a flow have.
type half struct {
	m       Machine
	round   uint8  // of the opening direction: changes when blocks in the card become void
	counter uint32 // of the next record
	refused *task  // the block that waits for the card
	done    results
}

// sealing is the direction from the plain party to the tunnel.
type sealing struct {
	half
	memory   compress.Memory
	served   bool   // the party knows that the server is there
	broken   bool   // the party is; it has ended by that
	full     bool   // the last block was as long as it could be
	least    uint16 // credit below which nothing is read, in sealed bytes; 0 until the first credit
	reserved int    // of the credit, for blocks in the card
	sent     uint64 // sealed bytes given to the session
	limit    uint64 // of sent
}

// opening is the direction from the tunnel to the plain party.
type opening struct {
	half
	fin      bool // the stream ends at finAt
	bad      bool // what is first in rx cannot be a record
	rewind   bool // data is void until the session has gone back
	tries    uint8
	need     uint16 // bytes of the record that is first in rx; 0 unknown
	trickle  trickle
	unposted int // consumed bytes that the session was not told of
	rx       queue
	received uint64 // end of rx in the sealed stream
	consumed uint64 // start of the first record that is not delivered
	finAt    uint64
}

// flow is one client connection. The worker owns it, but for bits and queued.
type flow struct {
	w       *Worker
	session *session
	id      stream.ID
	conn    party.Conn
	server  *netip.AddrPort // that is dialled, until it is connected; cloud only
	bits    atomic.Uint32   // party.Ready, noted and not yet seen by the worker
	queued  atomic.Bool     // in the mailbox's list of ready flows
	hung    bool            // the party said that it is broken
	severed bool            // it takes nothing any more: only what it has said is still read
	leaving bool            // the peer has reset the flow: only what it has sent is still written
	listed  bool            // in the worker's list of flows to run
	parked  bool            // in the worker's list of flows that wait for the card
	state   state
	next    *flow // in the list of flows to run
	behind  *flow // in the list of flows that wait for the card
	up      sealing
	down    opening
}

// note is what the party calls when it is ready, on any goroutine.
func (f *flow) note(r party.Ready) {
	f.bits.Or(uint32(r))
	if f.queued.CompareAndSwap(false, true) {
		f.w.box.noted(f)
	}
}

// latch hands the noted readiness to the directions. It returns false when
// the flow is over.
func (w *Worker) latch(f *flow) bool {
	f.queued.Store(false) // first, so that a note from now on queues again
	bits := party.Ready(f.bits.Swap(0))
	if f.state == over {
		return false
	}
	if bits&(party.Readable|party.Hangup) != 0 {
		f.up.m.SourceReady()
	}
	if bits&(party.Writable|party.Hangup) != 0 {
		f.down.m.SinkReady()
	}
	f.hung = f.hung || bits&party.Hangup != 0
	return true
}

// sever stops writing to a broken party. What it said before is still there to be read:
// a server that answers before it has read all, and closes, resets the connection by that.
func (w *Worker) sever(f *flow) {
	switch f.up.m.end {
	case endNone:
		f.hung, f.severed = true, true
		f.up.m.SourceReady()
	case endSeen: // blocks of it may still be in the card, or wait for the session
		f.up.broken, f.severed = true, true
	default:
		w.abort(f, stream.CodeAbort)
	}
}

// probe ends the flow of a broken party where reading would not find out:
// the party has ended its own direction, or its data waits for credit.
func (w *Worker) probe(f *flow) {
	if f.up.m.end == endNone {
		if !f.up.m.room || f.severed && f.up.m.Idle() {
			w.abort(f, stream.CodeAbort)
		}
		return
	}
	if f.up.broken {
		return // its last blocks are in the card
	}
	var p [1]byte
	if _, err := f.conn.Read(p[:]); err != nil && !orderly(err) {
		w.abort(f, stream.CodeAbort)
	}
}

// run moves a flow until it blocks or its budget is spent. It returns what of that was.
func (w *Worker) run(f *flow) int {
	if f.state == connecting && !w.connect(f) {
		return perStep
	}
	w.current = f
	blocked, left := false, w.o.Budget
	for left > 0 && f.state == open && !blocked {
		n, did := w.step(f)
		blocked = !did
		left -= n + perStep
	}
	w.current = nil
	switch {
	case !blocked || f.state != open:
	case f.leaving:
		w.part(f)
	case f.hung:
		w.probe(f)
	}
	if f.state == over {
		return w.o.Budget - left
	}
	w.postConsumed(f)
	if f.up.m.Ended() && f.down.m.Ended() {
		w.done(f)
		return w.o.Budget - left
	}
	if !blocked {
		w.enlist(f)
	}
	return w.o.Budget - left
}

// step does an action of each direction. It returns the plain bytes that were moved, and
// whether anything was done.
func (w *Worker) step(f *flow) (n int, did bool) {
	if !f.severed {
		n, did = w.stepDown(f)
	}
	if f.state == open && !f.leaving {
		m, sealed := w.stepUp(f)
		n, did = n+m, did || sealed
	}
	return n, did
}

// serverUp tells a client's party once that it may send: first no more than
// window bytes, unless that is negative.
func (f *flow) serverUp(window int) {
	if f.up.served {
		return
	}
	f.up.served = true
	if o, ok := f.conn.(party.Opener); ok {
		o.Open(window)
	}
}

// serverGone tells a client's party that its server will not come.
func (f *flow) serverGone(code stream.Code) {
	if f.up.served || code != stream.CodeRefused && code != stream.CodeUnreachable {
		return
	}
	if o, ok := f.conn.(party.Opener); ok {
		o.Refuse(code == stream.CodeUnreachable)
	}
}

// perStep is what a step costs of a flow's budget besides the bytes moved:
// many tiny blocks keep others waiting as well.
const perStep = 512

// connect asks a dialled party how it stands and returns true once it is
// connected.
func (w *Worker) connect(f *flow) bool {
	err := f.conn.Connected()
	switch {
	case err == nil:
		w.enter(f, open)
		w.attempted(f.session.tunnel, *f.server, stream.CodeNone)
		f.server = nil
		f.session.post(w, stream.Command{Kind: stream.CmdAccepted, Flow: f.id, Bytes: offered(f.conn)})
		return true
	case errors.Is(err, party.ErrAgain):
	default:
		w.abort(f, dialCode(err, stream.CodeUnreachable))
	}
	return false
}

// firstWindow is what the news of a server says of its window; negative:
// nothing.
func firstWindow(e *stream.Event) int {
	if e.Limit == wire.NoWindow {
		return -1
	}
	return int(e.Limit)
}

// offered is how much a party that was dialled takes at first, in bytes;
// negative: it does not say.
func offered(c party.Conn) int {
	if o, ok := c.(party.Offerer); ok {
		return o.Offered()
	}
	return -1
}

// attempted tells the egress limits how an attempt ended.
func (w *Worker) attempted(t stream.Tunnel, server netip.AddrPort, code stream.Code) {
	if w.o.Egress != nil {
		w.o.Egress.End(t.Tag(), server, code, w.now)
	}
}

// dialCode says why a connection does not stand; other is for reasons that a
// party does not name.
func dialCode(err error, other stream.Code) stream.Code {
	switch {
	case errors.Is(err, party.ErrRefused), errors.Is(err, party.ErrReset):
		return stream.CodeRefused
	case errors.Is(err, party.ErrUnreachable):
		return stream.CodeUnreachable
	}
	return other
}

// enter changes a flow's state; nothing else does.
func (w *Worker) enter(f *flow, s state) {
	if w.debug {
		w.o.Log.Debug("flow", "peer", f.session.tunnel.Tag(), "id", uint64(f.id), "from", f.state.String(), "to", s.String())
	}
	f.state = s
}

// abort ends a flow from this side: the peer is told why, the party sees a
// RST.
func (w *Worker) abort(f *flow, code stream.Code) {
	f.session.post(w, stream.Command{Kind: stream.CmdReset, Code: code, Flow: f.id})
	count(&w.stats.resets, code)
	if f.state == connecting {
		w.attempted(f.session.tunnel, *f.server, code)
	}
	f.conn.Abort()
	w.forget(f)
}

// leave ends a flow whose peer's party has reset its connection: after what it had sent
// before, as far as our party takes it at once.
func (w *Worker) leave(f *flow) {
	f.leaving = true
	w.enlist(f)
}

// part is the end of leave, unless blocks are still in the card.
func (w *Worker) part(f *flow) {
	if d := &f.down.m; d.Idle() || d.results > 0 {
		w.lost(f, stream.CodeAbort)
	}
}

// lost ends a flow that the session has reset.
func (w *Worker) lost(f *flow, code stream.Code) {
	f.serverGone(code)
	count(&w.stats.peerResets, code)
	if f.state == connecting {
		w.attempted(f.session.tunnel, *f.server, stream.CodeAbort)
	}
	f.conn.Abort()
	w.forget(f)
}

// done ends a flow of which both directions have ended well.
func (w *Worker) done(f *flow) {
	f.session.post(w, stream.Command{Kind: stream.CmdDone, Flow: f.id})
	w.stats.done.Add(1)
	f.conn.Close()
	w.forget(f)
}

// forget gives back all that a flow holds.
func (w *Worker) forget(f *flow) {
	w.enter(f, over)
	f.down.rx.drop(&w.nodes)
	for _, h := range [...]*half{&f.up.half, &f.down.half} {
		if h.refused != nil {
			w.tasks.drop(h.refused)
			h.refused = nil
			w.unpark() // the card's place that f was perhaps woken for
		}
		for h.done.head != nil {
			w.tasks.drop(h.done.pop())
		}
	}
	delete(f.session.flows, f.id)
	f.session.flows = slim.Map(f.session.flows, &f.session.peak)
	f.session.touch(w)
	w.flows.Add(-1)
}

// put offers a direction's refused block to the card. A flow that finds the
// card full is parked at once: any later result must find it waiting.
func (w *Worker) put(f *flow, h *half) {
	if !w.o.Card.TryPut(&h.refused.job) {
		h.m.CardFull()
		w.park(f)
		return
	}
	h.refused = nil
	h.m.Accepted()
	w.collect()
}

// admitted makes a flow and lets it hear its party.
func (w *Worker) admitted(s *session, id stream.ID, conn party.Conn, st state) *flow {
	f := &flow{w: w, session: s, id: id, conn: conn, state: st}
	f.up.m = NewMachine(uint8(w.o.Window))
	f.down.m = NewMachine(uint8(w.o.Window))
	f.up.m.Room(false) // no credit yet
	f.down.m.SourceDry()
	s.flows[id] = f
	w.stats.started.Add(1)
	conn.Watch(f.note)
	w.enlist(f)
	return f
}

// accept is a client connection on its way to the worker.
type accept struct {
	conn     party.Conn
	dst, src netip.AddrPort
	tunnel   stream.Tunnel
}
