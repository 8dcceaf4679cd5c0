package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/sock"
)

// gateway is an edge and a cloud worker between kernel sockets: clients
// connect to addr and reach the server.
type gateway struct {
	addr    string
	workers [2]*Worker
	stop    func()
}

func newGateway(t testing.TB, seed uint64, server netip.AddrPort, change ...func(*sock.Poller, *Options)) *gateway {
	g := &gateway{}
	l := newLoop(t, seed)
	ctx, cancel := context.WithCancel(t.Context())
	var pollers [2]*sock.Poller
	ended := make(chan error, 2)
	for i := range g.workers {
		p, err := sock.NewPoller()
		must(t, err)
		pollers[i] = p
		o := Options{Index: i, Poller: p, Card: inlineCard(t), Ring: card.NewRings(card.Role(i + 1)).Get}
		if i == 1 {
			o.Dial = func(dst, _ netip.AddrPort, _ string) (party.Conn, error) {
				c, err := sock.Dial(p, dst, 0, "")
				if err != nil {
					return nil, err // not a nil *Conn in an interface
				}
				return c, nil
			}
		}
		for _, f := range change {
			f(p, &o)
		}
		g.workers[i], err = New(o)
		must(t, err)
		l.ends[i].worker = g.workers[i]
	}
	listener, err := sock.Listen(pollers[0], netip.MustParseAddrPort("127.0.0.1:0"), func(c *sock.Conn) {
		g.workers[0].Accept(c, server, c.Remote(), l.ends[0])
	})
	must(t, err)
	g.addr = listener.Addr().String()
	for _, w := range g.workers {
		go func() { ended <- w.Run(ctx) }()
	}
	go l.run()
	g.stop = func() {
		cancel()
		for range g.workers {
			must(t, <-ended)
		}
		l.stop()
		listener.Close()
		for _, p := range pollers {
			must(t, p.Close())
		}
	}
	return g
}

func dialTCP(t testing.TB, addr string) *net.TCPConn {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(60*time.Second)))
	return c.(*net.TCPConn)
}

func listenTCP(t testing.TB) (*net.TCPListener, netip.AddrPort) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// The same relay between kernel sockets: echoes with half-close on many
// connections at once, then a reset from either end.
func TestKernelSockets(t *testing.T) {
	goroutines, live := runtime.NumGoroutine(), buffer.Live()
	server, at := listenTCP(t)
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	g := newGateway(t, 1, at)
	var all sync.WaitGroup
	for i := range 30 {
		c := dialTCP(t, g.addr)
		s, err := server.AcceptTCP()
		must(t, err)
		data := content(uint64(i), 50<<10*i)
		all.Add(3)
		go func() {
			defer all.Done()
			defer s.Close()
			_, _ = io.Copy(s, s)
		}()
		go func() {
			defer all.Done()
			_, _ = c.Write(data)
			_ = c.CloseWrite()
		}()
		go func() {
			defer all.Done()
			defer c.Close()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("connection %d: %d of %d bytes, %v", i, len(got), len(data), err)
			}
		}()
	}
	all.Wait()
	for who := range 2 {
		c := dialTCP(t, g.addr)
		s, err := server.AcceptTCP()
		must(t, err)
		must(t, s.SetDeadline(time.Now().Add(60*time.Second)))
		ends := [2]*net.TCPConn{c, s}
		must(t, ends[who].SetLinger(0))
		must(t, ends[who].Close())
		if _, err := ends[1-who].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("end %d reset, the other saw %v", who, err)
		}
		ends[1-who].Close()
	}
	server.Close()
	c, err := net.DialTimeout("tcp", g.addr, time.Minute)
	if err == nil { // the reset may be there before connect has returned
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused by the server, the client saw %v", err)
	}
	g.stop()
	// A server that resets before the dial was seen to stand has refused.
	s := g.workers[1].Status()
	if s.Done != 30 || s.Resets["refused"] < 1 || s.Resets["refused"]+s.Resets["abort"] != 2 || s.Flows != 0 {
		t.Errorf("%+v", s)
	}
	if now := buffer.Live(); now != live {
		t.Errorf("%d bytes of slabs are not released", now-live)
	}
	// The test's own goroutines have said that they are done, not that they ended.
	for until := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines; {
		if time.Now().After(until) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
		runtime.Gosched()
	}
}
