package link

import (
	"context"
	"errors"
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
