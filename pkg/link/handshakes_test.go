package link

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/wire"
)

// slowCloud is a cloud behind a line that takes a while for each piece. begun counts the
// connections by which a handshake has begun.
func slowCloud(t *testing.T, begun *atomic.Int32) (*cloud, *net.TCPListener) {
	c := startCloud(t, loopback, nil)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	pass := func(to, from *net.TCPConn, first func()) {
		defer to.Close()
		defer from.Close()
		b := make([]byte, 400)
		for n, err := from.Read(b); err == nil; n, err = from.Read(b) {
			first()
			first = func() {}
			time.Sleep(40 * time.Millisecond)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	passing.Go(func() {
		for {
			edge, err := l.AcceptTCP()
			if err != nil {
				return
			}
			up, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(c.listener.Addr()))
			if err != nil {
				_ = edge.Close()
				continue
			}
			passing.Go(func() { pass(up, edge, func() { begun.Add(1) }) })
			passing.Go(func() { pass(edge, up, func() {}) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); passing.Wait() })
	return c, l
}

// TestOneHandshakeAtATime: attempts that overlap do not take a slow line from the one that
// goes on.
func TestOneHandshakeAtATime(t *testing.T) {
	var begun atomic.Int32
	c, slow := slowCloud(t, &begun)
	d := c.dialer(TCP, func(o *DialerOptions) { o.Remote, o.Timeout = addrPort(slow.Addr()), ample })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const attempts = 5
	stood := make(chan *Conn, attempts)
	for i := range attempts {
		go func() {
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			conn, _, err := d.Dial(ctx, sampleHello())
			if err != nil {
				conn = nil
			}
			stood <- conn
		}()
	}
	first := <-stood
	n := begun.Load()
	cancel()
	if first == nil || n > 2 { // a second, on a machine that has stopped for yieldLeast
		t.Errorf("%d handshakes had begun when the first was over", n)
	}
	for range attempts - 1 {
		if conn := <-stood; conn != nil {
			conn.Close(nil)
		}
	}
	if first != nil {
		first.Close(nil)
	}
	if len(d.under.all) > 0 {
		t.Errorf("%d handshakes are under way for ever", len(d.under.all))
	}
}

// TestHears: a dialer hears while an attempt does whose answers come as they came at first,
// by either transport, and no more when that is over.
func TestHears(t *testing.T) {
	var begun atomic.Int32
	c, slow := slowCloud(t, &begun)
	d := c.dialer(TCP, func(o *DialerOptions) { o.Remote, o.Timeout = addrPort(slow.Addr()), ample })
	stood := make(chan *Conn, 1)
	go func() {
		conn, _, err := d.Dial(t.Context(), sampleHello())
		if err != nil {
			t.Error(err)
		}
		stood <- conn
	}()
	var conn *Conn
	heard := false
	for over := false; !over; {
		heard = heard || d.Hears()
		select {
		case conn = <-stood:
			over = true
		case <-time.After(time.Millisecond):
		}
	}
	if conn != nil {
		conn.Close(nil)
	}
	if !heard || d.Hears() {
		t.Errorf("heard %v under way, %v afterwards", heard, d.Hears())
	}
	synctest.Test(t, func(t *testing.T) {
		var h handshakes
		q, end := h.listen()
		told := 0
		note := q.told(func(Transport) { told++ })
		for _, s := range []struct {
			after time.Duration
			comes bool
			hears bool
		}{{100 * ms, false, false}, {0, true, true}, {yieldTimes*100*ms - 1, false, true}, {1, false, false}, {0, true, true}, {time.Minute, true, true}} {
			time.Sleep(s.after)
			if s.comes && !note() {
				t.Error("wants to hear no more")
			}
			if h.goOn() != s.hears {
				t.Errorf("hears %v, want %+v", h.goOn(), s)
			}
		}
		end()
		if note() || h.goOn() || told != 1 {
			t.Errorf("after the end hears %v, told of %d first datagrams", h.goOn(), told)
		}
	})
}

// TestOneStandIn: of attempts that overlap on a line where nothing answers only one has QUIC
// beside it, the next one some time later, or when that one has failed by itself.
func TestOneStandIn(t *testing.T) {
	mute, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	at := addrPort(mute.Addr())
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip("its number is taken for UDP")
	}
	d := startCloud(t, loopback, nil).dialer(Auto, func(o *DialerOptions) { o.Remote = at })
	ctx, cancel := context.WithTimeout(t.Context(), headStart+500*time.Millisecond)
	defer cancel()
	var attempts sync.WaitGroup
	for range 5 {
		attempts.Go(func() { _, _, _ = d.Dial(ctx, sampleHello()) })
	}
	attempts.Wait()
	from := map[string]bool{}
	_ = udp.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for b := make([]byte, 2000); ; {
		_, a, err := udp.ReadFrom(b)
		if err != nil {
			break
		}
		from[a.String()] = true
	}
	_ = udp.Close()
	if len(from) != 1 {
		t.Errorf("%d attempts by QUIC, want 1", len(from))
	}
	synctest.Test(t, func(t *testing.T) {
		var s standIn
		for _, k := range []struct {
			after time.Duration
			free  bool
			may   bool
		}{{0, false, true}, {standInApart - 1, false, false}, {1, false, true}, {0, true, true}, {0, false, false}} {
			time.Sleep(k.after)
			if k.free {
				s.free(at)
			}
			if got := s.may(QUIC, at); got != k.may {
				t.Errorf("may %v, want %+v", got, k)
			}
		}
		if !s.may(TCP, at) || !s.may(QUIC, netip.MustParseAddrPort("192.0.2.1:7443")) {
			t.Error("TCP may not, or QUIC to another address")
		}
	})
}

// TestSlowQUICLink: a link over a line of 16 kbit/s stands, and a page comes.
func TestSlowQUICLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, 1, wire.VersionMax, simLine{rate: 16 * 125, delay: 150 * ms, limit: 5 * time.Second})
		defer w.close()
		_, page := w.begin(&simUser{size: 20_000, lastGot: time.Now()})
		begin := time.Now()
		for w.got(page) < 20_000 && time.Since(begin) < time.Minute {
			time.Sleep(100 * ms)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%d bytes in %v, wanted 20,000 in 30 s", w.got(page), took)
		}
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
	})
}
