package agent

import (
	"context"
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
	choice string // for status: why the link uses the transport that it uses
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
	ended     chan struct{}
}

// trial measures the transport in use, changes to the other one, measures that,
// and goes back unless it is better. The session's traffic is the load; without
// any the delay decides.
func (u *uplink) trial(ctx context.Context, wg *sync.WaitGroup, now serving) serving {
	c := &u.chooser
	c.next = min(c.next*2, c.most) // unless something comes of it
	defer func() { c.schedule(c.next) }()
	incumbent, ok := u.measure(ctx, now, nil)
	if !ok {
		return now
	}
	challenger := u.change(ctx, wg, other(now.transport))
	if challenger.ended == nil {
		u.choose(fmt.Sprintf("%s: %s does not connect", now.transport, other(now.transport)))
		return now
	}
	measured := scheduler.Measure{Transport: string(challenger.transport)}
	if wait(ctx, challenger.ended, c.settle) {
		measured, ok = u.measure(ctx, challenger, func(m scheduler.Measure) bool { return scheduler.Hopeless(incumbent, m) })
	}
	better, why := scheduler.Better(incumbent, measured)
	if better && ok {
		u.decide(challenger.transport, why)
		return challenger
	}
	back := u.change(ctx, wg, now.transport)
	if back.ended == nil {
		u.choose(fmt.Sprintf("%s: %s does not connect any more", challenger.transport, now.transport))
		return challenger
	}
	if incumbent.Loaded() {
		c.next = c.every
	}
	u.decide(back.transport, why)
	return back
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

// change connects by a transport and lets the session use the connection,
// which ends the one before. The result has no end if that fails.
func (u *uplink) change(ctx context.Context, wg *sync.WaitGroup, t link.Transport) serving {
	term, hello := u.tunnels.hello()
	conn, welcome, err := u.chooser.dialer.DialBy(ctx, t, hello)
	if err != nil {
		return serving{}
	}
	s := u.tunnels.join(term, welcome)
	if s == nil {
		conn.Close(errRetired)
		return serving{}
	}
	return serving{session: s, transport: t, ended: u.serve(wg, s, conn)}
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
	begin, looks, delay, silent := time.Now(), 0, time.Duration(0), false
	for {
		if !wait(ctx, on.ended, u.chooser.step) {
			return m, false
		}
		was := silent
		if silent = u.silent.Load(); was && silent {
			return m, false
		}
		f, ok := u.figures(on)
		if !ok {
			return m, false
		}
		took := time.Since(begin)
		looks++
		delay += f.SRTT
		m.RTT = delay / time.Duration(looks)
		m.Rate = float64(f.BytesSent+f.BytesGot-first.BytesSent-first.BytesGot) / took.Seconds()
		if took >= u.chooser.span || enough != nil && took >= u.chooser.span/3 && enough(m) {
			return m, true
		}
	}
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
