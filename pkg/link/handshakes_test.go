package link

import (
	"context"
	"net"
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
