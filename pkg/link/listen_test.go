package link

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/wire"
)

func TestPortInUse(t *testing.T) {
	c := startCloud(t, loopback, nil)
	port := c.listener.Addr().String()
	o := c.listener.options
	o.Address = port
	_, err := Listen(context.Background(), o)
	if want := "listen: tcp " + port + ": already in use by another program: stop that, or change listen"; err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want %q", err, want)
	}

	// An address of its own: no other test's socket holds the number for TCP.
	udp, err := net.ListenPacket("udp", "127.0.77.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	o.Address = udp.LocalAddr().String()
	_, err = Listen(context.Background(), o)
	if want := "listen: udp " + o.Address + ": already in use by another program: stop that, or change listen"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	// The failed attempt must have given the TCP port back.
	l, err := net.Listen("tcp", o.Address)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestListenErrors(t *testing.T) {
	c := startCloud(t, loopback, nil)
	for address, want := range map[string]string{
		"198.18.255.254:0": "this machine has no such address",
		"localhost":        "missing port",
	} {
		o := c.listener.options
		o.Address = address
		if _, err := Listen(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	o := c.listener.options
	o.Admitter = nil
	if _, err := Listen(context.Background(), o); err == nil {
		t.Error("listened without an Admitter")
	}
	o = c.listener.options
	o.Name = strings.Repeat("x", wire.MaxName+1)
	if _, err := Listen(context.Background(), o); err == nil {
		t.Error("accepted a name that no WELCOME can carry")
	}
}

// TestConnectionsOutliveRun: the listener stops accepting first, sessions end
// later.
func TestConnectionsOutliveRun(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, loopback, nil)
		edge, cloud := c.connect(transport)
		c.cancel()
		if err := <-c.ended; err != nil {
			t.Fatal(err)
		}
		c.ended <- nil
		if err := edge.Send([]wire.Record{record(1, 10, 100)}); err != nil {
			t.Fatal(err)
		}
		rec, err := cloud.Receive()
		if err != nil || !samePattern(rec.Block, 1) {
			t.Fatal(err)
		}
		rec.Body.Release()
		d := c.dialer(transport, func(o *DialerOptions) { o.Timeout = 200 * time.Millisecond })
		if conn, _, err := d.Dial(context.Background(), sampleHello()); err == nil {
			conn.Close(nil)
			t.Error("still accepting")
		}
	})
}

// TestCloseEndsQUIC: the socket is shared, so the listener's Close ends what
// it carries.
func TestCloseEndsQUIC(t *testing.T) {
	c := startCloud(t, loopback, nil)
	_, cloud := c.connect(QUIC)
	c.stop()
	if _, err := cloud.Receive(); err == nil {
		t.Fatal("the connection lives without a socket")
	}
}

// TestSilentStrangers: connections that say nothing are bounded per source,
// and end with the handshake's deadline.
func TestSilentStrangers(t *testing.T) {
	c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) {
		o.MaxPerSource, o.Timeout = 2, 2*time.Second
	})
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", c.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	first := dial()
	dial()
	third := dial()
	_ = third.SetReadDeadline(time.Now().Add(ample))
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the third connection of one source was let in: %v", err)
	}
	if n := c.counters.Crowded.Load(); n != 1 {
		t.Errorf("%d connections counted", n)
	}
	for range 2 {
		if e := c.failure(); !errors.Is(e, os.ErrDeadlineExceeded) || e.Step != StepTLS {
			t.Errorf("got %v", e)
		}
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("a silent connection was not closed")
	}
	edge, cloud := c.connect(TCP) // there is room again
	edge.Close(nil)
	cloud.Close(nil)
}

// TestFleetBehindOneAddress: a hundred edges behind one address may have their handshakes at
// once, two each, as when their cloud was started anew.
func TestFleetBehindOneAddress(t *testing.T) {
	const edges = 100
	c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.Failed = nil })
	for range 2 * edges {
		conn, err := net.Dial("tcp", c.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for end := time.Now().Add(ample); c.listener.places.Taken() < 2*edges; time.Sleep(time.Millisecond) {
		if n := c.counters.Crowded.Load(); n > 0 || time.Now().After(end) {
			t.Fatalf("%d are let in, %d are not", c.listener.places.Taken(), n)
		}
	}
}

// TestCrowdedByFew: a few sources that say nothing cannot keep an edge out by having all
// places; the oldest of theirs is closed for it.
func TestCrowdedByFew(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		const places = 6
		c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) {
			o.MaxHandshakes, o.MaxPerSource, o.Timeout = places, places/2, ample
		})
		var silent []net.Conn
		for i := range places {
			from := net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%2))}
			conn, err := (&net.Dialer{LocalAddr: &from}).Dial("tcp", c.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			silent = append(silent, conn)
		}
		for c.listener.places.Taken() < places { // accepting is asynchronous
			time.Sleep(time.Millisecond)
		}
		edge, cloud := c.connect(transport)
		edge.Close(nil)
		cloud.Close(nil)
		_ = silent[0].SetReadDeadline(time.Now().Add(ample))
		if _, err := silent[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the oldest silent connection has stayed: %v", err)
		}
		for n := c.counters.Crowded.Load(); n != 1; n = c.counters.Crowded.Load() {
			if n > 1 {
				t.Fatalf("%d connections counted, want 1", n)
			}
			time.Sleep(time.Millisecond)
		}
		if n := c.counters.Failed.Load(); n != 0 {
			t.Errorf("%d handshakes count as failed", n)
		}
	})
}

// TestNoise: a stranger who speaks something else gets nothing and harms
// nothing.
func TestNoise(t *testing.T) {
	c := startCloud(t, loopback, nil)
	conn, err := net.Dial("tcp", c.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if e := c.failure(); e.Step != StepTLS {
		t.Errorf("got %v", e)
	}
}

// TestHelloIsAnswered speaks the handshake by hand, wrongly.
func TestHelloIsAnswered(t *testing.T) {
	c := startCloud(t, loopback, nil)
	d := c.dialer(TCP, nil)
	talk := func(message []byte) (wire.Welcome, error) {
		v := &verdict{peerKey: readKey, want: &c.party.key}
		s, _, err := d.connectTCP(context.Background(), v)
		if err != nil {
			t.Fatal(err)
		}
		defer s.pipe.close(nil)
		if _, err := s.stream.Write(message); err != nil {
			t.Fatal(err)
		}
		msg, err := readMessage(s.stream, wire.KindWelcome)
		if err != nil {
			return wire.Welcome{}, err
		}
		return wire.DecodeWelcome(msg[wire.HelloHeaderSize:])
	}
	good, _ := wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1, Name: "lte"})
	bad := append([]byte(nil), good...)
	bad[len(bad)-1] = '\n'
	if w, err := talk(bad); err != nil || w.Status != wire.StatusMalformed {
		t.Errorf("bad name: %+v, %v", w, err)
	}
	c.failure()
	if _, err := talk([]byte("EHLO example.org\r\n")); err == nil {
		t.Error("another protocol was answered")
	}
	if e := c.failure(); !errors.Is(e, wire.ErrHello) || e.Step != StepHello {
		t.Errorf("got %v", e)
	}
}

// TestUnaccepted: who runs the cloud is told why links wait, and they connect once there
// are descriptors again.
func TestUnaccepted(t *testing.T) {
	told := make(chan error, 1000)
	c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.Unaccepted = func(why error) { told <- why } })
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", c.listener.Addr().String()) // takes the runtime's descriptors, too
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	none := was
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	at := c.listener.Addr()
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
	var why error
	if err == nil || errors.Is(err, syscall.EINPROGRESS) {
		why = <-told
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(why, syscall.EMFILE) {
		t.Errorf("told %v, after %v", why, err)
	}
}
