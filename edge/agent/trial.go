package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"hawser/pkg/link"
	"hawser/pkg/tunnel"
	"hawser/scheduler"
)

// trials says when a link with `transport: auto` tries its other transport, and
// for how long it measures each.
type trials struct {
	first, every, most time.Duration // since the connection, between trials, and at most after idle ones
	span, settle, step time.Duration // of one measurement, before the second one, between two looks: more than silenceGrace
}

// trialsEvery measures each transport for some seconds, about as often as the
// configuration says. A trial costs what is in flight, once or twice.
func trialsEvery(every time.Duration) trials {
	return trials{
		first: every * 2 / 5, every: every, most: 8 * every,
		span: 4 * time.Second, settle: time.Second, step: 250 * time.Millisecond,
	}
}

// chooser is what an automatic link needs to compare its transports. It
// belongs to uplink.run but for choice, which the uplink's mutex guards.
type chooser struct {
	trials
	dialer *link.Dialer // nil: the transport is given
	next   time.Duration
	due    <-chan time.Time
	thin   thin
	tried  time.Time      // when the last trial under load was, or was brought forward
	proven link.Transport // that the present connection has by a comparison under load; "": none
	choice string         // for status: why the link uses the transport that it uses
}

// schedule sets the time of the next trial.
func (c *chooser) schedule(after time.Duration) {
	c.due = nil
	if c.dialer != nil {
		c.due = time.After(after/2 + rand.N(after))
	}
}

// other is the transport that a link does not use.
func other(t link.Transport) link.Transport {
	if t == link.TCP {
		return link.QUIC
	}
	return link.TCP
}

// serving is the connection that the link uses.
type serving struct {
	session   *tunnel.Session
	transport link.Transport
	since     time.Time
	ended     chan struct{}
	stats     func() link.Stats // of the connection
	weighed   bool              // how it ended is taken in
}

// carried is how many bytes have gone by it, both ways.
func (s *serving) carried() uint64 {
	st := s.stats()
	return st.BytesIn + st.BytesOut
}

// trial measures the transport in use, changes to the other one, measures that,
// and goes back unless it is better. The session's traffic is the load; without
// any the delay decides. A connection that ends meanwhile, or falls silent, ends
// the trial: then another one is wanted first.
func (u *uplink) trial(ctx context.Context, wg *sync.WaitGroup, now serving) serving {
	c := &u.chooser
	c.next = min(c.next*2, c.most) // unless something comes of it
	defer func() { c.thin = thin{}; c.schedule(c.next) }()
	incumbent, ok := u.measure(ctx, now, nil)
	if !ok {
		return now
	}
	if incumbent.Loaded() {
		c.tried = time.Now()
	}
	challenger, err := u.change(ctx, wg, now, other(now.transport))
	if err != nil {
		if !errors.Is(err, errUnfinished) {
			c.proven = now.transport
			u.choose(fmt.Sprintf("%s: %s does not connect", now.transport, other(now.transport)))
		}
		return now
	}
	measured := scheduler.Measure{Transport: string(challenger.transport)}
	lasts := wait(ctx, challenger.ended, c.settle)
	if lasts {
		measured, lasts = u.measure(ctx, challenger, func(m scheduler.Measure) bool { return scheduler.Hopeless(incumbent, m) })
	}
	better, why := scheduler.Better(incumbent, measured)
	loaded := incumbent.Loaded() || measured.Loaded()
	switch {
	case ctx.Err() != nil:
		return challenger
	case !lasts:
		why = fmt.Sprintf("%s did not last", challenger.transport)
	case better:
		c.prove(challenger.transport, loaded)
		u.decide(challenger.transport, why)
		return challenger
	}
	back, err := u.change(ctx, wg, challenger, now.transport)
	switch {
	case errors.Is(err, errUnfinished): // the race that follows gives it the head start
		u.decide(now.transport, why)
		return challenger
	case err != nil:
		u.choose(fmt.Sprintf("%s: %s does not connect any more", challenger.transport, now.transport))
		return challenger
	}
	if incumbent.Loaded() {
		c.next = c.every
	}
	c.prove(back.transport, loaded)
	u.decide(back.transport, why)
	return back
}

// prove notes that a transport was chosen, and whether for what it carries: at rest the
// delay decides, which says nothing of that.
func (c *chooser) prove(t link.Transport, loaded bool) {
	if c.proven = ""; loaded {
		c.proven = t
	}
}

// decide makes a transport the link's choice.
func (u *uplink) decide(t link.Transport, why string) {
	u.chooser.dialer.Prefer(t)
	u.choose(fmt.Sprintf("%s: %s, at %s", t, why, time.Now().Format(time.TimeOnly)))
}

// choose notes why the link uses its transport.
func (u *uplink) choose(why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.chooser.choice = why
	u.log.Info("transport chosen", "choice", why)
}

// errUnfinished is why a change of transport was given up: the link wants another
// connection at once, by whichever connects first, or another session, or none.
var errUnfinished = errors.New("not tried to the end")

// change connects by a transport and lets the session use the connection, which
// ends the one before. It gives up as soon as that one ends or is silent: a transport
// that does not pass answers nothing for as long as an attempt may take.
func (u *uplink) change(ctx context.Context, wg *sync.WaitGroup, from serving, t link.Transport) (serving, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		for v := (vigil{uplink: u}); v.step(ctx, from); {
		}
		cancel()
	})
	term, hello := u.tunnels.hello()
	conn, welcome, err := u.chooser.dialer.DialBy(ctx, t, hello)
	if err != nil && ctx.Err() != nil {
		err = errUnfinished
	}
	if err != nil {
		return serving{}, err
	}
	s := u.tunnels.join(term, welcome)
	if s == nil {
		conn.Close(errRetired)
		return serving{}, errUnfinished
	}
	return serving{session: s, transport: t, since: time.Now(), ended: u.serve(wg, s, conn), stats: conn.Stats}, nil
}

// vigil looks at a connection of an uplink, step by step.
type vigil struct {
	uplink *uplink
	silent bool // at the look before
}

// step waits for the next look. It returns false when the connection has ended before, or
// ctx, and when the link is silent for a step.
func (v *vigil) step(ctx context.Context, on serving) bool {
	if !wait(ctx, on.ended, v.uplink.chooser.step) {
		return false
	}
	was := v.silent
	v.silent = v.uplink.silent.Load()
	return !was || !v.silent
}

// measure watches a connection for the span; ok is false when it ended before,
// or ctx did, or the link is silent for a step: then another connection is wanted
// first. enough may end it early.
func (u *uplink) measure(ctx context.Context, on serving, enough func(scheduler.Measure) bool) (m scheduler.Measure, ok bool) {
	m.Transport = string(on.transport)
	first, ok := u.figures(on)
	if !ok {
		return m, false
	}
	begin := time.Now()
	for v := (vigil{uplink: u}); v.step(ctx, on); {
		f, ok := u.figures(on)
		if !ok {
			return m, false
		}
		took := time.Since(begin)
		m.RTT = trip(first, f)
		m.Rate = float64(f.BytesSent+f.BytesGot-first.BytesSent-first.BytesGot) / took.Seconds()
		if took >= u.chooser.span || enough != nil && took >= u.chooser.span/3 && enough(m) {
			return m, true
		}
	}
	return m, false
}

// trip is the mean of the round trips between two looks. The smoothed one still tells of
// the transport before: at rest there is one a second.
func trip(from, to tunnel.LinkStatus) time.Duration {
	if n := to.Trips - from.Trips; n > 0 {
		return (to.TripTime - from.TripTime) / time.Duration(n)
	}
	return to.SRTT
}

// figures are the link's in its session.
func (u *uplink) figures(on serving) (tunnel.LinkStatus, bool) {
	st, ok := on.session.Status()
	if !ok {
		return tunnel.LinkStatus{}, false
	}
	for _, l := range st.Links {
		if l.ID == u.id {
			return l, true
		}
	}
	return tunnel.LinkStatus{}, false
}

// wait waits for d; it returns false when ctx or the connection ended before.
func wait(ctx context.Context, ended <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ended:
	case <-ctx.Done():
	}
	return false
}
