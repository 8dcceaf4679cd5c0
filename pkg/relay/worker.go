package relay

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/compress"
	"hawser/pkg/party"
	"hawser/pkg/quiet"
	"hawser/pkg/stream"
)

// Worker is one event loop. Deliver, Leave, Attend, Settle, Accept and Status may
// be called from any goroutine, before Run too; everything else belongs to whoever
// holds turn.
type Worker struct {
	o     Options
	box   mailbox
	quiet *quiet.Log // for what anybody's connections can cause
	stats counters
	flows atomic.Int64 // with those that are still in the mailbox

	// turn is held by whoever does a round: Run, or Settle while Run waits.
	turn sync.Mutex

	debug    bool
	now      time.Time // of this wake-up
	mail     mail
	sessions map[stream.Tunnel]*session
	last     *session // found last
	spare    *session
	dirty    []*session
	chooser  compress.Chooser
	nodes    nodes
	tasks    tasks
	current  *flow    // running now: need not be enlisted
	vec      [][]byte // of one write to a party

	rota    rota // of flows to run
	waiting list // flows that wait for the card, by behind
}

// New returns a Worker that Run sets going.
func New(o Options) (*Worker, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	w := &Worker{o: o, quiet: quiet.New(o.Log), sessions: map[stream.Tunnel]*session{}, rota: rota{turn: o.Budget}}
	w.box.poller = o.Poller
	w.debug = o.Log.Enabled(context.Background(), slog.LevelDebug)
	return w, nil
}

// Deliver takes a session's events. It copies the slice, never blocks, and owns
// the events' Segs from now on, also after the worker has ended.
func (w *Worker) Deliver(events []stream.Event) { w.box.deliver(events) }

// Leave is Deliver by somebody who calls Settle soon afterwards.
func (w *Worker) Leave(events []stream.Event) { w.box.leave(events) }

// Attend says that what the caller does may make parties ready, and that Settled
// follows soon.
func (w *Worker) Attend() { w.box.attend(1) }

// Settled ends Attend and settles.
func (w *Worker) Settled() {
	w.box.attend(-1)
	w.Settle()
}

// Settle does a sleeping worker's round in the caller's goroutine, if there is
// little to do: to wake the worker's own would take longer. The caller holds
// nothing that a session or a party needs.
func (w *Worker) Settle() {
	if !w.box.owed.Load() || !w.box.owed.Swap(false) {
		return
	}
	if !w.turn.TryLock() {
		w.box.rouse() // between two rounds, or about to sleep
		return
	}
	if w.box.asleep() {
		w.visit()
	}
	w.turn.Unlock()
}

// visits bounds the rounds of one Settle.
const visits = 4

// visit does rounds until there is nothing left to do, and otherwise wakes the
// worker's goroutine to go on: when there is much, or something that only its
// poller can wait for.
func (w *Worker) visit() {
	for range visits {
		if !w.box.takeLittle(&w.mail) {
			break
		}
		dials := w.mail.opens()
		w.round()
		w.stats.visits.Add(1)
		limit, ok := w.o.Card.Park(w.now)
		if dials || w.rota.flows > 0 || !ok || limit >= 0 {
			break // a dial's time-out is the poller's
		}
		if w.box.sleep(w.Flows()) {
			return
		}
	}
	w.o.Poller.Wake()
}

// Accept takes a new client connection: src wanted dst, and t is to carry the
// flow. Edge only. The worker owns conn from now on, and aborts it when it has
// ended or has Options.Flows already.
func (w *Worker) Accept(conn party.Conn, dst, src netip.AddrPort, t stream.Tunnel) {
	if !w.reserve() {
		count(&w.stats.resets, stream.CodeResources)
		conn.Abort()
		return
	}
	if !w.box.accept(accept{conn: conn, dst: dst, src: src, tunnel: t}) {
		w.flows.Add(-1)
		conn.Abort()
	}
}

// Flows is how many flows there are, with those that are about to begin.
func (w *Worker) Flows() int { return int(w.flows.Load()) }

// reserve counts one more flow, if there may be one.
func (w *Worker) reserve() bool {
	if w.flows.Add(1) > int64(w.o.Flows) {
		w.flows.Add(-1)
		w.quiet.Warn("flows", "connections are reset: there are as many as a worker may have", "worker", w.o.Index, "connections", w.o.Flows)
		return false
	}
	return true
}

// Run moves the flows until ctx ends or the poller fails; only then it returns
// an error. Before it returns all flows have been reset with CodeStopping,
// their parties aborted, and the card closed.
func (w *Worker) Run(ctx context.Context) error {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { w.wake(woken) })
	var err error
	w.turn.Lock()
	defer w.turn.Unlock()
	for ctx.Err() == nil && err == nil {
		w.box.take(&w.mail)
		w.round()
		err = w.sleep()
	}
	if !stop() {
		<-woken
	}
	w.close()
	if err != nil {
		return fmt.Errorf("relay: worker %d: poller: %w", w.o.Index, err)
	}
	return nil
}

// round works on the mail that was taken, and on whatever else can go on.
func (w *Worker) round() {
	w.now = time.Now()
	if w.o.Beat != nil {
		w.o.Beat(w.now)
	}
	w.handle(&w.mail)
	w.collect()
	w.work()
	w.flush()
}

// wake ends the worker's sleep when its context has ended.
func (w *Worker) wake(woken chan<- struct{}) {
	w.o.Poller.Wake()
	close(woken)
}

// sleep parks the worker until there is something to do. While flows are
// waiting for their turn it only looks at the descriptors.
func (w *Worker) sleep() error {
	if w.rota.flows > 0 {
		return w.o.Poller.Wait(0)
	}
	limit, ok := w.o.Card.Park(w.now)
	if !ok || !w.box.sleep(w.Flows()) {
		return w.o.Poller.Wait(0)
	}
	if w.Flows() == 0 {
		w.mail.rest()
	}
	return w.o.Poller.Rest(&w.turn, limit)
}

// handle takes in the mail, and keeps none of it: the next may not come for long, and
// the last of a rush names thousands of flows.
func (w *Worker) handle(m *mail) {
	for i := range m.events {
		w.event(&m.events[i])
	}
	for i := range m.accepts {
		w.admit(&m.accepts[i])
	}
	for _, f := range m.ready {
		if w.latch(f) {
			w.enlist(f)
		}
	}
	m.clear()
}

// event takes in one event of a session.
func (w *Worker) event(e *stream.Event) {
	if e.Kind == stream.EventOpen {
		w.openFlow(e)
		return
	}
	f := w.find(e.From, e.Flow)
	if f == nil {
		e.Seg.Release()
		return
	}
	switch e.Kind {
	case stream.EventData:
		f.serverUp(-1) // the news may come by a slower link
		f.down.data(&w.nodes, e.Seg, f.session.keys(e))
	case stream.EventFin:
		f.serverUp(-1)
		f.down.ended()
	case stream.EventCredit:
		f.up.credit(e.Limit)
	case stream.EventRewind:
		f.down.rewound()
	case stream.EventReset:
		if e.Code == stream.CodeAbort && f.state == open && !f.severed {
			w.leave(f)
			return
		}
		w.lost(f, e.Code)
		return
	default: // EventAccepted
		f.serverUp(firstWindow(e))
		return
	}
	w.enlist(f)
}

// openFlow dials the server of a flow that the peer has opened.
func (w *Worker) openFlow(e *stream.Event) {
	s, err := w.session(e.From)
	if err != nil {
		w.o.Log.Error("flow refused", "error", err)
		w.refuse(e, stream.CodeLost)
		return
	}
	s.touch(w)
	if f := s.flows[e.Flow]; f != nil {
		w.abort(f, stream.CodeProtocol)
		return
	}
	if w.o.Dial == nil || w.o.Allow != nil && !w.o.Allow(e.Dst) {
		w.refuse(e, stream.CodeDenied)
		return
	}
	if !w.reserve() {
		w.refuse(e, stream.CodeResources)
		return
	}
	if w.o.Egress != nil {
		if code := w.o.Egress.Ask(e.From.Tag(), e.Dst, w.now); code != stream.CodeNone {
			w.flows.Add(-1)
			w.refuse(e, code)
			return
		}
	}
	conn, err := w.o.Dial(e.Dst, e.Src, e.From.Tag())
	if err != nil {
		w.flows.Add(-1)
		w.attempted(e.From, e.Dst, stream.CodeResources)
		code := dialCode(err, stream.CodeResources)
		w.quiet.Warn(e.From.Tag()+" "+code.String(), "cannot dial", "peer", e.From.Tag(), "to", e.Dst, "error", err)
		w.refuse(e, code)
		return
	}
	server := e.Dst // e does not last
	w.admitted(s, e.Flow, conn, connecting).server = &server
}

// refuse answers an EventOpen for which there will be no flow.
func (w *Worker) refuse(e *stream.Event, code stream.Code) {
	count(&w.stats.resets, code)
	c := stream.Command{Kind: stream.CmdReset, Code: code, Flow: e.Flow}
	if s := w.sessions[e.From]; s != nil {
		s.post(w, c)
		return
	}
	e.From.Post([]stream.Command{c})
}

// admit starts a flow for a client connection.
func (w *Worker) admit(a *accept) {
	id := a.tunnel.NewFlow(w.o.Index)
	if id == 0 { // the session has ended since the connection came
		a.conn.Abort()
		w.flows.Add(-1)
		return
	}
	s, err := w.session(a.tunnel)
	if err != nil {
		w.o.Log.Error("client refused", "client", a.src, "error", err)
		a.tunnel.Post([]stream.Command{{Kind: stream.CmdReset, Code: stream.CodeLost, Flow: id}})
		a.conn.Abort()
		w.flows.Add(-1)
		return
	}
	first := stream.Command{Kind: stream.CmdOpen, Flow: id, Dst: a.dst, Src: a.src}
	if w.o.Terms != nil {
		first.Terms = w.o.Terms(a.src.Addr(), a.dst)
	}
	s.post(w, first)
	w.admitted(s, id, a.conn, open)
}

// collect takes what the card has finished.
func (w *Worker) collect() {
	for j := w.o.Card.TryGet(); j != nil; j = w.o.Card.TryGet() {
		w.finished(j.Owner.(*task))
		w.unpark()
	}
}

// finished hands a task back to its direction.
func (w *Worker) finished(t *task) {
	f := t.flow
	if f.state == over {
		w.tasks.drop(t)
		return
	}
	h := &f.up.half
	if t.opening() {
		h = &f.down.half
		t.job.Since = nil // it may have to wait for the party
	}
	h.m.Result()
	if t.round == h.round {
		h.done.push(t)
	} else { // void: the stream was rejected meanwhile
		w.tasks.drop(t)
		h.m.Dropped()
		f.down.ripen()
	}
	w.enlist(f)
}

// work runs as many flows as are enlisted, or fewer that move much where there are several
// sessions: others may be waiting to be heard. Those that could go on have enlisted
// themselves for the next round.
func (w *Worker) work() {
	left := math.MaxInt
	if len(w.sessions) > 1 {
		left = roundMost
	}
	for n := w.rota.flows; n > 0 && left > 0; n-- {
		f := w.rota.next()
		f.listed = false
		if f.state != over {
			moved := w.run(f)
			f.session.share -= moved
			left -= moved
		}
	}
}

// close ends everything. What the card still holds is released by it.
func (w *Worker) close() {
	w.box.close(&w.mail)
	for i := range w.mail.events {
		e := &w.mail.events[i]
		e.Seg.Release()
		if e.Kind == stream.EventOpen {
			w.refuse(e, stream.CodeStopping)
		}
	}
	for _, a := range w.mail.accepts {
		a.conn.Abort()
		w.flows.Add(-1)
	}
	w.mail = mail{}
	for _, s := range w.sessions {
		for _, f := range s.flows {
			w.abort(f, stream.CodeStopping)
		}
		s.flush()
	}
	w.o.Card.Close()
}
