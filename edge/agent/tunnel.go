package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hawser/netns"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// tunnels keeps the edge's session with its cloud: it makes one as soon as a
// link is connected, and another when that one has ended.
//
// Goroutines, all ended when wait returns: per link uplink.run, which owns the
// dialling, one serve per connection and look-ups of the cloud's name
// (whereabouts.ask); per session runSession.
type tunnels struct {
	log    *slog.Logger
	sink   stream.Sink
	budget *tunnel.Budget
	ended  func(stream.Tunnel) // told of sessions that have ended
	kinds  scheduler.Kinds

	live    context.Context // of all links; begin's
	running sync.WaitGroup  // their goroutines
	listing sync.Mutex      // guards the following
	uplinks []*uplink       // in the configuration's order; replaced as a whole
	former  uint32          // the highest serial of those that have left

	deadSince atomic.Pointer[time.Time] // when the last link fell silent; nil while one speaks
	judging   sync.Mutex                // held by whoever is about to change that
	spoken    chan struct{}             // told when a link speaks; holds one

	mu      sync.Mutex
	term    *term
	peer    string                  // what the last session's cloud calls itself
	cancel  context.CancelCauseFunc // of the running session
	stopped bool                    // run ends: there are no more sessions
	wg      sync.WaitGroup
}

// term is one session's life, from the choice of its ID on.
type term struct {
	id      [16]byte
	session *tunnel.Session // nil until the first link is connected
	since   time.Time       // when it was made
	version uint16          // of the protocol, that the cloud chose
}

// newTerm draws a session ID.
func newTerm() *term {
	t := &term{}
	_, _ = rand.Read(t.id[:]) // never fails (crypto/rand)
	return t
}

// run works all links until ctx ends, then ends the session. Workers must have
// reset their flows by then.
func (t *tunnels) run(ctx context.Context) {
	t.begin(ctx)
	t.wait()
}

// begin is run without waiting for the end, which wait does.
func (t *tunnels) begin(ctx context.Context) {
	t.live = ctx
	for _, u := range t.list() {
		t.start(u)
	}
}

// start begins to work all lanes of an uplink, until stop or the end of all.
func (t *tunnels) start(u *uplink) {
	for lane := range u.all {
		ctx, cancel := context.WithCancel(t.live)
		lane.cancel, lane.over = cancel, make(chan struct{})
		t.running.Go(func() {
			defer close(lane.over)
			lane.run(ctx)
		})
	}
}

// stop ends an uplink that was started, for a reason, and returns when its connections have
// ended: what was under way there goes by the other links.
func (t *tunnels) stop(u *uplink, why error) {
	for lane := range u.all {
		lane.part(why)
	}
	for lane := range u.all {
		<-lane.over
	}
	t.listing.Lock()
	defer t.listing.Unlock()
	for lane := range u.all {
		t.former = max(t.former, lane.termsNow().Serial)
	}
}

func (t *tunnels) wait() {
	ctx := t.live
	<-ctx.Done()
	t.mu.Lock()
	t.stopped = true
	if t.cancel != nil {
		t.cancel(context.Cause(ctx))
	}
	t.mu.Unlock()
	t.running.Wait()
	t.wg.Wait()
}

// hello says which session a link should join.
func (t *tunnels) hello() (*term, wire.Hello) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.term, wire.Hello{Session: t.term.id, Resume: t.term.session != nil}
}

// join returns the term's session and makes it when w is the first welcome.
// It returns nil when the term is over, or run ends, and when the cloud that says
// welcome has other keys for the session: an attempt from before that had one has met a
// cloud that was started anew meanwhile, and has begun it there once more. No record of
// one would open at the other, whatever link it came by.
func (t *tunnels) join(tm *term, w wire.Welcome) *tunnel.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tm != t.term || t.stopped {
		return nil
	}
	if tm.session != nil && !bytes.Equal(w.Secret[:], tm.session.Secret()) {
		t.giveUp(tm)
		return nil
	}
	if tm.session == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		tm.since, tm.version, t.peer = time.Now(), w.Version, peerName(w)
		tm.session = tunnel.New(tunnel.Config{
			Peer: t.peer, Edge: true, Secret: w.Secret[:], Sink: t.sink,
			Budget: t.budget, Silent: t.silent, Mute: t.mute, Log: t.log, Kinds: t.kinds,
		})
		t.cancel = cancel
		t.wg.Go(func() { t.runSession(ctx, tm) })
	}
	return tm.session
}

func peerName(w wire.Welcome) string {
	if w.Name == "" {
		return "cloud"
	}
	return w.Name
}

// runSession runs a session to its end and makes place for the next.
func (t *tunnels) runSession(ctx context.Context, tm *term) {
	err := tm.session.Run(ctx)
	if ctx.Err() == nil {
		t.log.Warn("session ended", "reason", err)
	}
	t.retire(tm)
	t.ended(tm.session)
}

// retire ends a term: its session is over, or the cloud does not know it.
func (t *tunnels) retire(tm *term) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp(tm)
}

// giveUp is retire for whoever holds mu.
func (t *tunnels) giveUp(tm *term) {
	if tm != t.term {
		return
	}
	if t.cancel != nil {
		t.cancel(errRetired)
		t.cancel = nil
	}
	t.term = newTerm()
}

var errRetired = errors.New("the cloud no longer knows the session")

// current returns the session that new flows use and since when it is there,
// or nil while there is none.
func (t *tunnels) current() (*tunnel.Session, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.term.session, t.term.since
}

// protocol is the version that the present session's cloud has chosen.
func (t *tunnels) protocol() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(t.term.version)
}

// called is what the last session's cloud calls itself, "" before there was one.
func (t *tunnels) called() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peer
}

// list are the uplinks as they are now.
func (t *tunnels) list() []*uplink {
	t.listing.Lock()
	defer t.listing.Unlock()
	return t.uplinks
}

// show replaces the uplinks that there are.
func (t *tunnels) show(uplinks []*uplink) {
	t.listing.Lock()
	t.uplinks = uplinks
	t.listing.Unlock()
	t.judge()
}

// serial is the highest of all links' terms that there ever were.
func (t *tunnels) serial() uint32 {
	t.listing.Lock()
	former := t.former
	t.listing.Unlock()
	for u := range t.all {
		former = max(former, u.termsNow().Serial)
	}
	return former
}

// all yields every lane of every uplink.
func (t *tunnels) all(yield func(*uplink) bool) {
	for _, u := range t.list() {
		for lane := range u.all {
			if !yield(lane) {
				return
			}
		}
	}
}

// lane returns the lane with a link's ID, nil if there is none by now.
func (t *tunnels) lane(id int) *uplink {
	for u := range t.all {
		if u.id == id {
			return u
		}
	}
	return nil
}

func (t *tunnels) silent(link int, silent bool) {
	u := t.lane(link)
	if u == nil {
		return
	}
	u.silent.Store(silent)
	t.judge()
	told := u.spoke
	if silent {
		told = u.kick
	}
	select {
	case told <- struct{}{}:
	default:
	}
}

// mute notes that the cloud's program does not answer on a link.
func (t *tunnels) mute(link int, mute bool) {
	if u := t.lane(link); u != nil {
		u.mute.Store(mute)
		t.judge()
	}
}

// event passes on what the kernel says of an uplink.
func (t *tunnels) event(e netns.UplinkEvent) {
	if u := t.lane(e.Link); u != nil {
		u.event(e)
	}
}
