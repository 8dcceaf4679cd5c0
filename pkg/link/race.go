package link

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
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
	// A TCP connection that stands and hears something keeps its head start: on a line of 10
	// kbit/s QUIC's packets, which take a second each, would take it from a handshake of four.
	// Where TCP connects and nothing large passes nothing is heard any more.
	heardTrips = 6               // round trips of the SYN for which one counts as hearing, headStart at least and yieldMost at most
	heardMost  = 8 * time.Second // since the race's begin
)

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
	first := *d
	first.ear = new(ear)
	begin := time.Now()
	go first.attemptOne(attemptCtx, 0, order[0], hello, results)
	second := time.NewTimer(headStart)
	defer second.Stop()
	started := false
	startSecond := func() {
		if !started {
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
			if more := first.ear.patience(); more > 0 && time.Since(begin) < heardMost {
				second.Reset(more)
				continue
			}
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

// ear is at the TCP connection of an attempt, once that stands.
type ear struct{ at atomic.Pointer[tcpPipe] }

// patience is how much longer the other transport had better wait: the connection has
// heard something lately.
func (e *ear) patience() (more time.Duration) {
	p := e.at.Load()
	if p == nil {
		return 0
	}
	_ = p.raw.Control(func(fd uintptr) {
		var info unix.TCPInfo
		if err := nonblock.TCPInfo(int(fd), &info); err == nil {
			trips := heardTrips * time.Duration(info.Rtt) * time.Microsecond
			more = min(max(trips, headStart), yieldMost) - sinceHeard(&info)
		}
	})
	return more
}
