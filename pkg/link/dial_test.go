package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/wire"
)

// dialFails dials and returns the error, which must be one line.
func dialFails(t *testing.T, d *Dialer, hello wire.Hello) error {
	t.Helper()
	conn, _, err := d.Dial(context.Background(), hello)
	if err == nil {
		conn.Close(nil)
		t.Fatal("dial succeeded")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
	t.Log("edge: ", err)
	return err
}

// failure returns what the cloud reported.
func (c *cloud) failure() *StepError {
	c.t.Helper()
	select {
	case e := <-c.failures:
		c.t.Log("cloud:", e)
		if strings.Contains(e.Error(), "\n") {
			c.t.Errorf("error of several lines: %q", e)
		}
		return e
	case <-time.After(ample):
		c.t.Fatal("the cloud reported nothing")
		return nil
	}
}

func TestDialBothFamilies(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		transports(t, func(t *testing.T, transport Transport) {
			c := startCloud(t, address, nil)
			edge, cloud := c.connect(transport)
			if err := edge.Send([]wire.Record{record(1, 10, 10)}); err != nil {
				t.Fatal(err)
			}
			rec, err := cloud.Receive()
			if err != nil || !samePattern(rec.Block, 1) {
				t.Fatal(err)
			}
			rec.Body.Release()
		})
	}
}

// TestListenOnAllAddresses: ":port" serves IPv4 and IPv6 by both transports.
func TestListenOnAllAddresses(t *testing.T) {
	c := startCloud(t, ":0", nil)
	for _, host := range []string{"127.0.0.1", "::1"} {
		transports(t, func(t *testing.T, transport Transport) {
			remote := netip.AddrPortFrom(netip.MustParseAddr(host), c.listener.Addr().Port())
			d := c.dialer(transport, func(o *DialerOptions) { o.Remote = remote })
			edge, w, err := d.Dial(context.Background(), sampleHello())
			if err != nil {
				t.Fatal(err)
			}
			defer edge.Close(nil)
			cloud := <-c.conns
			defer cloud.Close(nil)
			if w.Secret != [32]byte{1, 2, 3} || !w.Resumed || w.Name != "cloud-a" {
				t.Errorf("welcome: %+v", w)
			}
			r := <-c.requests
			if r.Key != c.edge.key || r.Hello.Name != "lte" || r.Hello.Link != 3 || r.Transport != transport {
				t.Errorf("request: %+v", r)
			}
			if got := r.Remote.Addr(); got != netip.MustParseAddr(host) {
				t.Errorf("remote %v", got)
			}
		})
	}
}

func TestWrongCloudKey(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, loopback, nil)
		other := newParty(t).key
		err := dialFails(t, c.dialer(transport, func(o *DialerOptions) { o.CloudKey = other }), sampleHello())
		want := "the cloud shows key " + KeyText(c.party.key) + ", cloud.key is " + KeyText(other)
		if !errors.Is(err, ErrPeerKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("edge: %v", err)
		}
		e := c.failure()
		if !errors.Is(e, ErrPeerKey) || !strings.Contains(e.Error(), "the edge expects another cloud key") {
			t.Errorf("cloud: %v", e)
		}
		if c.counters.Failed.Load() != 1 {
			t.Error("not counted")
		}
	})
}

func TestUnknownEdge(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, loopback, nil)
		stranger := newParty(t)
		err := dialFails(t, c.dialer(transport, func(o *DialerOptions) { o.Certificate = stranger.cert }), sampleHello())
		if !errors.Is(err, ErrUnknownEdge) || !strings.Contains(err.Error(), KeyText(stranger.key)) {
			t.Errorf("edge: %v", err)
		}
		e := c.failure()
		if !errors.Is(e, ErrUnknownEdge) || !strings.Contains(e.Error(), KeyText(stranger.key)) || e.Link != "lte" {
			t.Errorf("cloud: %v", e)
		}
		if c.counters.Refused.Load() != 1 {
			t.Error("not counted")
		}
	})
}

// TestUnreadableCertificate: an edge whose certificate the cloud cannot read.
func TestUnreadableCertificate(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) {
			o.PeerKey = func([][]byte) ([32]byte, error) { return [32]byte{}, errNoKey }
		})
		err := dialFails(t, c.dialer(transport, nil), sampleHello())
		if !errors.Is(err, ErrPeerKey) || !strings.Contains(err.Error(), cloudRejects) {
			t.Errorf("edge: %v", err)
		}
		if e := c.failure(); !errors.Is(e, ErrPeerKey) {
			t.Errorf("cloud: %v", e)
		}
	})
}

func TestVersionMismatch(t *testing.T) {
	transports(t, func(t *testing.T, transport Transport) {
		const newest = wire.VersionMax
		c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.versions = [2]uint16{newest + 1, newest + 3} })
		err := dialFails(t, c.dialer(transport, nil), sampleHello())
		want := fmt.Sprintf("edge speaks protocol version 1 to %d, cloud %d to %d", newest, newest+1, newest+3)
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("edge: %v", err)
		}
		if e := c.failure(); !errors.Is(e, ErrVersion) || !strings.Contains(e.Error(), want) {
			t.Errorf("cloud: %v", e)
		}
	})
}

// TestHighestCommonVersion is what both ends settle on.
func TestHighestCommonVersion(t *testing.T) {
	c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.versions = [2]uint16{2, 5} })
	hello := sampleHello()
	hello.VersionMin, hello.VersionMax = 1, 4
	edge, w, err := c.dialer(TCP, nil).Dial(context.Background(), hello)
	if err != nil || w.Version != 4 {
		t.Fatalf("version %d, %v", w.Version, err)
	}
	cloud := <-c.conns
	edge.Close(nil)
	cloud.Close(nil)
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		admit error
		edge  error
		text  string
	}{
		{&Refusal{wire.StatusBadLink, "link index 9 is in use"}, ErrBadLink, "link index 9 is in use"},
		{&Refusal{wire.StatusNoSession, ""}, ErrNoSession, "no such session"},
		{&Refusal{wire.StatusBusy, ""}, ErrBusy, "busy"},
		{&Refusal{wire.StatusStopping, ""}, ErrStopping, "stopping"},
		{errors.New("disk full"), nil, "internal fault, see the cloud's log"},
	} {
		cl := startCloud(t, loopback, func(k *cloud, _ *ListenOptions) { k.refuse = c.admit })
		err := dialFails(t, cl.dialer(Auto, nil), sampleHello())
		var r *Refusal
		if !errors.As(err, &r) || !strings.Contains(err.Error(), c.text) || c.edge != nil && !errors.Is(err, c.edge) {
			t.Errorf("edge: %v", err)
		}
		if e := cl.failure(); !errors.Is(e, c.admit) {
			t.Errorf("cloud: %v", e)
		}
		// Auto must not ask a second time by the other transport.
		if n := cl.counters.Refused.Load(); n != 1 {
			t.Errorf("refused %d times", n)
		}
	}
}

// proxy forwards TCP connections to the cloud through change, one at a time.
func proxy(t *testing.T, c *cloud, pass func(edge, cloud *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		edge, err := l.Accept()
		if err != nil {
			return
		}
		defer edge.Close()
		up, err := net.Dial("tcp", c.listener.Addr().String())
		if err != nil {
			return
		}
		defer up.Close()
		pass(edge.(*net.TCPConn), up.(*net.TCPConn))
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return addrPort(l.Addr())
}

// TestFirstRecordsInWelcomesSegment holds back what the cloud says after HELLO
// until WELCOME and the cloud's first records are there, and delivers all of
// it at once: the end of TLS must not swallow a byte of the records.
func TestFirstRecordsInWelcomesSegment(t *testing.T) {
	var hold atomic.Bool
	sent := make(chan struct{})
	c := startCloud(t, loopback, func(k *cloud, _ *ListenOptions) {
		k.admitting = func() { hold.Store(true) } // HELLO has arrived, WELCOME is still to be sent
	})
	remote := proxy(t, c, func(edge, up *net.TCPConn) {
		done := make(chan struct{})
		go func() { defer close(done); mitm(edge, up, -8) }()
		passTogether(t, edge, up, &hold, sent)
		<-done
	})
	go func() {
		conn := <-c.conns
		if err := conn.Send([]wire.Record{record(1, 30, 2000), record(2, 10, 0)}); err != nil {
			t.Error(err)
		}
		close(sent)
		c.conns <- conn
	}()
	edge, _, err := c.dialer(TCP, func(o *DialerOptions) { o.Remote = remote }).Dial(context.Background(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2; i++ {
		rec, err := edge.Receive()
		if err != nil || !samePattern(rec.Block, i) {
			t.Fatalf("record %d: %v", i, err)
		}
		rec.Body.Release()
	}
	cloud := <-c.conns
	edge.Close(nil)
	cloud.Close(nil)
}

// passTogether forwards the cloud's bytes at once until hold is set, and what
// arrives afterwards, until sent is closed, in one piece.
func passTogether(t *testing.T, edge, up *net.TCPConn, hold *atomic.Bool, sent <-chan struct{}) {
	buf := make([]byte, 64<<10)
	var held []byte
	for {
		n, err := up.Read(buf)
		if hold.Load() {
			held = append(held, buf[:n]...)
			break
		}
		if _, werr := edge.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
	<-sent
	_ = up.SetReadDeadline(time.Now().Add(ample))
	for len(held) < 2000 {
		n, err := up.Read(buf)
		if held = append(held, buf[:n]...); err != nil {
			break
		}
	}
	if len(held) < 2000 {
		t.Errorf("only %d bytes of WELCOME and records together", len(held))
	}
	_, _ = edge.Write(held)
	_ = up.SetReadDeadline(time.Time{})
	_, _ = io.Copy(edge, up)
}

func TestTCPFailures(t *testing.T) {
	c := startCloud(t, loopback, nil)
	silent, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	nobody := addrPort(closed.Addr())
	closed.Close()
	at := func(a netip.AddrPort, patience time.Duration) *Dialer {
		return c.dialer(TCP, func(o *DialerOptions) { o.Remote, o.Timeout = a, patience })
	}
	err = dialFails(t, at(nobody, ample), sampleHello())
	if want := "link lte: tcp " + nobody.String() + ": connect: connection refused"; err.Error() != want || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %q, want %q", err, want)
	}
	err = dialFails(t, at(addrPort(silent.Addr()), time.Second), sampleHello())
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasSuffix(err.Error(), "tls handshake: no answer in time") {
		t.Errorf("got %q", err)
	}
	d := c.dialer(TCP, func(o *DialerOptions) { o.Interface = "hawser-none0" })
	err = dialFails(t, d, sampleHello())
	if !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), "socket: bind to interface hawser-none0: no such device") {
		t.Errorf("got %q", err)
	}
}

func TestQUICSilence(t *testing.T) {
	hole, err := net.ListenPacket("udp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	c := startCloud(t, loopback, nil)
	d := c.dialer(QUIC, func(o *DialerOptions) { o.Remote, o.Timeout = addrPort(hole.LocalAddr()), 100*time.Millisecond })
	err = dialFails(t, d, sampleHello())
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasSuffix(err.Error(), "tls handshake: no answer in time") {
		t.Errorf("got %q", err)
	}
}

func TestDialIsCancelled(t *testing.T) {
	silent, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := startCloud(t, loopback, nil)
	transports(t, func(t *testing.T, transport Transport) {
		d := c.dialer(transport, func(o *DialerOptions) { o.Remote = addrPort(silent.Addr()) })
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, _, err := d.Dial(ctx, sampleHello())
			ended <- err
		}()
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(ample / 2):
			t.Fatal("Dial ignores its context")
		}
	})
}

func TestDialerOptions(t *testing.T) {
	p := newParty(t)
	good := DialerOptions{Link: "lte", Remote: mustAddr(t, "192.0.2.1:7443"), Certificate: p.cert, PeerKey: readKey}
	for name, change := range map[string]func(*DialerOptions){
		"link \"\"":          func(o *DialerOptions) { o.Link = "" },
		"transport \"sctp\"": func(o *DialerOptions) { o.Transport = "sctp" },
		"cloud address":      func(o *DialerOptions) { o.Remote = netip.AddrPort{} },
		"no certificate":     func(o *DialerOptions) { o.PeerKey = nil },
	} {
		o := good
		change(&o)
		if _, err := NewDialer(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := NewDialer(good)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.order(); len(got) != 2 || got[0] != TCP {
		t.Errorf("default order is %v", got)
	}
}

// TestHeard: a dialer tells of the first packet that comes back, and of none where none does.
func TestHeard(t *testing.T) {
	c := startCloud(t, loopback, nil)
	mute, err := net.ListenPacket("udp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, by := range []Transport{TCP, QUIC} {
		var heard atomic.Int32
		d := c.dialer(by, func(o *DialerOptions) {
			o.Heard = func(of Transport) {
				if of != by {
					t.Errorf("heard %s of %s", of, by)
				}
				heard.Add(1)
			}
		})
		conn, _, err := d.Dial(t.Context(), sampleHello())
		if err != nil {
			t.Fatal(err)
		}
		cloud := <-c.conns
		conn.Close(nil)
		cloud.Close(nil)
		if n := heard.Load(); n != 1 {
			t.Errorf("%s: told %d times", by, n)
		}
		d.options.Remote, d.options.Timeout = addrPort(mute.LocalAddr()), 50*time.Millisecond
		if _, _, err := d.Dial(t.Context(), sampleHello()); err == nil || heard.Load() != 1 {
			t.Errorf("%s without an answer: %v, told %d times", by, err, heard.Load())
		}
	}
}
