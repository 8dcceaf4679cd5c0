package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"hawser/pkg/wire"
)

// incoming is an accepted connection before TLS.
type incoming interface {
	transport() Transport
	remote() netip.AddrPort
	// secure runs TLS. On failure it closes the connection.
	secure(context.Context, *ListenOptions) (*secured, error)
	// watch ends the connection if more comes by it than a handshake takes, until ctx ends.
	watch(context.Context)
	// blame is why a handshake really failed that ended with an error.
	blame(error) error
	drop()
}

// errCrowded ends a handshake whose place has gone to another.
var errCrowded = errors.New("too many handshakes are under way")

// admit starts the handshake if there is a place for it.
func (l *Listener) admit(ctx context.Context, in incoming) {
	ctx, lose := context.WithCancelCause(ctx)
	place := l.places.Enter(in.remote().Addr(), func() { lose(errCrowded) })
	if place == nil {
		lose(nil)
		l.options.Counters.Crowded.Add(1)
		in.drop()
		return
	}
	l.active.Go(func() {
		defer lose(nil)
		defer place.Leave()
		l.handle(ctx, in)
	})
}

// arrival is one connection on its way through the handshake.
type arrival struct {
	l       *Listener
	s       *secured
	hello   wire.Hello
	message []byte    // hello as it was received
	met     func()    // it is no stranger's any more
	at      StepError // who, and how far it has come
}

// handle admits or refuses one connection.
func (l *Listener) handle(ctx context.Context, in incoming) {
	ctx, cancel := context.WithTimeout(ctx, l.options.Timeout)
	defer cancel()
	watching, met := context.WithCancel(ctx)
	defer met()
	l.active.Go(func() { in.watch(watching) })
	a := &arrival{l: l, met: met, at: StepError{Transport: in.transport(), Remote: in.remote(), Step: StepTLS}}
	begin := time.Now()
	var err error
	if a.s, err = in.secure(ctx, &l.options); err == nil {
		err = a.greet(ctx)
	}
	if err != nil {
		err = in.blame(err)
	}
	if err != nil && context.Cause(ctx) == errCrowded {
		l.options.Counters.Crowded.Add(1)
		return
	}
	if !l.outrun.left(a.at.Remote.Addr(), begin, err) {
		l.tally(&a.at, err)
	}
}

// tally counts how a handshake ended and tells of a failure.
func (l *Listener) tally(at *StepError, err error) {
	var refusal *Refusal
	switch {
	case err == nil:
		l.options.Counters.Handshakes.Add(1)
		return
	case errors.As(err, &refusal):
		l.options.Counters.Refused.Add(1)
	default:
		l.options.Counters.Failed.Add(1)
	}
	if l.options.Failed != nil {
		at.Err = err
		l.options.Failed(at)
	}
}

// greet hears HELLO, asks the Admitter and answers. It hands the connection
// over or closes it.
func (a *arrival) greet(ctx context.Context) error {
	conn, admission, err := a.talk(ctx)
	if err != nil {
		a.s.pipe.close(ErrClosed)
		return plainError(err)
	}
	admission.Attach(conn)
	return nil
}

func (a *arrival) talk(ctx context.Context) (*Conn, Admission, error) {
	a.at.Step = StepHello
	err := a.s.during(ctx, func() (err error) {
		a.hello, a.message, err = a.s.hearHello()
		return err
	})
	if err != nil {
		if errors.Is(err, wire.ErrHello) && a.message != nil {
			a.refuse(ctx, &Refusal{wire.StatusMalformed, "the cloud could not decode HELLO"})
		}
		return nil, Admission{}, err
	}
	a.at.Link, a.at.Step = a.hello.Name, StepWelcome
	if a.hello.Beside != [16]byte{} {
		return a.admitBeside(ctx)
	}
	admission, version, err := a.decide()
	if err == nil {
		err = a.share()
	}
	if err == nil {
		a.met() // before WELCOME: it may be answered by more than a stranger may send
	}
	if err == nil || errors.Is(err, ErrNoSession) {
		a.l.outrun.answered(a.at.Remote.Addr(), time.Now(), a.l.options.Timeout+outrunMost)
	}
	if err != nil {
		refusal := refusalOf(err, a.s.peer)
		a.refuse(ctx, refusal)
		if errors.As(err, new(*Refusal)) {
			return nil, Admission{}, err
		}
		return nil, Admission{}, &refusedFor{refusal, err}
	}
	conn, err := a.welcome(ctx, admission, version)
	return conn, admission, err
}

// decide chooses the version and asks the Admitter.
func (a *arrival) decide() (Admission, uint16, error) {
	lowest, highest := a.l.options.versions[0], a.l.options.versions[1]
	version, ok := wire.ChooseVersion(a.hello, lowest, highest)
	if !ok {
		return Admission{}, 0, &Refusal{wire.StatusVersion, fmt.Sprintf(
			"edge speaks protocol version %d to %d, cloud %d to %d: update the older one",
			a.hello.VersionMin, a.hello.VersionMax, lowest, highest)}
	}
	r := Request{Key: a.s.peer, Hello: a.hello, Transport: a.at.Transport, Remote: a.at.Remote}
	admission, err := a.l.options.Admitter.Admit(r)
	return admission, version, err
}

// share has the connection count among its edge's. It returns a *Refusal where that has too many.
func (a *arrival) share() error {
	if p, ok := a.s.pipe.(*quicPipe); ok && !p.share(a.l.ahead, a.s.peer) {
		return &Refusal{wire.StatusBusy, fmt.Sprintf("this edge has more than %d connections by QUIC, and what it may have of the cloud's memory is taken", aheadFree)}
	}
	return nil
}

func (a *arrival) answer() wire.Welcome {
	v := a.l.options.versions
	return wire.Welcome{Name: a.l.options.Name, VersionMin: v[0], VersionMax: v[1]}
}

// welcome tells the edge that it is admitted and makes the connection.
func (a *arrival) welcome(ctx context.Context, admission Admission, version uint16) (*Conn, error) {
	w := a.answer()
	w.Version, w.Resumed, w.Secret = version, admission.Resumed, admission.Secret
	info := Info{
		Transport: a.at.Transport, Link: a.hello.Name, Index: a.hello.Link,
		Peer: admission.Edge, PeerKey: a.s.peer, Version: version, Session: a.hello.Session,
		Resumed: admission.Resumed, Suite: tls.CipherSuiteName(a.s.state.CipherSuite),
	}
	var c *Conn
	err := a.s.during(ctx, func() error {
		sum, err := a.s.sayWelcome(a.message, w)
		if err == nil {
			c, err = a.s.connection(sum, false, info, a.l.options.Counters)
		}
		if err == nil && c.berth != nil {
			a.l.besides.enter(c)
		}
		return err
	})
	if err != nil && c != nil {
		c.Close(nil)
	}
	return c, err
}

// refuse tells the edge why, and gives it a moment to read that: closing at
// once could overtake the answer. What fails here changes nothing.
func (a *arrival) refuse(ctx context.Context, r *Refusal) {
	ctx, cancel := context.WithTimeout(ctx, lingerTime)
	defer cancel()
	w := a.answer()
	w.Status, w.Text = r.Status, r.Text
	_ = a.s.during(ctx, func() error {
		if _, err := a.s.sayWelcome(a.message, w); err != nil {
			return err
		}
		if err := a.s.pipe.closeWrite(); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, io.LimitReader(a.s.stream, 64<<10))
		return err
	})
}

// tcpIncoming is an accepted TCP connection.
type tcpIncoming struct{ conn *net.TCPConn }

func (in *tcpIncoming) transport() Transport   { return TCP }
func (in *tcpIncoming) remote() netip.AddrPort { return addrPort(in.conn.RemoteAddr()) }
func (in *tcpIncoming) drop()                  { _ = in.conn.Close() }
func (in *tcpIncoming) watch(context.Context)  {} // nothing is read that is not wanted
func (in *tcpIncoming) blame(err error) error  { return err }

func (in *tcpIncoming) secure(ctx context.Context, o *ListenOptions) (*secured, error) {
	v := &verdict{peerKey: o.PeerKey}
	p, err := newTCPPipe(in.conn, o.Windows, addrPort(in.conn.LocalAddr()).Port())
	if err != nil {
		in.drop()
		return nil, err
	}
	s, err := secureTCP(ctx, p, tls.Server, v.config(o.Certificate))
	if err != nil {
		if v.err != nil {
			in.linger(ctx)
		}
		in.drop()
		return nil, v.explain(err, rejectsUs(err), edgeRejects)
	}
	s.peer = v.key
	return s, nil
}

// linger gives the edge a moment to read the alert that says what is wrong: to
// close while its HELLO is unread would reset the connection instead.
func (in *tcpIncoming) linger(ctx context.Context) {
	_ = in.conn.CloseWrite()
	_ = in.conn.SetReadDeadline(time.Now().Add(lingerTime))
	defer context.AfterFunc(ctx, func() { _ = in.conn.SetReadDeadline(past()) })()
	_, _ = io.Copy(io.Discard, io.LimitReader(in.conn, 64<<10))
}
