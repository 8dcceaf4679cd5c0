package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/wire"
)

// A TCP connection has one stream each way. What must not wait behind its bulk goes by
// a second TCP connection beside it, the urgent connection (PROTOCOL.md section 4.4),
// with a handshake, keys and numbers of its own. It names the connection that it
// belongs to by a token that only the two ends of that can know.

const (
	// besideFirst is how long a connection must have stood before it gets an urgent
	// one: many of those that are made while an uplink comes and goes do not. The first of
	// a dialer gets it at once: nothing has gone yet.
	besideFirst = 300 * time.Millisecond
	// besideMin and besideMax are between attempts that fail.
	besideMin = 500 * time.Millisecond
	besideMax = 30 * time.Second
	// besideTries is how many refusals in a row are believed.
	besideTries = 3
	// besideIdle is the keep-alive of an urgent connection, the edge's alone: it is
	// for NATs, its end is found out with that of the connection that it is beside.
	besideIdle = time.Minute
	// besideKept is the same where one has been lost that had stood for as long: a NAT of
	// the uplink forgets what rests sooner than besideIdle, most likely.
	besideKept = 20 * time.Second
	// besideProbe is between probes that are not answered, of which besideProbes end it.
	besideProbe  = 5 * time.Second
	besideProbes = 4
)

// berth is where the urgent connections of a connection come in.
type berth struct {
	token [16]byte
	dial  func(context.Context) (*Conn, error) // the edge's; nil at the cloud
	leave func()                               // the cloud's: the connection is to be found no more

	mu      sync.Mutex
	closed  bool
	waiting *Conn // has come and was not taken (cloud)

	come  chan struct{} // one slot: waiting is set
	wait  Backoff       // NextUrgent's
	pause time.Duration // before its first attempt
	last  time.Time     // when it returned a connection
	short *atomic.Bool  // the uplink's NAT forgets soon (the edge's)
}

func newBerth(token [16]byte) *berth {
	return &berth{token: token, come: make(chan struct{}, 1), wait: Backoff{Min: besideMin, Max: besideMax}}
}

// offer brings a connection in the place of one that was not taken.
func (b *berth) offer(c *Conn) {
	b.mu.Lock()
	old := b.waiting
	if b.closed {
		old = c
	} else {
		b.waiting = c
	}
	b.mu.Unlock()
	if old != nil {
		old.Close(nil)
	}
	select {
	case b.come <- struct{}{}:
	default:
	}
}

// take returns what was offered.
func (b *berth) take() *Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.waiting
	b.waiting = nil
	return c
}

// close refuses further ones.
func (b *berth) close() {
	b.mu.Lock()
	b.closed = true
	c := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	if c != nil {
		c.Close(nil)
	}
	if b.leave != nil {
		b.leave()
	}
}

// TakesUrgent reports whether urgent connections stand beside this one: not on QUIC,
// which has urgent streams, with a peer that is too old for it, and on lanes of an uplink
// other than the first.
func (c *Conn) TakesUrgent() bool { return c.berth != nil }

// TakesTwin reports whether such connections have a twin: not with a peer that is too
// old for it.
func (c *Conn) TakesTwin() bool { return c.twinBerth != nil }

// NextUrgent returns the next urgent connection that stands beside this one, or the next
// twin of it: a connection of its own whose owner the caller is. The edge makes it and tries
// again and again, the cloud waits for it. It returns an error when ctx has ended, and
// when the cloud will have none. TakesUrgent, or TakesTwin, must say true. One caller at a
// time for each.
func (c *Conn) NextUrgent(ctx context.Context, twin bool) (*Conn, error) {
	b := c.berth
	if twin {
		b = c.twinBerth
	}
	if b.dial != nil {
		return b.dialNext(ctx)
	}
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-b.come:
			if next := b.take(); next != nil {
				return next, nil
			}
		}
	}
}

// dialNext is NextUrgent of the edge.
func (b *berth) dialNext(ctx context.Context) (*Conn, error) {
	pause := b.pause
	if !b.last.IsZero() {
		if time.Since(b.last) > besideMax {
			b.wait.Reset()
		}
		pause = b.wait.Next(rand.Float64())
	}
	for refused := 0; ; {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		c, err := b.dial(ctx)
		if err == nil {
			b.stands(c)
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if definite(err) {
			refused++
		} else {
			refused = 0
		}
		if refused == besideTries {
			return nil, err
		}
		pause = b.wait.Next(rand.Float64())
	}
}

// stands notes that a connection was made. The link's own stands, as the cloud has found
// the token, so if there was one before, that has ended by itself.
func (b *berth) stands(c *Conn) {
	now := time.Now()
	if !b.last.IsZero() && now.Sub(b.last) >= besideKept {
		b.short.Store(true)
	}
	b.last = now
	if p, ok := c.pipe.(*tcpPipe); ok && b.short.Load() {
		p.keep(besideKept)
	}
}

// beside reports whether a connection may have urgent ones beside it.
func (i *Info) beside() bool {
	return i.Transport == TCP && i.Version >= wire.VersionBeside && wire.LaneOf(int(i.Index)) == 0
}

// token is what names a connection to its two ends only.
func (s *secured) token(transcript []byte) (token [16]byte, err error) {
	secret, err := s.state.ExportKeyingMaterial(besideLabel, transcript, len(token))
	if err != nil {
		return token, fmt.Errorf("link keys: %w", err)
	}
	return [16]byte(secret), nil
}

// urgentConn makes an urgent connection out of a handshake that succeeded.
func (s *secured) urgentConn(transcript []byte, edge, twin bool, info Info, counters *Counters) (*Conn, error) {
	l := urgentLabels
	if twin {
		l = twinLabels
	}
	k, err := s.keys(transcript, edge, l)
	if err != nil {
		return nil, err
	}
	if p, ok := s.pipe.(*tcpPipe); ok {
		p.beside(edge)
	}
	return newConn(s.pipe, k, nil, info, counters)
}

// beside sets what is other on the socket of an urgent connection.
func (p *tcpPipe) beside(edge bool) {
	p.parks = true
	p.started.Store(true) // it is not for loads: there is nothing to quicken
	// BBR would take many small records for the rate of the path.
	_ = p.raw.Control(func(fd uintptr) { _ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
	if edge {
		p.keep(besideIdle)
	} else {
		_ = p.conn.SetKeepAlive(false)
	}
}

// keep has what tracks the connection on its way see a packet of it that often. The user
// time-out counts from when something last came, and would let one lost probe end it.
func (p *tcpPipe) keep(idle time.Duration) {
	_ = p.conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: besideProbe, Count: besideProbes})
	most := max(userTimeout, idle+besideProbes*besideProbe)
	_ = p.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(most.Milliseconds()))
	})
}

// dialBeside makes an urgent connection beside c.
func (d *Dialer) dialBeside(ctx context.Context, c *Conn, twin bool, hello wire.Hello) (*Conn, error) {
	hello.VersionMin, hello.VersionMax, hello.Resume, hello.Beside = c.info.Version, c.info.Version, true, c.berth.token
	hello.Twin = twin
	u, _, err := d.attempt(ctx, TCP, hello)
	return u, err
}

// besides finds a cloud's connections by their tokens.
type besides struct {
	mu      sync.Mutex
	byToken map[[16]byte]*Conn
}

func (b *besides) enter(c *Conn) {
	token := c.berth.token
	c.berth.leave = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.byToken, token)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byToken[token] = c
}

func (b *besides) find(token [16]byte) *Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byToken[token]
}

// admitBeside answers the HELLO of an urgent connection.
func (a *arrival) admitBeside(ctx context.Context) (*Conn, Admission, error) {
	of := a.l.besides.find(a.hello.Beside)
	if of == nil || a.at.Transport != TCP || of.info.PeerKey != a.s.peer || of.info.Session != a.hello.Session ||
		of.info.Index != a.hello.Link || a.hello.VersionMin > of.info.Version || a.hello.VersionMax < of.info.Version || a.hello.Twin && of.twinBerth == nil {
		r := &Refusal{wire.StatusBadLink, "the connection that this urgent connection belongs to has ended, or is another's"}
		a.refuse(ctx, r)
		return nil, Admission{}, r
	}
	w := a.answer()
	w.Version, w.Resumed = of.info.Version, true
	info := of.info
	info.Suite = tls.CipherSuiteName(a.s.state.CipherSuite)
	var c *Conn
	err := a.s.during(ctx, func() error {
		sum, err := a.s.sayWelcome(a.message, w)
		if err == nil {
			c, err = a.s.urgentConn(sum, false, a.hello.Twin, info, a.l.options.Counters)
		}
		return err
	})
	to := of.berth
	if a.hello.Twin {
		to = of.twinBerth
	}
	return c, Admission{Attach: to.offer}, err
}
