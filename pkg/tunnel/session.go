package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/quiet"
	"hawser/pkg/reassembly"
	"hawser/pkg/slim"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Errors; match with errors.Is.
var (
	ErrEnded    = errors.New("session has ended")
	ErrLinger   = errors.New("no link lived for too long")
	ErrPeerStop = errors.New("the peer has stopped")
	ErrProtocol = errors.New("the peer broke the protocol")
	ErrReplaced = errors.New("replaced by a newer connection of the same link")
	ErrForged   = errors.New("the link brought a forged record")
	ErrUnused   = errors.New("too many connections that nothing came by")
	ErrOneSided = errors.New("the peer is heard and does not get what is sent")

	errBody     = fmt.Errorf("%w: body without its frame", ErrProtocol)
	errNoUrgent = errors.New("acknowledges records of an urgent stream that there is not")
)

// Config makes a Session.
type Config struct {
	Peer   string                      // the peer's name, for logs and status
	Edge   bool                        // this side opens flows
	Secret []byte                      // 32 bytes, shared by both ends (PROTOCOL.md section 3)
	Sink   stream.Sink                 // takes the events
	Kinds  scheduler.Kinds             // which policies decide
	Total  float64                     // what all flows together do not exceed away from here, bytes per second; 0 = no limit
	Terms  Terms                       // changes the terms on which the peer opened a flow; nil = they stay
	Budget *Budget                     // memory for payload, shared by an agent's sessions
	Places *Places                     // cloud: of the workers, shared by the sessions; nil = no bound
	Linger time.Duration               // how long the session lives without any link; 0 = 90 s
	Silent func(link int, silent bool) // told when a link falls silent and when it speaks again; must not block; nil = nobody
	Mute   func(link int, mute bool)   // told when the peer's program does not answer on a link, whatever its kernel says; as Silent
	Log    *slog.Logger                // nil = slog.Default
}

// Terms changes the terms that the peer asks for a flow from client to server.
type Terms func(asked wire.Terms, client netip.Addr, server netip.AddrPort) wire.Terms

// DefaultLinger is how long a session outlives its last link.
const DefaultLinger = 90 * time.Second

// Session is one edge-cloud pair's tunnel.
type Session struct {
	cfg    Config
	log    *slog.Logger
	box    *mailbox
	ended  chan struct{}
	nextID atomic.Uint64
	plain  atomic.Int32 // plain bytes that a record holds at most, if the peer takes more than buffer.Plain
	large  atomic.Bool  // it does

	// turning is held by whoever has the loop's state; see Session.post.
	turning sync.Mutex
	attend  atomic.Bool // the loop waits for mail itself and gives turning to nobody

	// All below belongs to whoever holds turning.
	spent      mail
	timer      *time.Timer // wakes the loop for what is due
	dueAt      time.Time   // when timer fires; zero: it does not
	now        time.Time
	flows      map[stream.ID]*flow
	lefts      lefts     // of those in line
	peak       slim.Peak // of flows
	swollen    bool      // there were flows since rest
	used       idSet     // flow IDs that the peer ever used
	early      int       // flows of which data has come and no OPEN (cloud)
	places     []int     // that flows have, by worker (cloud)
	crowdedAt  time.Time // when there was none for a flow
	initial    initial   // credit of new flows
	order      scheduler.Order[*flow]
	path       scheduler.Path
	copies     scheduler.Data
	links      []*link
	views      []scheduler.Link
	narrowed   []scheduler.Link // see admitted
	backlog    backlog
	candidates []*conn // connections that have not spoken yet (cloud)
	ctrl       ctrlQueue
	hurry      bool // somebody waits for one of ctrl: they go out on two links
	dirty      []*flow
	dying      []dying
	pressing   []*flow // that may have got something that presses
	pieces     pieces
	tables     reassembly.Tables
	vias       [][]via  // emptied, for other flows
	ctrls      [][]byte // emptied, for other records
	crumbs     crumbs
	tellAt     time.Time
	events     [][]stream.Event // by worker
	touched    uint64           // workers that got some, by their number modulo 64
	lastLink   time.Time        // when a link last lived
	forgers    quiet.News       // links of which the log says that they bring forged records
	refusedAt  time.Time        // when the peer could last not authenticate what was sent; zero: never
	leaving    bool             // the goodbye is being said
	stopped    error            // why the loop ends
	count      Counters
}

// Counters are a session's totals since its start.
type Counters struct {
	FlowsOpened   uint64 // by either side
	FlowsReset    uint64 // by either side
	FlowsRefused  uint64 // of those, because the server refused or was unreachable
	FlowsCrowded  uint64 // of those, because there was no place for them
	BytesSent     uint64 // sealed payload, first transmissions
	BytesReceived uint64 // sealed payload, each byte once
	BytesAgain    uint64 // sealed payload sent again or twice
	Duplicates    uint64 // sealed payload received again
	Forged        uint64 // records that could not be authenticated
	Violations    uint64 // connections ended because the peer broke the protocol
}

// New returns a session; Run makes it work.
func New(cfg Config) *Session {
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Budget != nil {
		cfg.Budget = cfg.Budget.Part()
	}
	s := &Session{
		cfg: cfg, log: cfg.Log.With("peer", cfg.Peer), path: scheduler.NewPath(cfg.Kinds.Path),
		box: newMailbox(), ended: make(chan struct{}),
		flows: map[stream.ID]*flow{}, initial: newInitial(), copies: scheduler.NewData(cfg.Kinds.Data), order: scheduler.NewOrder[*flow](cfg.Kinds.Order, cfg.Total),
	}
	s.turning.Lock() // until Run
	return s
}

// Post implements stream.Tunnel.
func (s *Session) Post(batch []stream.Command) {
	if s.post(func(in *mail) { in.commands = append(in.commands, batch...) }) {
		return
	}
	for i := range batch {
		batch[i].Seg.Release()
	}
}

// NewFlow implements stream.Tunnel.
func (s *Session) NewFlow(worker int) stream.ID {
	id := stream.ID(s.nextID.Add(1))
	if !s.box.post(func(in *mail) { in.news = append(in.news, newFlow{id, worker}) }) { // the turn comes with the flow's first command
		return 0
	}
	return id
}

// Secret implements stream.Tunnel.
func (s *Session) Secret() []byte { return s.cfg.Secret }

// Record implements stream.Tunnel.
func (s *Session) Record() int {
	if !s.large.Load() {
		return buffer.Plain
	}
	return max(int(s.plain.Load()), buffer.Plain)
}

// Tag implements stream.Tunnel.
func (s *Session) Tag() string { return s.cfg.Peer }

// Ended is closed when the session has ended.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// Run is the loop: it does what is due by time, and what those who post leave to
// it. It returns why the session ended: the context's cause,
// ErrLinger or ErrPeerStop. By then every flow was reset towards its worker and
// all link connections are closed; the callers of Serve return soon after.
func (s *Session) Run(ctx context.Context) error {
	defer close(s.ended)
	s.timer = time.NewTimer(0) // the first turn finds the first deadline
	defer s.timer.Stop()
	s.now = time.Now()
	s.lastLink = s.now
	s.turning.Unlock()
	for {
		select {
		case <-ctx.Done():
			s.turning.Lock() // for good
			s.leave(context.Cause(ctx))
			return s.stopped
		case <-s.box.wake:
		case <-s.timer.C:
		}
		s.turning.Lock()
		s.step()
		if s.stopped != nil {
			s.shutdown()
			return s.stopped
		}
		s.yield()
	}
}

// leave stops because the session's own side does.
func (s *Session) leave(cause error) {
	s.attend.Store(true)
	s.drain(s.box.collect(s.spent))
	if s.stopped == nil {
		s.sayGoodbye()
		s.stopped = cause
	}
	s.shutdown()
}

// post adds mail. If nobody is at work on the loop's state the caller does the
// loop's work at once, one turn of it: that saves the change to another
// goroutine, which costs more than most turns do. Otherwise whoever is at work
// finds the mail when he is done. The caller must hold nothing that the Sink
// needs. It returns false, without calling add, after the session has ended.
func (s *Session) post(add func(*mail)) bool {
	if !s.box.post(add) {
		return false
	}
	if !s.turning.TryLock() {
		if s.attend.Load() {
			s.box.signal()
		}
		return true
	}
	s.step()
	s.yield()
	return true
}

// yield ends a turn. What came meanwhile, and an end of the session, is left to
// the loop: a worker or a reader has other things to do.
func (s *Session) yield() {
	over, touched, workers := s.stopped != nil, s.touched, len(s.events)
	s.touched = 0
	s.turning.Unlock()
	if over || s.box.waiting() {
		s.box.signal()
	}
	s.settle(touched, workers)
}

// settle lets the workers that got events begin, here if that is quick. The
// caller does not hold turning, or the session has ended.
func (s *Session) settle(touched uint64, workers int) {
	for ; touched != 0; touched &= touched - 1 {
		for w := bits.TrailingZeros64(touched); w < workers; w += 64 {
			s.cfg.Sink.Settle(w)
		}
	}
}

// step takes in the mail and does a turn.
func (s *Session) step() {
	if s.stopped != nil {
		return // the loop is about to end
	}
	s.now = time.Now()
	s.spent = s.box.collect(s.spent)
	s.drain(s.spent)
	due := s.now.Add(s.turn())
	// A timer that fires early costs a turn without work, moving it at every
	// turn costs more.
	if !s.dueAt.After(s.now) || due.Before(s.dueAt) {
		s.timer.Reset(due.Sub(s.now))
		s.dueAt = due
	}
}

// drain works through one collection of mail.
func (s *Session) drain(in mail) {
	for _, c := range in.attached {
		s.attach(c)
	}
	for _, st := range in.joined {
		s.stand(st)
	}
	for _, n := range in.news {
		s.flows[n.id] = s.makeFlow(n.id, n.worker)
	}
	for _, b := range in.room {
		b.strand.returned(b)
	}
	for _, b := range in.received {
		s.receive(b)
	}
	for i := range in.commands {
		s.obey(&in.commands[i])
	}
	for _, st := range in.parted {
		s.part(st)
		st.discard()
	}
	for _, l := range in.lost {
		s.detach(l.conn, l.err)
	}
	for _, f := range in.calls {
		f()
	}
}

// turn does what is due and returns how long nothing else will be.
func (s *Session) turn() time.Duration {
	s.checkHealth()
	s.tellCredit()
	s.tellInitial()
	s.endDying()
	s.resendLate()
	s.deliver() // first: workers can begin while the links take what is below
	s.pump()
	s.rest()
	return s.nextDeadline()
}

// nextDeadline is when turn must run again though nobody posts anything.
func (s *Session) nextDeadline() time.Duration {
	wait := time.Second
	if len(s.dirty) > 0 {
		wait = min(wait, max(s.tellAt.Sub(s.now), 0))
	}
	if len(s.dying) > 0 {
		wait = min(wait, max(s.dying[0].at.Sub(s.now), 0))
	}
	alive := false
	for _, l := range s.links {
		c := l.conn
		if c == nil {
			continue
		}
		alive = alive || l.health.State() == scheduler.Up
		for _, st := range c.strands {
			if st.ackDue {
				wait = min(wait, max(st.ackAt().Sub(s.now), 0))
			}
		}
		if due := c.twinDue(); !due.IsZero() {
			wait = min(wait, max(due.Sub(s.now), 0))
		}
		if c.inFlight > 0 {
			wait = min(wait, s.tick(c))
			if c.eye.sense.Known && s.order.Len() > 0 {
				wait = min(wait, capTick)
			}
		}
		if due := s.order.Wake(); !due.IsZero() {
			wait = min(wait, due.Sub(s.now))
		}
		_, next := l.health.ProbeDue(s.now, s.restful(c), &l.est)
		wait = min(wait, next)
	}
	if alive {
		s.lastLink = s.now
	} else if s.now.Sub(s.lastLink) > s.cfg.Linger {
		s.stopped = fmt.Errorf("%w: %v", ErrLinger, s.cfg.Linger)
	}
	return max(wait, time.Millisecond)
}

// busyTick is how often lateness and silence are judged while something is
// outstanding.
const busyTick = 5 * time.Millisecond

// tick is when a connection on which something is outstanding must be judged again. A probe
// behind which nothing else waits means nothing before an answer is due: an idle link over a
// satellite would have its session turn a hundred times a second.
func (s *Session) tick(c *conn) time.Duration {
	if !c.asking() {
		return busyTick
	}
	e := &c.link.est
	return max(min(e.PTO(), scheduler.SuspectAfter(e))-scheduler.Silence(s.now, c.evidence()), busyTick)
}

// capTick is how often a link that is full is looked at while somebody waits for
// it: its transport does not say when something has arrived.
const capTick = 2 * time.Millisecond

// emit queues an event for a flow's worker.
func (s *Session) emit(worker int, ev stream.Event) {
	for len(s.events) <= worker {
		s.events = append(s.events, nil)
	}
	ev.From = s
	s.events[worker] = append(s.events[worker], ev)
}

// deliver hands the queued events over.
func (s *Session) deliver() {
	for w, batch := range s.events {
		if len(batch) > 0 {
			s.cfg.Sink.Deliver(w, batch)
			s.touched |= 1 << (w % 64)
			s.events[w] = slim.Emptied(batch)
		}
	}
}

// shutdown resets all flows, closes all connections and refuses further mail.
func (s *Session) shutdown() {
	code := stream.CodeLost
	if errors.Is(s.stopped, ErrPeerStop) {
		code = stream.CodeStopping
	}
	s.drainLeft(s.box.close())
	for _, f := range s.flows {
		s.emit(f.worker, stream.Event{Kind: stream.EventReset, Flow: f.id, Code: code})
		s.dropFlow(f)
	}
	s.deliver()
	for _, l := range s.links {
		if l.conn != nil {
			s.closeConn(l.conn, ErrEnded)
		}
		s.stepMute(l) // the next session says nothing of what it never found
	}
	for len(s.candidates) > 0 {
		s.closeConn(s.candidates[0], ErrEnded)
	}
	s.settle(s.touched, len(s.events))
}

// drainLeft releases what came too late to be worked on.
func (s *Session) drainLeft(in mail) {
	for _, c := range in.attached {
		c.carrier.Close(ErrEnded)
	}
	for _, st := range in.joined {
		st.end(ErrEnded)
	}
	for _, st := range in.parted {
		if st.conn.urgent != st && st.conn.twin != st { // else it goes with its connection
			st.discard()
		}
	}
	for _, l := range in.lost {
		l.conn.discard()
	}
	for _, b := range in.received {
		b.release()
		b.strand.rx <- b // its reader may wait for one
	}
	for _, n := range in.news {
		s.flows[n.id] = s.makeFlow(n.id, n.worker) // to be reset like the others
	}
	for i := range in.commands {
		in.commands[i].Seg.Release()
	}
	for _, f := range in.calls {
		f()
	}
}

// call runs f in the loop and waits for it; false when the session has ended.
func (s *Session) call(f func()) bool {
	done := make(chan struct{})
	if !s.post(func(in *mail) {
		in.calls = append(in.calls, func() { f(); close(done) })
	}) {
		return false
	}
	<-done
	return true
}

// addCtrl queues one control frame for the best link.
func (s *Session) addCtrl(frame func([]byte) []byte) { s.ctrl.add(frame) }

// repeatCtrl queues control frames that were logged before once more.
func (s *Session) repeatCtrl(frames []byte) {
	s.ctrl.asked -= len(frames)
	s.ctrl.add(func(b []byte) []byte { return append(b, frames...) })
}
