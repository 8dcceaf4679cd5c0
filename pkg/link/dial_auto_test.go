package link

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAuto falls back to QUIC where no TCP passes, then prefers QUIC, and
// falls back to TCP when that is what passes.
func TestAuto(t *testing.T) {
	c := startCloud(t, loopback, nil)
	d := c.dialer(Auto, func(o *DialerOptions) { o.Timeout = ample })
	dial := func(want Transport) {
		t.Helper()
		conn, _, err := d.Dial(context.Background(), sampleHello())
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Info().Transport; got != want {
			t.Errorf("dialled by %s, want %s", got, want)
		}
		cloud := <-c.conns // one whose edge is gone before it has an urgent stream is not handed over
		conn.Close(nil)
		cloud.Close(nil)
	}
	dial(TCP)
	d.last.Store(QUIC)
	dial(QUIC)
	dial(QUIC)

	// A dialer to a port where only UDP, then only TCP answers.
	only := func(t Transport) netip.AddrPort { return c.forward(t) }
	d = c.dialer(Auto, func(o *DialerOptions) { o.Remote, o.Timeout = only(QUIC), ample })
	dial(QUIC)
	if got := d.order(); got[0] != QUIC {
		t.Errorf("after QUIC succeeded the order is %v", got)
	}
	d = c.dialer(Auto, func(o *DialerOptions) { o.Remote, o.Timeout = only(TCP), ample })
	d.last.Store(QUIC)
	dial(TCP)
	if got := d.order(); got[0] != TCP {
		t.Errorf("after TCP succeeded the order is %v", got)
	}
	d = c.dialer(Auto, func(o *DialerOptions) { o.Remote, o.Timeout = mustAddr(t, "127.0.0.1:1"), 100*time.Millisecond })
	err := dialFails(t, d, sampleHello())
	if s := err.Error(); !strings.Contains(s, "tcp 127.0.0.1:1: connect: ") || !strings.Contains(s, "; link lte: quic 127.0.0.1:1: ") {
		t.Errorf("got %q", s)
	}
}

// TestAutoPassesADeadTransport: where one transport gets no answer at all the
// other one connects soon, long before the first is given up.
func TestAutoPassesADeadTransport(t *testing.T) {
	c := startCloud(t, loopback, nil)
	remote := c.forward(QUIC)
	mute, err := net.Listen("tcp", remote.String()) // takes connections and says nothing
	if err != nil {
		t.Skip("the port is not free for TCP")
	}
	defer mute.Close()
	d := c.dialer(Auto, func(o *DialerOptions) { o.Remote, o.Timeout = remote, ample })
	begin := time.Now()
	conn, _, err := d.Dial(context.Background(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	if took, got := time.Since(begin), conn.Info().Transport; got != QUIC || took > ample/2 {
		t.Errorf("%s after %v", got, took)
	} else {
		t.Logf("QUIC after %v", took)
	}
	conn.Close(nil)
	(<-c.conns).Close(nil)
}

// TestAutoPassesAStuckTransport: the same where attempts overlap, and each of them connects by
// TCP and hears something before it is stuck.
func TestAutoPassesAStuckTransport(t *testing.T) {
	c := startCloud(t, loopback, nil)
	remote := c.forward(QUIC)
	mute, err := net.Listen("tcp", remote.String())
	if err != nil {
		t.Skip("the port is not free for TCP")
	}
	defer mute.Close()
	d := c.dialer(Auto, func(o *DialerOptions) { o.Remote, o.Timeout = remote, ample })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begin := time.Now()
	var running sync.WaitGroup
	for i := range 40 {
		running.Go(func() {
			select {
			case <-time.After(time.Duration(i) * 50 * time.Millisecond):
			case <-ctx.Done():
			}
			conn, _, err := d.Dial(ctx, sampleHello())
			if err != nil {
				return
			}
			cancel()
			conn.Close(nil)
			(<-c.conns).Close(nil)
		})
	}
	running.Wait()
	if took := time.Since(begin); took > ample/2 {
		t.Errorf("QUIC after %v", took)
	} else {
		t.Logf("QUIC after %v", took)
	}
}

// TestAutoPrefersTCP: a loaded machine or a long path must not make QUIC win
// where TCP works.
func TestAutoPrefersTCP(t *testing.T) {
	c := startCloud(t, loopback, nil)
	d := c.dialer(Auto, func(o *DialerOptions) { o.Timeout = ample })
	for range 5 {
		conn, _, err := d.Dial(context.Background(), sampleHello())
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Info().Transport; got != TCP {
			t.Errorf("dialled by %s", got)
		}
		conn.Close(nil)
		(<-c.conns).Close(nil)
	}
}

// TestQUICOverNarrowPath: QUIC connects where nothing longer than 1280 bytes passes, by
// IPv6 as well.
func TestQUICOverNarrowPath(t *testing.T) {
	c := startCloud(t, loopback, nil)
	d := c.dialer(QUIC, func(o *DialerOptions) { o.Remote, o.Timeout = c.relay((*udpRelay).narrow), ample })
	conn, _, err := d.Dial(t.Context(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	cloud := <-c.conns
	conn.Close(nil)
	cloud.Close(nil)
}

// forward returns an address that leads to the cloud by one transport only.
func (c *cloud) forward(transport Transport) netip.AddrPort {
	c.t.Helper()
	if transport == TCP {
		return proxy(c.t.(*testing.T), c, func(edge, up *net.TCPConn) {
			done := make(chan struct{})
			go func() { defer close(done); mitm(edge, up, -8); edge.CloseRead() }()
			mitm(up, edge, -8)
			<-done
		})
	}
	return c.relay(func(*udpRelay) {})
}

// relay is forward by QUIC, over a path that set makes.
func (c *cloud) relay(set func(*udpRelay)) netip.AddrPort {
	c.t.Helper()
	front, err := net.ListenPacket("udp", loopback)
	if err != nil {
		c.t.Fatal(err)
	}
	back, err := net.ListenPacket("udp", loopback)
	if err != nil {
		c.t.Fatal(err)
	}
	r := &udpRelay{front: front, back: back, cloud: net.UDPAddrFromAddrPort(c.listener.Addr()), known: make(chan net.Addr, 1)}
	set(r)
	done := make(chan struct{}, 2)
	go r.up(done)
	go r.down(done)
	c.t.Cleanup(func() { front.Close(); back.Close(); <-done; <-done })
	return addrPort(front.LocalAddr())
}

// udpRelay passes the datagrams of one client.
type udpRelay struct {
	front, back net.PacketConn
	cloud       net.Addr
	known       chan net.Addr
	most        int // payload of the largest datagram that passes; 0: any
}

// narrow has only datagrams pass that fit an IPv6 path of the least MTU, 1280 bytes, with
// their IPv6 and UDP headers.
func (r *udpRelay) narrow() { r.most = 1280 - 40 - 8 }

func (r *udpRelay) passes(n int) bool { return r.most == 0 || n <= r.most }

func (r *udpRelay) up(done chan<- struct{}) {
	defer func() { close(r.known); done <- struct{}{} }()
	buf := make([]byte, 64<<10)
	for first := true; ; first = false {
		n, from, err := r.front.ReadFrom(buf)
		if err != nil {
			return
		}
		if first {
			r.known <- from
		}
		if r.passes(n) {
			_, _ = r.back.WriteTo(buf[:n], r.cloud)
		}
	}
}

func (r *udpRelay) down(done chan<- struct{}) {
	defer func() { done <- struct{}{} }()
	client, ok := <-r.known
	if !ok {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := r.back.ReadFrom(buf)
		if err != nil {
			return
		}
		if r.passes(n) {
			_, _ = r.front.WriteTo(buf[:n], client)
		}
	}
}

// TestAutoPassesAnInterceptor: where somebody on the way answers TLS in the cloud's name, as a
// firewall does that looks into it, QUIC connects.
func TestAutoPassesAnInterceptor(t *testing.T) {
	c := startCloud(t, loopback, nil)
	remote := c.forward(QUIC)
	between, err := net.Listen("tcp", remote.String())
	if err != nil {
		t.Skip("the port is not free for TCP")
	}
	defer between.Close()
	go func() {
		for {
			conn, err := between.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{newParty(t).cert}, NextProtos: []string{alpn}}).Handshake()
			_ = conn.Close()
		}
	}()
	d := c.dialer(Auto, func(o *DialerOptions) { o.Remote, o.Timeout = remote, ample })
	conn, _, err := d.Dial(t.Context(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.Info().Transport; got != QUIC {
		t.Errorf("connected by %s", got)
	}
	cloud := <-c.conns
	conn.Close(nil)
	cloud.Close(nil)
}
