package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/box"
	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// uplink keeps one configured link connected. When its connection falls
// silent, others are raced on the same uplink; the first that stands replaces
// it, unless the old one speaks again before.
type uplink struct {
	id      int
	name    string
	tunnels *tunnels
	log     *slog.Logger
	auto    bool // the transport is chosen automatically
	dial    func(context.Context, wire.Hello) (*link.Conn, wire.Welcome, error)

	silent atomic.Bool
	kick   chan struct{} // one slot: the link has fallen silent

	mu      sync.Mutex
	lastErr string // for status
}

// silenceGrace is how long a link may be silent before another connection is
// raced on the same uplink: most silences end by themselves.
const silenceGrace = 200 * time.Millisecond

// Race of connection attempts on one uplink.
const (
	raceFirst = 400 * time.Millisecond // from one attempt's start to the next's
	raceMost  = 5 * time.Second
	raceWidth = 4 // attempts under way
)

// run keeps the link connected until ctx ends.
func (u *uplink) run(ctx context.Context) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for ctx.Err() == nil {
		won, err := u.race(ctx)
		if err != nil {
			continue // the term is over, or ctx is
		}
		s := u.tunnels.join(won.term, won.welcome)
		if s == nil {
			won.conn.Close(errRetired)
			continue
		}
		info := won.conn.Info()
		ended := make(chan struct{})
		serving.Go(func() {
			defer close(ended)
			// The session closes its connections when it ends, after its goodbye.
			_ = s.Serve(context.Background(), tunnel.LinkInfo{
				ID: u.id, Name: u.name, Transport: string(info.Transport), Remote: info.Remote.String(),
			}, box.Carrier(won.conn))
		})
		u.watch(ctx, ended)
	}
}

// watch returns when another connection is wanted: the last one has ended, or
// is silent for longer than the grace.
func (u *uplink) watch(ctx context.Context, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-u.kick:
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-time.After(silenceGrace):
		}
		if u.silent.Load() {
			return
		}
	}
}

// attempt is the outcome of one try to connect.
type attempt struct {
	term    *term
	conn    *link.Conn
	welcome wire.Welcome
	err     error
}

// race starts attempts at growing intervals until one succeeds. Overlapping
// attempts matter on an uplink that comes back: a SYN that was lost while it
// was dead is repeated only seconds later. It returns an error when ctx ends
// or the session to join is no more.
func (u *uplink) race(ctx context.Context) (attempt, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan attempt)
	running := 0
	defer func() {
		cancel()
		for range running {
			if a := <-results; a.conn != nil {
				a.conn.Close(errLostRace)
			}
		}
	}()
	interval, next := raceFirst, time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return attempt{}, ctx.Err()
		case <-next.C:
			if running < raceWidth {
				running++
				go u.try(ctx, results)
			}
			next.Reset(interval/2 + rand.N(interval))
			interval = min(interval*5/4, raceMost)
		case a := <-results:
			running--
			if a.err == nil {
				u.note(nil)
				a, running = u.preferTCP(ctx, a, results, running)
				return a, nil
			}
			if u.failed(ctx, a) {
				return attempt{}, a.err
			}
		}
	}
}

// preferTCP lets a QUIC connection that has won an automatic choice wait for
// one more attempt: a cloud that is only just starting refuses TCP and answers
// the QUIC packets that were waiting, and TCP is the cheaper transport.
func (u *uplink) preferTCP(ctx context.Context, won attempt, results chan attempt, running int) (attempt, int) {
	if !u.auto || won.conn.Info().Transport != link.QUIC {
		return won, running
	}
	go u.try(ctx, results)
	running++
	grace := time.NewTimer(tcpGrace)
	defer grace.Stop()
	for running > 0 {
		select {
		case <-grace.C:
			return won, running
		case a := <-results:
			running--
			switch {
			case a.err != nil:
			case a.conn.Info().Transport == link.TCP:
				won.conn.Close(errLostRace)
				return a, running
			default:
				a.conn.Close(errLostRace)
			}
		}
	}
	return won, running
}

// tcpGrace is how long a QUIC connection waits for a TCP one.
const tcpGrace = time.Second

var errLostRace = errors.New("another connection of the link was quicker")

// try makes one attempt.
func (u *uplink) try(ctx context.Context, results chan<- attempt) {
	a := attempt{}
	var hello wire.Hello
	a.term, hello = u.tunnels.hello()
	a.conn, a.welcome, a.err = u.dial(ctx, hello)
	results <- a
}

// failed notes why an attempt failed and reports whether the race is over
// because the cloud has lost the session.
func (u *uplink) failed(ctx context.Context, a attempt) bool {
	if ctx.Err() != nil {
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

// note keeps the last error for status and logs it when it is news.
func (u *uplink) note(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if text != "" && text != u.lastErr {
		u.log.Warn(fmt.Sprintf("cannot connect: %s", text))
	}
	u.lastErr = text
}

// lastError is why the link is not connected, or "".
func (u *uplink) lastError() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastErr
}
