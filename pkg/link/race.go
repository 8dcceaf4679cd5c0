package link

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"hawser/pkg/wire"
)

// Auto races both transports in the manner of Happy Eyeballs (RFC 8305): the
// preferred one has a head start, which is longer than it needs on most paths,
// and shorter than what a dead one would cost.
const (
	headStart = 300 * time.Millisecond
	// A second that won lets the first finish if it is about to: it waits as
	// long again as it took itself, within these bounds. The least is for a busy
	// machine; it costs only the first dial where the first does not pass.
	graceMin = 500 * time.Millisecond
	graceMax = time.Second
)

// Attempts overlap, and QUIC's first packet has 1.2 KB, twenty times a SYN: each with one
// of its own would fill a line of 10 kbit/s for good. So where QUIC is the second one, only
// one attempt in so long has it, for each address of the cloud, unless what that one had
// has failed by itself.
const standInApart = 5 * time.Second

// standIn notes when QUIC was a race's second one. Concurrent use is safe.
type standIn struct {
	mu   sync.Mutex
	last map[netip.AddrPort]time.Time // of the last standInApart
}

// may says whether a race may have t as its second one now.
func (s *standIn) may(t Transport, remote netip.AddrPort) bool {
	if t != QUIC {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.last, func(_ netip.AddrPort, at time.Time) bool { return time.Since(at) >= standInApart })
	if _, had := s.last[remote]; had {
		return false
	}
	if s.last == nil {
		s.last = map[netip.AddrPort]time.Time{}
	}
	s.last[remote] = time.Now()
	return true
}

// free lets the next one have it.
func (s *standIn) free(remote netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, remote)
}

var errLostRace = errors.New("the other transport was quicker")

// outcome is the end of one attempt in a race.
type outcome struct {
	place   int // in the order
	hello   wire.Hello
	took    time.Duration
	conn    *Conn
	welcome wire.Welcome
	err     error
}

// race tries both transports; the first connection wins.
func (d *Dialer) race(ctx context.Context, hello wire.Hello) (*Conn, wire.Welcome, error) {
	order := d.order()
	attemptCtx, cancel := context.WithCancel(ctx)
	results := make(chan outcome, len(order))
	running := 1
	go d.attemptOne(attemptCtx, 0, order[0], hello, results)
	second := time.NewTimer(headStart)
	defer second.Stop()
	started := false
	startSecond := func() {
		if !started && d.standIn.may(order[1], d.options.Remote) {
			started = true
			running++
			go d.attemptOne(attemptCtx, 1, order[1], hello, results)
		}
	}
	defer func() {
		cancel()
		for range running {
			if o := <-results; o.conn != nil {
				o.conn.Close(errLostRace)
			}
		}
	}()
	var failed [2]error
	for running > 0 {
		select {
		case <-second.C:
			startSecond()
		case o := <-results:
			running--
			if o.err == nil {
				if o.place == 1 {
					o, running = d.yield(ctx, o, failed[0], running, results)
				}
				d.last.Store(o.conn.Info().Transport)
				return o.conn, o.welcome, nil
			}
			failed[o.place] = o.err
			if o.place == 0 && ctx.Err() == nil && !definite(o.err) {
				startSecond()
			}
			if definite(o.err) {
				return nil, wire.Welcome{}, o.err
			}
		}
	}
	return nil, wire.Welcome{}, joined(failed)
}

// joined is the error of all transports that were tried.
func joined(failed [2]error) error {
	if failed[1] == nil {
		return failed[0]
	}
	return attemptsError(failed[:])
}

// attemptOne makes one attempt of a race.
func (d *Dialer) attemptOne(ctx context.Context, place int, t Transport, hello wire.Hello, results chan<- outcome) {
	begin := time.Now()
	o := outcome{place: place, hello: hello}
	o.conn, o.welcome, o.err = d.attempt(ctx, t, hello)
	o.took = time.Since(begin)
	if place == 1 && t == QUIC && o.err != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		d.standIn.free(d.options.Remote)
	}
	results <- o
}

// yield lets the preferred transport win after all, if it is about to connect
// or was refused by a cloud that was only just starting: such a cloud answers
// the QUIC packets that it finds waiting.
func (d *Dialer) yield(ctx context.Context, won outcome, first error, running int, results <-chan outcome) (outcome, int) {
	grace := min(max(won.took, graceMin), graceMax)
	if errors.Is(first, syscall.ECONNREFUSED) && won.conn.Info().Transport == QUIC {
		ctx, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if conn, welcome, err := d.attempt(ctx, TCP, won.hello); err == nil {
			won.conn.Close(errLostRace)
			return outcome{conn: conn, welcome: welcome}, running
		}
		return won, running
	}
	if running == 0 {
		return won, running
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case o := <-results:
		running--
		if o.err == nil {
			won.conn.Close(errLostRace)
			return o, running
		}
	}
	return won, running
}
