package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// ample is the patience for what must happen, however busy the machine is.
const ample = time.Minute

// TestMain fails the package if its tests leave goroutines, file descriptors
// or slabs behind.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // the fuzzer has goroutines and files of its own
	}
	warmUp()
	goroutines, files := runtime.NumGoroutine(), openFiles()
	code := m.Run()
	deadline := time.Now().Add(ample)
	for time.Now().Before(deadline) && (runtime.NumGoroutine() > goroutines || openFiles() > files || buffer.Live() != 0) {
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	if runtime.NumGoroutine() > goroutines {
		fmt.Fprintf(os.Stderr, "leak: %d goroutines, %d before\n", runtime.NumGoroutine(), goroutines)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		code = 1
	}
	if n := openFiles(); n > files {
		fmt.Fprintf(os.Stderr, "leak: %d open files, %d before\n", n, files)
		code = 1
	}
	if n := buffer.Live(); n != 0 {
		fmt.Fprintf(os.Stderr, "leak: slabs of %d bytes\n", n)
		code = 1
	}
	os.Exit(code)
}

// warmUp makes the runtime open its poller.
func warmUp() {
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
	}
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// party is one end's key and certificate.
type party struct {
	cert tls.Certificate
	key  [32]byte
}

func newParty(t testing.TB) party {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return party{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, [32]byte(public)}
}

var errNoKey = errors.New("not an Ed25519 certificate")

func readKey(raw [][]byte) ([32]byte, error) {
	if len(raw) == 0 {
		return [32]byte{}, errNoKey
	}
	c, err := x509.ParseCertificate(raw[0])
	if err != nil {
		return [32]byte{}, err
	}
	k, ok := c.PublicKey.(ed25519.PublicKey)
	if !ok {
		return [32]byte{}, errNoKey
	}
	return [32]byte(k), nil
}

// cloud is a listener with an Admitter that knows one edge.
type cloud struct {
	t        testing.TB
	listener *Listener
	party    party
	edge     party
	counters Counters
	conns    chan *Conn
	requests chan Request
	failures chan *StepError
	refuse   error // what Admit returns

	admitting func() // called by Admit, if set

	cancel context.CancelFunc
	ended  chan error
	once   sync.Once
}

func (c *cloud) Admit(r Request) (Admission, error) {
	if c.admitting != nil {
		c.admitting()
	}
	if c.refuse != nil {
		return Admission{}, c.refuse
	}
	if r.Key != c.edge.key {
		return Admission{}, fmt.Errorf("%w: key %s is in no entry of edges", ErrUnknownEdge, KeyText(r.Key))
	}
	c.requests <- r
	return Admission{Edge: "train-7", Secret: [32]byte{1, 2, 3}, Resumed: r.Hello.Resume, Attach: c.attach}, nil
}

func (c *cloud) attach(conn *Conn) { c.conns <- conn }

// startCloud listens on address until the test ends; change may alter the
// options.
func startCloud(t testing.TB, address string, change func(*cloud, *ListenOptions)) *cloud {
	t.Helper()
	c := &cloud{
		t: t, party: newParty(t), edge: newParty(t),
		conns: make(chan *Conn, 16), requests: make(chan Request, 16), failures: make(chan *StepError, 64),
		ended: make(chan error, 1),
	}
	o := ListenOptions{
		Address: address, Name: "cloud-a", Certificate: c.party.cert, PeerKey: readKey,
		Admitter: c, Counters: &c.counters, Failed: func(e *StepError) { c.failures <- e },
	}
	if change != nil {
		change(c, &o)
	}
	l, err := Listen(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	c.listener = l
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.run(ctx)
	t.Cleanup(c.stop)
	return c
}

func (c *cloud) run(ctx context.Context) { c.ended <- c.listener.Run(ctx) }

func (c *cloud) stop() {
	c.once.Do(func() {
		c.cancel()
		if err := <-c.ended; err != nil {
			c.t.Errorf("listener ended with %v", err)
		}
		c.listener.Close()
	})
}

// dialer returns a dialer to the cloud.
func (c *cloud) dialer(transport Transport, change func(*DialerOptions)) *Dialer {
	c.t.Helper()
	o := DialerOptions{
		Link: "lte", Index: 3, Remote: c.listener.Addr(), Transport: transport,
		Certificate: c.edge.cert, PeerKey: readKey, CloudKey: c.party.key,
	}
	if change != nil {
		change(&o)
	}
	d, err := NewDialer(o)
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

func sampleHello() wire.Hello { return wire.Hello{Session: [16]byte{7, 7, 7}, Resume: true} }

// connect returns both ends of a new connection.
func (c *cloud) connect(transport Transport) (edge, cloud *Conn) {
	c.t.Helper()
	edge, _, err := c.dialer(transport, nil).Dial(context.Background(), sampleHello())
	if err != nil {
		c.t.Fatal(err)
	}
	cloud = <-c.conns
	c.t.Cleanup(func() { edge.Close(nil); cloud.Close(nil) })
	return edge, cloud
}

// loopback is an address to listen on, with any port.
const loopback = "127.0.0.1:0"

// transports runs fn for TCP and QUIC.
func transports(t *testing.T, fn func(t *testing.T, transport Transport)) {
	for _, transport := range []Transport{TCP, QUIC} {
		t.Run(string(transport), func(t *testing.T) { fn(t, transport) })
	}
}

// record makes a record whose contents follow from i.
func record(i, block, body int) wire.Record {
	rec := wire.Record{Block: make([]byte, block)}
	pattern(rec.Block, i)
	if body > 0 {
		b := buffer.Get(body)
		pattern(b.Bytes()[:body], i+1)
		rec.Body = b.Seg(0, body)
	}
	return rec
}

func pattern(p []byte, seed int) {
	x := uint32(seed)*2654435761 + 12345
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
}

// samePattern says whether p is what record made.
func samePattern(p []byte, seed int) bool {
	want := make([]byte, len(p))
	pattern(want, seed)
	return string(p) == string(want)
}

// rawPair returns two ends of a TCP connection that skipped the handshake.
func rawPair(t testing.TB, a, b *net.TCPConn, counters *Counters) (*Conn, *Conn) {
	t.Helper()
	return rawConn(t, a, 1, 2, counters), rawConn(t, b, 2, 1, counters)
}

func rawConn(t testing.TB, c *net.TCPConn, out, in byte, counters *Counters) *Conn {
	t.Helper()
	p, err := newTCPPipe(c, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	k := keys{out: testSealer(t, out, RekeyRecords), in: testSealer(t, in, RekeyRecords)}
	conn, err := newConn(p, k, nil, Info{Transport: TCP, Link: "lte"}, counters)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(nil) })
	return conn
}

func testSealer(t testing.TB, seed byte, every uint64) *sealer {
	t.Helper()
	secret := make([]byte, secretSize)
	secret[0] = seed
	s, err := newSealer(secret, every)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// socketPair returns two connected TCP sockets.
func socketPair(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func mustAddr(t testing.TB, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
