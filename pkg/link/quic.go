package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apernet/quic-go"
	"github.com/apernet/quic-go/congestion"
	"github.com/apernet/quic-go/monotime"

	"hawser/pkg/bbr"
	"hawser/pkg/places"
)

// This file alone knows the QUIC library.

const (
	// quicWindow is the flow control window of a stream, bytes. The tunnel
	// controls its flows itself; a link's window must never be what stops it.
	quicWindow = 16 << 20
	// quicUrgentWindow is what the connection's window has beyond the bulk
	// stream's, so that this can never take all of it, bytes.
	quicUrgentWindow = 1 << 20
	// quicBuffer is what is handed to the library, and taken from it, at once,
	// in bytes. Its calls cost more than copying.
	quicBuffer = 32 << 10
	// quicBufferMost is how much is handed to the library at once where a batch is
	// larger: all of the tunnel's largest.
	quicBufferMost = 320 << 10
	// quicUrgentBuffer is quicBuffer of the urgent streams.
	quicUrgentBuffer = 8 << 10
	// alertBadCertificate is the TLS alert (RFC 8446 section 6.2) as a QUIC
	// error code (RFC 9001 section 4.8).
	alertBadCertificate = 0x100 + 42
)

// Codes of CONNECTION_CLOSE.
const (
	quicClosed   quic.ApplicationErrorCode = 0 // without a fault
	quicTampered quic.ApplicationErrorCode = 1 // a record could not be authenticated
	quicFault    quic.ApplicationErrorCode = 2 // any other fault
)

// errWouldBlock is what a stream says to quicWriter.TryWriteAll when it has no
// room.
var errWouldBlock = quic.ErrWouldBlock

func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           2 * DefaultTimeout, // the context of a handshake is what bounds it
		MaxIdleTimeout:                 userTimeout,
		InitialStreamReceiveWindow:     quicWindow,
		MaxStreamReceiveWindow:         quicWindow,
		InitialConnectionReceiveWindow: quicWindow + quicUrgentWindow,
		MaxConnectionReceiveWindow:     quicWindow + quicUrgentWindow,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          quicUrgents,
		// What every path must carry (RFC 9000 section 14); the library's own choice does not
		// pass one of 1280 bytes. From there it finds out what passes.
		InitialPacketSize: 1200,
	}
}

// quicPipe is a connection and its bidirectional stream, which carries the
// handshake and the bulk strand.
type quicPipe struct {
	quicDuct
	conn *quic.Conn
	own  *quicSocket // the edge's socket, which serves this connection only; nil at the cloud

	control atomic.Pointer[governor]
	mu      sync.Mutex
	peer    net.Addr // guarded by mu: whom the governor was made for

	urgents int // ducts of urgent strands that were opened
	uni     uniStreams
}

func newQUICPipe(conn *quic.Conn, stream *quic.Stream, own *quicSocket) *quicPipe {
	p := &quicPipe{conn: conn, own: own, peer: conn.RemoteAddr()}
	p.quicDuct = newQUICDuct(p, stream, quicBuffer)
	p.uni.init()
	p.inStream = stream
	p.govern(conn.ConnectionStats().MinRTT)
	return p
}

// urgent implements pipe: each time one unidirectional stream from each end.
func (p *quicPipe) urgent() (duct, error) {
	stream, err := p.conn.OpenUniStream()
	if err != nil {
		return nil, quicError(err)
	}
	d := newQUICDuct(p, stream, quicUrgentBuffer)
	d.number = p.urgents
	p.urgents++
	return &d, nil
}

// quicUrgents is how many urgent streams a peer may open.
const quicUrgents = 2

// uniStreams are the peer's urgent streams: their readers wait for one each, and the
// library has one queue for all.
type uniStreams struct {
	turn    chan struct{} // held by whoever asks the library
	came    [quicUrgents]chan struct{}
	streams [quicUrgents]*quic.ReceiveStream
}

func (u *uniStreams) init() {
	u.turn = make(chan struct{}, 1)
	for i := range u.came {
		u.came[i] = make(chan struct{})
	}
}

// accept returns the peer's stream of that number once it has come. It ends with the
// connection.
func (u *uniStreams) accept(conn *quic.Conn, number int) (*quic.ReceiveStream, error) {
	for {
		select {
		case <-u.came[number]:
			return u.streams[number], nil
		case u.turn <- struct{}{}:
		}
		err := u.next(conn, number)
		<-u.turn
		if err != nil {
			return nil, err
		}
	}
}

// next takes a stream from the library, unless that of the number has come meanwhile.
// QUIC numbers the streams of a kind and side from 0 (RFC 9000 section 2.1).
func (u *uniStreams) next(conn *quic.Conn, number int) error {
	if u.streams[number] != nil {
		return nil
	}
	s, err := conn.AcceptUniStream(context.Background())
	if err != nil {
		return err
	}
	i := int(s.StreamID() >> 2)
	u.streams[i] = s
	close(u.came[i])
	return nil
}

// govern puts a governor of our own in the place of the library's controller.
// Before the handshake has ended it would see packets of several number spaces.
func (p *quicPipe) govern(rtt time.Duration) {
	g := newGovernor(time.Duration(monotime.Now()), int(p.conn.InitialPacketSize()), rtt)
	if before := p.control.Load(); before != nil {
		g.most.Store(before.most.Load())
		g.isSteady.Store(before.isSteady.Load())
		g.isLed.Store(before.isLed.Load())
		g.inVolleys.Store(before.inVolleys.Load())
		g.succeed(before)
	}
	g.unbatch = p.own.unbatch
	p.control.Store(g)
	p.conn.SetCongestionControl(&quicGovernor{g: g})
}

// regovern governs anew when the peer's address has changed, by a NAT for
// example: the library has begun anew then with a controller of its own.
func (p *quicPipe) regovern() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if peer := p.conn.RemoteAddr(); peer != p.peer {
		p.peer = peer
		p.govern(0)
	}
}

func (p *quicPipe) close(reason error) {
	code := quicFault
	switch {
	case errors.Is(reason, ErrTampered):
		code = quicTampered
	case errors.Is(reason, ErrClosed):
		code = quicClosed
	}
	_ = p.conn.CloseWithError(code, "")
	if p.own != nil {
		p.own.close()
	}
}

func (p *quicPipe) pace(rate float64) { p.control.Load().limit(rate) }

func (p *quicPipe) steady(yes bool) { p.control.Load().isSteady.Store(yes) }

func (p *quicPipe) lead(yes bool) { p.control.Load().isLed.Store(yes) }

func (p *quicPipe) volley(yes bool) { p.control.Load().inVolleys.Store(yes) }

// burst is nothing to it: see Conn.Burst.
func (p *quicPipe) burst(bool) {}

func (p *quicPipe) urge() { p.control.Load().urge() }

func (p *quicPipe) stretch(rtt time.Duration) { p.control.Load().stretch(rtt) }

func (p *quicPipe) sample(s *Stats) {
	q := p.conn.ConnectionStats()
	s.RTT, s.RTTVar, s.MinRTT = q.SmoothedRTT, q.MeanDeviation, q.MinRTT
	s.PacketsIn = q.PacketsReceived
	p.control.Load().sample(s)
}

func (p *quicPipe) describe(info *Info) {
	info.Local, info.Remote = addrPort(p.conn.LocalAddr()), addrPort(p.conn.RemoteAddr())
	info.Congestion = congestionControl
	info.Offload = p.conn.ConnectionState().GSO
}

// quicGovernor is a governor as the library wants it: it has the methods of
// congestion.CongestionControlEx, whose times are nanoseconds.
type quicGovernor struct {
	g   *governor
	rtt congestion.RTTStatsProvider
}

func (q *quicGovernor) SetRTTStatsProvider(rtt congestion.RTTStatsProvider) { q.rtt = rtt }

func (q *quicGovernor) TimeUntilSend(congestion.ByteCount) monotime.Time {
	next := max(q.g.nextSend(), q.g.now+congestion.MinPacingDelay)
	return monotime.Time(next)
}

func (q *quicGovernor) HasPacingBudget(now monotime.Time) bool {
	return q.g.maySend(time.Duration(now))
}

func (q *quicGovernor) CanSend(inFlight congestion.ByteCount) bool { return q.g.hasRoom(int(inFlight)) }

func (q *quicGovernor) OnPacketSent(at monotime.Time, inFlight congestion.ByteCount, number congestion.PacketNumber, size congestion.ByteCount, counts bool) {
	if counts { // an acknowledgement alone is neither paced nor acknowledged
		q.g.sent(time.Duration(at), int64(number), int(size), int(inFlight))
	}
}

func (q *quicGovernor) OnPacketAcked(number congestion.PacketNumber, size, _ congestion.ByteCount, at monotime.Time) {
	if int(size)+wholeSlack >= q.g.packet {
		q.g.whole.Add(1)
	}
	q.g.acked(time.Duration(at), int64(number))
}

// OnCongestionEvent tells of a lost packet, or, with size 0, of an ECN mark.
func (q *quicGovernor) OnCongestionEvent(number congestion.PacketNumber, size, _ congestion.ByteCount) {
	if size == 0 {
		q.g.marked()
		return
	}
	q.g.lost(int64(number))
}

// OnCongestionEventEx follows after all packets of an event were told one by
// one, but for probes for a larger packet size that were lost.
func (q *quicGovernor) OnCongestionEventEx(inFlight congestion.ByteCount, at monotime.Time, acked []congestion.AckedPacketInfo, lost []congestion.LostPacketInfo) {
	for i := range acked {
		inFlight -= acked[i].BytesAcked
	}
	for i := range lost {
		q.g.controller.Forget(int64(lost[i].PacketNumber))
		inFlight -= lost[i].BytesLost
	}
	rtt := time.Duration(0)
	if len(acked) > 0 {
		rtt = q.rtt.LatestRTT()
	}
	q.g.settle(time.Duration(at), rtt, max(int(inFlight), 0))
}

func (q *quicGovernor) SetMaxDatagramSize(size congestion.ByteCount) { q.g.resize(int(size)) }

func (q *quicGovernor) GetCongestionWindow() congestion.ByteCount {
	return congestion.ByteCount(q.g.controller.Window())
}

func (q *quicGovernor) InSlowStart() bool { return q.g.controller.State() == bbr.Startup }

// The rest is for other controllers.

func (q *quicGovernor) InRecovery() bool             { return false }
func (q *quicGovernor) MaybeExitSlowStart()          {}
func (q *quicGovernor) OnRetransmissionTimeout(bool) {}

// quicError says in plain words why a QUIC connection failed. All of the
// library's errors match net.ErrClosed, whoever closed.
func quicError(err error) error {
	var app *quic.ApplicationError
	var fault *quic.TransportError
	switch {
	case err == nil, err == io.EOF:
		return err
	case errors.As(err, &app) && !app.Remote:
		return ErrClosed
	case errors.As(err, &app) && app.ErrorCode == quicClosed:
		return io.EOF
	case errors.As(err, &app) && app.ErrorCode == quicTampered:
		return errors.New("the peer could not authenticate a record")
	case errors.As(err, &app):
		return fmt.Errorf("the peer ended the connection with code %d", app.ErrorCode)
	case errors.As(err, new(*quic.IdleTimeoutError)):
		return fmt.Errorf("peer silent for %v: %w", userTimeout, os.ErrDeadlineExceeded)
	case errors.As(err, new(*quic.HandshakeTimeoutError)):
		return os.ErrDeadlineExceeded
	case errors.As(err, new(*quic.StatelessResetError)):
		return errors.New("the peer does not know this connection any more")
	case errors.As(err, &fault) && errors.Is(err, ErrPeerKey):
		return fmt.Errorf("%w (%v)", ErrPeerKey, fault)
	case errors.As(err, new(*quic.VersionNegotiationError)), errors.As(err, &fault) && fault.Remote && fault.ErrorCode.IsCryptoError():
		return otherError(err.Error())
	case errors.As(err, &fault):
		return errors.New(fault.Error())
	}
	return err
}

// quicRejectsUs is rejectsUs for QUIC.
func quicRejectsUs(err error) bool {
	var fault *quic.TransportError
	return errors.As(err, &fault) && fault.Remote && fault.ErrorCode == alertBadCertificate
}

// quicSocket is a UDP socket with the library's machinery on it.
type quicSocket struct {
	udp       net.PacketConn
	transport *quic.Transport
}

func openQUIC(ctx context.Context, network, address string, s socket) (*quicSocket, error) {
	listen := net.ListenConfig{Control: s.control}
	udp, err := listen.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	cheap, err := newDatagrams(udp.(*net.UDPConn))
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	return newQUICSocket(cheap), nil
}

func newQUICSocket(udp net.PacketConn) *quicSocket {
	return &quicSocket{udp: udp, transport: &quic.Transport{Conn: udp}}
}

// anonymous gives a socket's connection an empty ID (RFC 9000 section 5.1), which
// saves four bytes of each packet that comes: there is no other on the socket from
// which it would tell it.
func (s *quicSocket) anonymous() *quicSocket {
	s.transport.ConnectionIDGenerator = anonymous{}
	return s
}

type anonymous struct{}

func (anonymous) GenerateConnectionID() (quic.ConnectionID, error) { return quic.ConnectionID{}, nil }
func (anonymous) ConnectionIDLen() int                             { return 0 }

// close ends all connections on the socket and waits for the library's
// goroutines.
func (s *quicSocket) close() {
	_ = s.transport.Close()
	_ = s.udp.Close()
}

// connectQUIC is connectTCP for QUIC.
func (d *Dialer) connectQUIC(ctx context.Context, v *verdict) (*secured, string, error) {
	network := "udp4"
	if d.options.Remote.Addr().Is6() && !d.options.Remote.Addr().Is4In6() {
		network = "udp6"
	}
	q, end := d.under.listen()
	defer end()
	own, err := d.openQUIC(ctx, network, q)
	if err != nil {
		var setting *socketError
		if errors.As(err, &setting) {
			return nil, StepSocket, setting
		}
		return nil, StepSocket, plainError(err)
	}
	remote := net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.options.Remote.Addr().Unmap(), d.options.Remote.Port()))
	conn, err := own.transport.Dial(ctx, remote, v.config(d.options.Certificate), quicConfig())
	if err != nil {
		own.close()
		return nil, StepTLS, v.explain(err, rejectsUs(err), cloudRejects)
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		_ = conn.CloseWithError(quicClosed, "")
		own.close()
		return nil, StepHello, v.explain(err, rejectsUs(err), cloudRejects)
	}
	s := secureQUIC(conn, stream, own)
	s.peer = v.key
	return s, "", nil
}

func secureQUIC(conn *quic.Conn, stream *quic.Stream, own *quicSocket) *secured {
	return &secured{pipe: newQUICPipe(conn, stream, own), stream: stream, state: conn.ConnectionState().TLS}
}

// quicListener accepts QUIC connections on one socket.
type quicListener struct {
	socket *quicSocket
	early  *quic.EarlyListener
}

// newQUICListener takes over s. Where handshakes crowd new addresses have to
// prove first that they are not forged (RFC 9000 section 8.1).
func newQUICListener(s *quicSocket, config *tls.Config, handshakes *places.Places, edges *ahead) (*quicListener, error) {
	s.transport.VerifySourceAddress = func(net.Addr) bool { return handshakes.Crowded() }
	// Early: the connection is seen before its TLS handshake ends, so that a
	// handshake that fails can be reported and counted.
	base := quicConfig()
	base.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) {
		c := quicConfig()
		c.InitialStreamReceiveWindow, c.InitialConnectionReceiveWindow = firstWindows(handshakes.Taken())
		c.AllowConnectionWindowIncrease = func(conn *quic.Conn, n uint64) bool { return edges.grow(conn, n) }
		return c, nil
	}
	early, err := s.transport.ListenEarly(config, base)
	if err != nil {
		s.close()
		return nil, err
	}
	return &quicListener{socket: s, early: early}, nil
}

func (l *quicListener) accept(ctx context.Context) (incoming, error) {
	conn, err := l.early.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return &quicIncoming{conn: conn}, nil
}

// quicIncoming is a connection at the cloud whose handshake is under way.
type quicIncoming struct {
	conn  *quic.Conn
	heaps atomic.Bool // it was ended for sending more than strangerMost
}

func (in *quicIncoming) transport() Transport   { return QUIC }
func (in *quicIncoming) remote() netip.AddrPort { return addrPort(in.conn.RemoteAddr()) }
func (in *quicIncoming) drop()                  { _ = in.conn.CloseWithError(quicClosed, "") }

func (in *quicIncoming) secure(ctx context.Context, o *ListenOptions) (*secured, error) {
	s, err := in.handshake(ctx, o)
	if err != nil {
		in.drop()
	}
	return s, err
}

func (in *quicIncoming) handshake(ctx context.Context, o *ListenOptions) (*secured, error) {
	v := &verdict{peerKey: o.PeerKey}
	select {
	case <-in.conn.HandshakeComplete():
	case <-in.conn.Context().Done():
		err := context.Cause(in.conn.Context())
		return nil, v.explain(err, rejectsUs(err), edgeRejects)
	case <-ctx.Done():
		return nil, plainError(context.Cause(ctx))
	}
	if err := v.verify(in.conn.ConnectionState().TLS); err != nil {
		return nil, err
	}
	stream, err := in.conn.AcceptStream(ctx)
	if err != nil {
		return nil, plainError(err)
	}
	s := secureQUIC(in.conn, stream, nil)
	s.peer = v.key
	return s, nil
}
