package sealed

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/identity"
	"hawser/pkg/wire"
)

// ample is the patience for what must happen, however busy the machine is.
const ample = time.Minute

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(ample); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func testKey(t *testing.T, fill byte) identity.Key {
	t.Helper()
	k, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{fill}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func certificateOf(t *testing.T, k identity.Key) tls.Certificate {
	t.Helper()
	c, err := k.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// gateOf is a gate whose clients have these keys, and where its control connections
// come in.
func gateOf(t *testing.T, log *slog.Logger, clients ...identity.Key) (*Gate, identity.Key, netip.AddrPort) {
	t.Helper()
	key := testKey(t, 9)
	known := map[[32]byte]Client{}
	for _, c := range clients {
		known[c.Public()] = Client{Name: "bus", Services: []string{"web"}, Servers: []*Server{NewServer()}}
	}
	g := NewGate(GateOptions{Certificate: certificateOf(t, key), Clients: known, Counters: &Counters{}, Log: log})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			file, err := c.(*net.TCPConn).File()
			c.Close()
			if err != nil {
				continue
			}
			fd, err := unix.Dup(int(file.Fd()))
			file.Close()
			if err == nil {
				g.admit(fd, c.RemoteAddr().(*net.TCPAddr).AddrPort(), nil)
			}
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-accepting
		g.Close()
	})
	return g, key, ln.Addr().(*net.TCPAddr).AddrPort()
}

// alarms are a dialer's times, which the test brings about.
type alarms map[time.Duration]chan time.Time

func (a alarms) after(d time.Duration) <-chan time.Time { return a[d] }

// TestRenewalKeepsJoins: flows that have begun with an association join it although
// its keys are renewed before their connection stands; and then it ends.
func TestRenewalKeepsJoins(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	own := testKey(t, 1)
	g, gateway, at := gateOf(t, log, own)
	d := NewDialer(DialerOptions{
		Remote: at.String(), Certificate: certificateOf(t, own), Gateway: gateway.Public(), Counters: &Counters{}, Log: log,
	})
	times := alarms{renewal: make(chan time.Time), renewAgain: make(chan time.Time), farewell: make(chan time.Time)}
	d.after = times.after
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	var first, second *Association
	eventually(t, "an association", func() bool { first, _, _ = d.Current(); return first != nil })
	times[renewal] <- time.Time{}
	eventually(t, "another one", func() bool { second, _, _ = d.Current(); return second != first })

	time.Sleep(100 * time.Millisecond) // a connection to the gateway takes as long
	join := first.appendJoin(nil, 1, 0)
	j, err := wire.ParseJoin(join)
	if err != nil {
		t.Fatal(err)
	}
	if a := g.find(j.Association); a == nil {
		t.Error("a flow that began before the renewal is refused: no such association")
	} else if err := a.admit(j, join); err != nil {
		t.Errorf("a flow that began before the renewal is refused: %v", err)
	} else if !a.large || !first.large {
		t.Errorf("large records: client %v, gateway %v", first.large, a.large)
	}
	if g.find(second.ID) == nil {
		t.Error("the gateway does not know the new association")
	}

	times[farewell] <- time.Time{}
	eventually(t, "the end of the former association", func() bool { return g.find(first.ID) == nil })
	if a, _, _ := d.Current(); a != second || g.find(second.ID) == nil {
		t.Error("the new association has not stayed")
	}
}

// TestDeadGatewayIsToldOnce: while the gateway ends every connection, from whichever
// port it comes and whether sooner or later, the log says so once for each way it ends.
func TestDeadGatewayIsToldOnce(t *testing.T) {
	var out bytes.Buffer
	d := NewDialer(DialerOptions{Remote: "192.0.2.1:4600", Counters: &Counters{}, Log: slog.New(slog.NewTextHandler(&out, nil))})
	at := net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4600}
	for port := 40_000; port < 40_100; port++ {
		from := net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: port}
		d.complain(&net.OpError{Op: "read", Net: "tcp", Source: &from, Addr: &at, Err: os.NewSyscallError("read", unix.ECONNRESET)})
		d.complain(io.EOF)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 || strings.Contains(out.String(), "EOF") {
		t.Errorf("200 failures have written %d lines:\n%.500s", n, out.String())
	}
}

// TestBriefAssociations: where something on the way ends each control connection as soon
// as it stands, the client does not begin the next one at once.
func TestBriefAssociations(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	own := testKey(t, 1)
	g, gateway, at := gateOf(t, log, own)
	between, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var count Counters
	d := NewDialer(DialerOptions{Remote: between.Addr().String(), Certificate: certificateOf(t, own), Gateway: gateway.Public(), Counters: &count, Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- d.Run(ctx) }()
	const times = 3
	for i := range uint64(times) {
		near, err := between.Accept()
		if err != nil {
			t.Fatal(err)
		}
		far, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(far, near) }()
		go func() { _, _ = io.Copy(near, far) }()
		eventually(t, "an association", func() bool { return count.Handshakes.Load() > i })
		near.Close()
		far.Close()
	}
	if took := time.Since(began); took < 3*leastPause { // 1 and 2 of them
		t.Errorf("%d associations within %v", times, took)
	}
	between.Close()
	cancel()
	<-ended
	eventually(t, "the gateway to have noticed", func() bool { return !g.Client(own.Public()).Up })
}
