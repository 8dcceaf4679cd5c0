package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hawser/pkg/places"
	"hawser/pkg/resume"
	"hawser/pkg/wire"
)

// Request is an edge that has proved its key and said HELLO.
type Request struct {
	Key       [32]byte
	Hello     wire.Hello
	Transport Transport
	Remote    netip.AddrPort
}

// Admission is what an Admitter grants.
type Admission struct {
	Edge    string      // the edge's configured name, for errors and Info
	Secret  [32]byte    // of the session; told to the edge inside TLS
	Resumed bool        // the session existed
	Attach  func(*Conn) // takes the connection over; called once, or never if WELCOME could not be sent
}

// Admitter decides who may join which session. Admit is called concurrently
// and should not block. It refuses with a *Refusal, or with ErrUnknownEdge
// when the key is not configured; any other error is told to the edge as an
// internal fault.
type Admitter interface {
	Admit(Request) (Admission, error)
}

// ListenOptions configures a Listener.
type ListenOptions struct {
	Address     string // "host:port" or ":port", for TCP and UDP alike; port 0 takes any that is free for both
	Name        string // the cloud's name as edges show it, at most wire.MaxName bytes
	Mark        uint32 // firewall mark of the sockets; 0 for none
	Certificate tls.Certificate
	PeerKey     func(raw [][]byte) ([32]byte, error)
	Admitter    Admitter

	Timeout       time.Duration // of one handshake; 0 is DefaultTimeout
	MaxHandshakes int           // under way at once; 0 is 512
	MaxPerSource  int           // the same per IPv4 address or IPv6 /64; 0 is 256

	// Ahead is how many bytes the windows of all QUIC connections may have grown by, of which each
	// edge has its fair part; 0: there is no bound. An edge that is alone needs none.
	Ahead int

	Counters *Counters       // nil for counters of its own
	Windows  *resume.Windows // what TCP connections begin with; nil: with what the kernel gives them
	// Failed is told of each handshake that failed, refusals included, but for those that an
	// edge has left; nil ignores them. Strangers can make it called at will: limit what is
	// logged.
	Failed func(*StepError)
	// Unaccepted is told why TCP connections wait and none can be accepted, ten times a
	// second at most: the machine is out of descriptors or memory. Nil ignores it.
	Unaccepted func(error)

	versions [2]uint16 // zero is what this program speaks; tests change it
}

// lingerTime bounds the wait for an edge to read why it was refused.
const lingerTime = time.Second

// At a cloud a QUIC stream's window begins with quicFirst bytes, and its connection's with
// quicFirstUrgent more. They grow as they are read, which those of strangers never are: who
// has no key must not make a cloud keep 17 MiB each time. Where more than quicFew shake hands
// they begin with an eighth.
const (
	quicFirst       = 512 << 10
	quicFirstUrgent = 128 << 10
	quicFew         = 32
)

// firstWindows are those beside so many handshakes.
func firstWindows(handshakes int) (stream, conn uint64) {
	if handshakes > quicFew {
		return quicFirst / 8, (quicFirst + quicFirstUrgent) / 8
	}
	return quicFirst, quicFirst + quicFirstUrgent
}

// acceptPause is how long accepting rests when the machine is out of file
// descriptors or memory.
const acceptPause = 100 * time.Millisecond

// Listener accepts the edges' connections by TCP and QUIC on the same port
// number.
type Listener struct {
	options ListenOptions
	tcp     *net.TCPListener
	quic    *quicListener
	places  *places.Places // for handshakes
	ahead   *ahead
	outrun  outrun
	besides besides
	active  sync.WaitGroup // handshakes
}

// Listen opens the sockets. It starts accepting with Run.
func Listen(ctx context.Context, o ListenOptions) (*Listener, error) {
	if err := o.fill(); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l := &Listener{options: o, places: places.New(o.MaxHandshakes, o.MaxPerSource), ahead: newAhead(o.Ahead), besides: besides{byToken: map[[16]byte]*Conn{}}}
	var udp *quicSocket
	var err error
	// A free TCP port may be taken for UDP: with port 0, look for another.
	for attempt := 0; attempt < 8; attempt++ {
		l.tcp, udp, err = o.open(ctx)
		if err == nil || !o.anyPort() || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	v := &verdict{peerKey: o.PeerKey}
	config := v.config(o.Certificate)
	config.VerifyConnection = o.verify
	if l.quic, err = newQUICListener(udp, config, l.places, l.ahead); err != nil {
		_ = l.tcp.Close()
		return nil, fmt.Errorf("listen: quic %s: %w", o.Address, err)
	}
	return l, nil
}

func (o *ListenOptions) fill() error {
	if o.PeerKey == nil || o.Admitter == nil || len(o.Certificate.Certificate) == 0 {
		return errors.New("no certificate, no way to read the edges', or nobody to admit them")
	}
	if len(o.Name) > wire.MaxName {
		return fmt.Errorf("name %q has %d bytes, at most %d allowed", o.Name, len(o.Name), wire.MaxName)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxHandshakes == 0 {
		o.MaxHandshakes = 512
	}
	if o.MaxPerSource == 0 {
		o.MaxPerSource = 256
	}
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	if o.versions == [2]uint16{} {
		o.versions = [2]uint16{wire.VersionMin, wire.VersionMax}
	}
	return nil
}

func (o *ListenOptions) anyPort() bool {
	_, port, _ := net.SplitHostPort(o.Address)
	return port == "0" || port == ""
}

// verify is the stateless form that QUIC's shared configuration needs.
func (o *ListenOptions) verify(state tls.ConnectionState) error {
	v := &verdict{peerKey: o.PeerKey}
	return v.verify(state)
}

// open opens the TCP and the UDP socket on one port.
func (o *ListenOptions) open(ctx context.Context) (*net.TCPListener, *quicSocket, error) {
	s := socket{mark: o.Mark}
	config := net.ListenConfig{Control: s.control, KeepAliveConfig: keepAlive()}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp", o.Address)
	if err != nil {
		return nil, nil, listenError("tcp", o.Address, err)
	}
	tcp := listener.(*net.TCPListener)
	host, _, _ := net.SplitHostPort(o.Address)
	address := net.JoinHostPort(host, strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port))
	udp, err := openQUIC(ctx, "udp", address, s)
	if err != nil {
		_ = tcp.Close()
		return nil, nil, listenError("udp", address, err)
	}
	return tcp, udp, nil
}

// listenError says in one line what stands against listening, and what to do.
func listenError(network, address string, err error) error {
	var setting *socketError
	switch {
	case errors.As(err, &setting):
		err = setting
	case errors.Is(err, syscall.EADDRINUSE):
		err = &inWords{"already in use by another program: stop that, or change listen", syscall.EADDRINUSE}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		err = &inWords{"this machine has no such address: give one that it has in listen, or only :port", syscall.EADDRNOTAVAIL}
	case errors.Is(err, syscall.EACCES):
		err = &inWords{"ports below 1024 need root: run as root, or change listen", syscall.EACCES}
	}
	return fmt.Errorf("listen: %s %s: %w", network, address, err)
}

// Addr returns the address of both sockets.
func (l *Listener) Addr() netip.AddrPort { return addrPort(l.tcp.Addr()) }

// Run accepts connections until ctx ends, then stops accepting and returns nil
// once the handshakes under way have ended. Connections that were attached
// live on until Close. It may be called once.
func (l *Listener) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, l.stopAccepting)
	defer stop()
	ended := make(chan error, 2)
	go l.acceptTCP(ctx, ended)
	go l.acceptQUIC(ctx, ended)
	err := <-ended
	cancel(err)
	err = errors.Join(err, <-ended)
	l.active.Wait()
	return err
}

// Close closes the sockets and with them all QUIC connections that they
// carry. Call it after Run has returned and the sessions have ended.
func (l *Listener) Close() {
	l.stopAccepting()
	l.quic.socket.close()
}

func (l *Listener) stopAccepting() {
	_ = l.tcp.Close()
	_ = l.quic.early.Close()
}

// acceptTCP runs until ctx ends or the socket fails.
func (l *Listener) acceptTCP(ctx context.Context, ended chan<- error) {
	for {
		conn, err := l.tcp.AcceptTCP()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			ended <- nil
			return
		}
		if err == nil {
			l.admit(ctx, &tcpIncoming{conn: conn})
			continue
		}
		if !passing(err) {
			ended <- listenError("tcp", l.options.Address, err)
			return
		}
		if l.options.Unaccepted != nil && !errors.Is(err, syscall.ECONNABORTED) {
			l.options.Unaccepted(err)
		}
		pause(ctx, acceptPause)
	}
}

// acceptQUIC runs until ctx ends or the socket fails.
func (l *Listener) acceptQUIC(ctx context.Context, ended chan<- error) {
	for {
		in, err := l.quic.accept(ctx)
		if ctx.Err() != nil {
			if err == nil {
				in.drop()
			}
			ended <- nil
			return
		}
		if err != nil {
			ended <- listenError("quic", l.options.Address, err)
			return
		}
		l.admit(ctx, in)
	}
}

// passing says whether accept fails for want of something that may come back.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
