package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"hawser/pkg/resume"
	"hawser/pkg/wire"
)

// DefaultTimeout bounds one attempt to connect by one transport, and the
// cloud's part of a handshake. On a line of 10 kbit/s and 0.3 s it takes 4 s by TCP, 16 by QUIC.
const DefaultTimeout = 20 * time.Second

// Where says at which address the cloud is to be tried next. It may take time, and
// may be called concurrently.
type Where func(context.Context) (netip.AddrPort, error)

// DialerOptions says what a link connects, and how.
type DialerOptions struct {
	Link      string         // name of the link, at most wire.MaxName bytes
	Index     uint16         // its index in the configuration
	Remote    netip.AddrPort // the cloud's address
	Where     Where          // asked for it before each connection; nil: it is Remote
	Transport Transport      // TCP, QUIC or Auto; "" is Auto
	Interface string         // network interface that the sockets are bound to; "" leaves it to the routes
	Mark      uint32         // firewall mark of the sockets; 0 for none
	Timeout   time.Duration  // per transport; 0 is DefaultTimeout

	Certificate tls.Certificate                      // this edge's, over its Ed25519 key
	PeerKey     func(raw [][]byte) ([32]byte, error) // reads the key out of the cloud's certificates (DER)
	CloudKey    [32]byte                             // the only key that is accepted
	Counters    *Counters                            // nil for counters of its own
	Windows     *resume.Windows                      // what TCP connections begin with; nil: with what the kernel gives them
	Heard       func(Transport)                      // told when the first packet comes back to an attempt, from its own goroutines; nil: nobody is

	packets func(context.Context) (net.PacketConn, error) // QUIC's socket; nil is UDP; tests change it
}

// Dialer connects one link, again and again. It remembers which transport
// succeeded last, or is to be preferred. Dial may be called concurrently.
type Dialer struct {
	options DialerOptions
	last    *atomic.Value // Transport
	stood   *atomic.Bool  // one of its connections has
	under   *handshakes
	standIn *standIn
	sizes   *segments
	short   *atomic.Bool // a NAT on the way forgets soon: see berth
	small   bool         // of an attempt's copy: by TCP with small segments
}

// NewDialer checks the options. It opens nothing.
func NewDialer(o DialerOptions) (*Dialer, error) {
	if o.Transport == "" {
		o.Transport = Auto
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	switch {
	case o.Link == "" || len(o.Link) > wire.MaxName:
		return nil, fmt.Errorf("link %q: name has %d bytes, want 1 to %d", o.Link, len(o.Link), wire.MaxName)
	case o.Transport != Auto && o.Transport != TCP && o.Transport != QUIC:
		return nil, fmt.Errorf("link %s: transport %q, want auto, tcp or quic", o.Link, o.Transport)
	case o.Where == nil && (!o.Remote.IsValid() || o.Remote.Port() == 0):
		return nil, fmt.Errorf("link %s: cloud address %q, want address:port", o.Link, o.Remote)
	case o.PeerKey == nil || len(o.Certificate.Certificate) == 0:
		return nil, fmt.Errorf("link %s: no certificate or no way to read the cloud's", o.Link)
	}
	return &Dialer{o, new(atomic.Value), new(atomic.Bool), new(handshakes), new(standIn), new(segments), new(atomic.Bool), false}, nil
}

// Dial makes one connection and joins the session that hello names; the link's
// name and index, and the versions where they are zero, are filled in. Each
// transport that is tried takes at most Timeout. Auto races both, the preferred
// one with a head start (race.go). Errors are a *StepError per transport, in
// one line.
func (d *Dialer) Dial(ctx context.Context, hello wire.Hello) (*Conn, wire.Welcome, error) {
	d, err := d.there(ctx)
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	hello.Link, hello.Name = d.options.Index, d.options.Link
	if hello.VersionMin == 0 && hello.VersionMax == 0 {
		hello.VersionMin, hello.VersionMax = wire.VersionMin, wire.VersionMax
	}
	if d.options.Transport != Auto {
		return d.attempt(ctx, d.options.Transport, hello)
	}
	return d.race(ctx, hello)
}

// DialBy is Dial by one transport, whatever the options say.
func (d *Dialer) DialBy(ctx context.Context, t Transport, hello wire.Hello) (*Conn, wire.Welcome, error) {
	d, err := d.there(ctx)
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	hello.Link, hello.Name = d.options.Index, d.options.Link
	if hello.VersionMin == 0 && hello.VersionMax == 0 {
		hello.VersionMin, hello.VersionMax = wire.VersionMin, wire.VersionMax
	}
	return d.attempt(ctx, t, hello)
}

// there is d with the address that is to be tried.
func (d *Dialer) there(ctx context.Context) (*Dialer, error) {
	if d.options.Where == nil {
		return d, nil
	}
	remote, err := d.options.Where(ctx)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", d.options.Link, err)
	}
	o := d.options
	o.Remote = remote
	return &Dialer{o, d.last, d.stood, d.under, d.standIn, d.sizes, d.short, false}, nil
}

// Hears says whether an attempt under way has heard something lately: one more beside it
// would only take a slow line from it.
func (d *Dialer) Hears() bool { return d.under.goOn() }

// Prefer makes a transport the one that Auto gives the head start.
func (d *Dialer) Prefer(t Transport) { d.last.Store(t) }

// order returns the transports of Auto, the preferred one first.
func (d *Dialer) order() [2]Transport {
	if d.last.Load() == QUIC {
		return [2]Transport{QUIC, TCP}
	}
	return [2]Transport{TCP, QUIC}
}

// definite says whether another transport would only fail the same way: the
// cloud refused, or this host's settings are wrong. A stranger may be in one transport's way only.
func definite(err error) bool {
	var refusal *Refusal
	var setting *socketError
	var stranger *strangerError
	if errors.As(err, &stranger) {
		return false
	}
	return errors.As(err, &refusal) || errors.As(err, &setting) || errors.Is(err, ErrPeerKey) || errors.Is(err, ErrVersion)
}

// attempt makes one connection by one transport.
func (d *Dialer) attempt(ctx context.Context, t Transport, hello wire.Hello) (*Conn, wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
	defer cancel()
	v := &verdict{peerKey: d.options.PeerKey, want: &d.options.CloudKey}
	joins := hello.Beside != [16]byte{}
	one := *d
	one.small = t == TCP && d.sizes.choose(joins)
	if joins {
		one.under = new(handshakes) // its link stands: the path does, too
	}
	connect := one.connectTCP
	if t == QUIC {
		connect = one.connectQUIC
	}
	s, step, err := connect(ctx, v)
	if err != nil {
		return nil, wire.Welcome{}, d.failed(t, step, err)
	}
	if p, ok := s.pipe.(*tcpPipe); ok {
		defer one.under.leave(p.raw)
	}
	var welcome wire.Welcome
	var conn *Conn
	err = s.during(ctx, func() error {
		var sum []byte
		var err error
		if welcome, sum, err = s.sayHello(hello); err != nil {
			return err
		}
		conn, err = d.establish(s, t, hello, welcome, sum)
		return err
	})
	if err != nil {
		s.pipe.close(ErrClosed)
		one.stuck(ctx, t)
		return nil, wire.Welcome{}, d.failed(t, StepHello, v.explain(err, rejectsUs(err), cloudRejects))
	}
	if t == TCP && !joins {
		d.sizes.stood(one.small)
	}
	return conn, welcome, nil
}

// stuck notes that a handshake has failed whose connection stood.
func (d *Dialer) stuck(ctx context.Context, t Transport) {
	if t == TCP {
		d.sizes.failed(ctx, d.small)
	}
}

func (d *Dialer) failed(t Transport, step string, err error) error {
	return &StepError{Link: d.options.Link, Transport: t, Remote: d.options.Remote, Step: step, Err: err}
}

// establish makes the connection out of a handshake that succeeded.
func (d *Dialer) establish(s *secured, t Transport, hello wire.Hello, w wire.Welcome, sum []byte) (*Conn, error) {
	info := Info{
		Transport: t, Link: hello.Name, Index: hello.Link, Peer: w.Name, PeerKey: s.peer,
		Version: w.Version, Session: hello.Session, Resumed: w.Resumed, Suite: tls.CipherSuiteName(s.state.CipherSuite),
	}
	if hello.Beside != [16]byte{} {
		return s.urgentConn(sum, true, hello.Twin, info, d.options.Counters)
	}
	c, err := s.connection(sum, true, info, d.options.Counters)
	if err != nil {
		return nil, err
	}
	again := d.stood.Swap(true)
	for i, b := range []*berth{c.berth, c.twinBerth} {
		if b == nil {
			continue
		}
		b.short = d.short
		b.dial = func(ctx context.Context) (*Conn, error) { return d.dialBeside(ctx, c, i == 1, hello) }
		if again {
			b.pause = besideFirst
		}
	}
	return c, nil
}

// connectTCP connects and runs TLS. Its error comes with the step.
func (d *Dialer) connectTCP(ctx context.Context, v *verdict) (*secured, string, error) {
	dialer := net.Dialer{
		Control:         socket{device: d.options.Interface, mark: d.options.Mark, small: d.small}.control,
		KeepAliveConfig: keepAlive(),
	}
	dialer.SetMultipathTCP(false)
	begin := time.Now()
	conn, err := dialer.DialContext(ctx, "tcp", d.options.Remote.String())
	if err != nil {
		var setting *socketError
		if errors.As(err, &setting) {
			return nil, StepSocket, setting
		}
		return nil, StepConnect, plainError(err)
	}
	if d.options.Heard != nil {
		d.options.Heard(TCP)
	}
	p, err := newTCPPipe(conn.(*net.TCPConn), d.options.Windows, d.options.Remote.Port())
	if err != nil {
		_ = conn.Close()
		return nil, StepTLS, err
	}
	if err := d.under.enter(ctx, p.raw, begin); err != nil {
		_ = conn.Close()
		return nil, StepTLS, plainError(err)
	}
	s, err := secureTCP(ctx, p, tls.Client, v.config(d.options.Certificate))
	if err != nil {
		d.under.leave(p.raw)
		_ = conn.Close()
		d.stuck(ctx, TCP)
		return nil, StepTLS, v.explain(err, rejectsUs(err), cloudRejects)
	}
	s.peer = v.key
	return s, "", nil
}

// secureTCP runs TLS as either end. On failure p is still the caller's.
func secureTCP(ctx context.Context, p *tcpPipe, end func(net.Conn, *tls.Config) *tls.Conn, config *tls.Config) (*secured, error) {
	stream := end(&boundedConn{Conn: p.conn}, config)
	if err := stream.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return &secured{pipe: p, stream: stream, state: stream.ConnectionState()}, nil
}

// rejectsUs says whether the peer ended TLS because of our certificate.
// crypto/tls does not export the type of a received alert, only its text.
func rejectsUs(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return op.Err.Error() == "tls: bad certificate"
	}
	return quicRejectsUs(err)
}

// openQUIC opens the socket of one connection, of which q notes what comes.
func (d *Dialer) openQUIC(ctx context.Context, network string, q *hearing) (*quicSocket, error) {
	if d.options.packets == nil {
		s, err := openQUIC(ctx, network, ":0", socket{device: d.options.Interface, mark: d.options.Mark})
		if err != nil {
			return nil, err
		}
		s.udp.(*datagrams).heard = q.told(d.options.Heard)
		return s.anonymous(), nil
	}
	udp, err := d.options.packets(ctx)
	if err != nil {
		return nil, err
	}
	return newQUICSocket(udp).anonymous(), nil
}
