package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/box"
	"hawser/pkg/config"
	"hawser/pkg/hint"
	"hawser/pkg/link"
	"hawser/pkg/quiet"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// uplink keeps one configured link connected. When its connection falls
// silent, others are raced on the same uplink; the first that stands replaces
// it, unless the old one speaks again soon. When the kernel says that the
// interface is down, or that the connection's address is gone, the connection
// ends at once, and the next one is dialled when the kernel says that it can.
//
// An uplink's further lanes are uplinks of their own, but for what its first one
// knows: they are told of the kernel's events and of changed terms by it.
type uplink struct {
	id      int       // of the first lane also its place in the host's plan (netns.Plan.Links)
	lanes   []*uplink // further ones, of the first
	name    string
	cancel  func()        // ends run; of who has started it
	over    chan struct{} // closed when run has ended; likewise
	tunnels *tunnels
	log     *slog.Logger
	dial    func(context.Context, wire.Hello) (*link.Conn, wire.Welcome, error)
	hears   func() bool        // whether an attempt under way has heard something lately; nil: unknown
	where   *whereabouts       // nil: the cloud's address is given, and can be used as it is
	advise  func(error) string // what to do about a failure, "" if nothing; nil: never

	silent atomic.Bool
	mute   atomic.Bool   // the cloud's program does not answer
	serves atomic.Int32  // connections at work
	kick   chan struct{} // one slot: the link has fallen silent
	spoke  chan struct{} // one slot: it speaks again
	moved  chan struct{} // one slot: the interface, its addresses or routes changed

	mu      sync.Mutex
	entry   config.Link // what the configuration says of it
	index   int         // of links there
	left    error       // why it has no more connections; nil: it may
	lastErr string      // for status
	news    quiet.News  // of it, since the last connection
	device  device
	terms   tunnel.LinkTerms // what both ends of the session are told
	heard   hint.Hint        // until terms.Until
	quota   *metered         // nil: none

	chooser chooser // run's, but for chooser.choice
	brief   brief   // run's
}

// newUplink returns link id of t.
func newUplink(id int, name string, t *tunnels) *uplink {
	return &uplink{
		id: id, name: name, tunnels: t, log: t.log.With("link", name),
		kick: make(chan struct{}, 1), spoke: make(chan struct{}, 1), moved: make(chan struct{}, 1),
	}
}

// all yields the uplink and its further lanes.
func (u *uplink) all(yield func(*uplink) bool) {
	if !yield(u) {
		return
	}
	for _, lane := range u.lanes {
		if !yield(lane) {
			return
		}
	}
}

// says returns what the configuration says of the link, and its index of links there.
func (u *uplink) says() (config.Link, int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.entry, u.index
}

// part ends run and the connection, for a reason.
func (u *uplink) part(why error) {
	u.mu.Lock()
	u.left = why
	conn := u.device.conn
	u.device.conn = nil
	u.mu.Unlock()
	u.cancel()
	if conn != nil {
		conn.Close(why)
	}
}

// silenceGrace is how long a link may be silent before another connection is
// raced on the same uplink: most silences end by themselves.
const silenceGrace = 150 * time.Millisecond

// Race of connection attempts on one uplink. While nothing at all answers the
// attempts stay close together, because an uplink that comes back must be in
// use again within a second, and closest where it was connected until just now: most
// outages are short, and each attempt that comes sooner is time in which it carries. A
// cloud that answers, but not with a welcome, is asked less and less often.
const (
	raceEager = 150 * time.Millisecond // from one attempt's start to the next's, where a link was lost
	raceSoon  = 5 * time.Second        // for which that is so
	raceFirst = 400 * time.Millisecond // the same later, and where there was none
	raceMost  = 5 * time.Second        // the same when the cloud turns us away
	raceSlow  = 2 * time.Second        // the same after raceLong without any answer
	raceLong  = 10 * time.Minute
	raceWidth = 16                      // attempts under way
	raceHasty = 2500 * time.Millisecond // for an attempt while an older one takes its full time
)

// run keeps the link connected until ctx ends.
func (u *uplink) run(ctx context.Context) {
	u.where.begin(ctx)
	defer u.where.wait()
	var running sync.WaitGroup
	defer running.Wait()
	now := serving{ended: closedChannel()}
	for ctx.Err() == nil {
		if !u.watch(ctx, now) {
			now = u.trial(ctx, &running, now)
			continue
		}
		var pause time.Duration
		wanted := time.Now()
		if isClosed(now.ended) {
			u.weigh(&now, wanted)
			pause = u.brief.pause()
		}
		won, err := u.race(ctx, now, pause)
		if err != nil {
			continue // the term is over, the old connection speaks again, or ctx has ended
		}
		s := u.tunnels.join(won.term, won.welcome)
		if s == nil {
			won.conn.Close(errRetired)
			continue
		}
		u.weigh(&now, wanted)
		now = serving{session: s, transport: won.conn.Info().Transport, since: time.Now(), ended: u.serve(&running, s, won.conn), stats: won.conn.Stats}
		u.chooser.next, u.chooser.thin, u.chooser.proven = u.chooser.every, thin{}, ""
		u.chooser.schedule(u.chooser.first)
	}
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// serve lets the session work a connection. The channel is closed at its end.
func (u *uplink) serve(running *sync.WaitGroup, s *tunnel.Session, conn *link.Conn) chan struct{} {
	info, terms := conn.Info(), u.termsNow()
	u.where.works(info.Remote)
	ended := make(chan struct{})
	u.carry(conn)
	running.Go(func() {
		defer close(ended)
		u.served(1)
		defer u.served(-1)
		// The session closes its connections when it ends, after its goodbye.
		_ = s.Serve(context.Background(), tunnel.LinkInfo{
			ID: u.id, Name: u.name, Transport: string(info.Transport), Congestion: info.Congestion, Remote: info.Remote.String(),
			Version: info.Version, Terms: terms,
		}, box.Carrier(conn))
	})
	return ended
}

// watch returns true when another connection is wanted: the last one has ended,
// or is silent for longer than the grace; and false when it is time to try the
// other transport.
func (u *uplink) watch(ctx context.Context, now serving) bool {
	ended := now.ended
	looks, stop := u.chooser.looks()
	defer stop()
	for {
		select {
		case <-ended:
			return true
		case <-ctx.Done():
			return true
		case <-u.chooser.due:
			if !isClosed(ended) && !u.silent.Load() {
				return false
			}
			u.chooser.schedule(u.chooser.first)
			continue
		case <-looks:
			if u.looksPoliced(now) {
				return false
			}
			continue
		case <-u.kick:
		}
		if !wait(ctx, ended, silenceGrace) || u.silent.Load() {
			return true
		}
	}
}

// attempt is the outcome of one try to connect.
type attempt struct {
	number  int
	term    *term
	conn    *link.Conn
	welcome wire.Welcome
	err     error
}

var (
	errLostRace = errors.New("another connection of the link was quicker")
	errSpoke    = errors.New("the old connection speaks again")
)

// race starts attempts, after a pause, until one succeeds. Overlapping attempts matter
// on an uplink that comes back: a SYN that was lost while it was dead is repeated
// only seconds later. It returns an error when ctx ends, when the old connection
// speaks again (see incumbent), or when the session to join is no more.
func (u *uplink) race(ctx context.Context, old serving, pause time.Duration) (attempt, error) {
	r := newAttempts(u, ctx, old.session != nil)
	defer r.end()
	i := incumbent{serving: old, uplink: u}
	next := time.NewTimer(pause)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return attempt{}, ctx.Err()
		case <-u.spoke:
			if i.spoke(r.begin) {
				return attempt{}, errSpoke
			}
		case <-i.until:
			if i.late() {
				return attempt{}, errSpoke
			}
		case <-u.moved:
			r.restart()
			next.Reset(0)
		case <-next.C:
			if u.usable() && !r.goesOn() {
				r.start()
			}
			next.Reset(r.pause())
		case a := <-r.results:
			r.ended(a)
			if a.err == nil && i.well() {
				a.conn.Close(errSpoke)
				return attempt{}, errSpoke
			}
			if a.err == nil {
				u.note(nil)
				return a, nil
			}
			if u.failed(ctx, a) {
				return attempt{}, a.err
			}
			r.failed(a.err)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// failed notes why an attempt failed and reports whether the race is over
// because the cloud has lost the session.
func (u *uplink) failed(ctx context.Context, a attempt) bool {
	if ctx.Err() != nil || errors.Is(a.err, context.Canceled) {
		return false
	}
	u.note(a.err)
	var refusal *link.Refusal
	if errors.As(a.err, &refusal) && refusal.Status == wire.StatusNoSession {
		u.tunnels.retire(a.term)
		return true
	}
	return false
}

// note keeps the last error, and what to do about it, for status, and logs it when it is
// news: the same remedy is not, whatever the network said this time. Attempts go to all
// addresses of the cloud's name in turn, and each may fail in its own way.
func (u *uplink) note(err error) {
	var text, news string
	if err != nil {
		err = u.where.explain(err)
		text = err.Error()
		news = text
	}
	if err != nil && u.advise != nil {
		if advice := u.advise(err); advice != "" {
			text, news = text+" ("+advice+")", advice
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lastErr = text
	if text == "" {
		u.news.Forget()
	} else if u.news.Fresh(news, time.Now()) {
		u.log.Warn(fmt.Sprintf("cannot connect: %s", text))
	}
}

// choice is why the link uses its transport, or "".
func (u *uplink) choice() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.chooser.choice
}

// lastError is why the link is not connected, or "".
func (u *uplink) lastError() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.device.why != "" {
		return u.device.why
	}
	return u.lastErr
}
