package split

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/party"
)

// usage returns the numbers of goroutines and open files.
func usage(t *testing.T) (goroutines, files int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return runtime.NumGoroutine(), len(entries)
}

func TestRunLeaksNothing(t *testing.T) {
	l := newLab(t, true)
	l.serve("198.18.2.2:7", echoServer)
	once := func(i int) {
		s, err := New(l.options(0, 1), func(c *Conn) { c.Watch(nopReady) })
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		for !s.running() {
			runtime.Gosched()
		}
		if i%2 == 0 { // a client, a server and a dial that are under way
			c := l.dial(anywhere(false, 80))
			defer c.Close()
			for _, dst := range []string{"198.18.2.2:7", "198.18.77.1:9"} {
				d, err := s.Dial(netip.MustParseAddrPort(dst), "")
				must(t, err)
				d.Watch(nopReady)
			}
		}
		cancel()
		must(t, <-done)
	}
	for i := range 4 {
		once(i)
	}
	g0, f0 := usage(t)
	for i := range 200 {
		once(i)
	}
	var g1, f1 int
	for range 3000 { // timer functions and closing sockets need a moment
		if g1, f1 = usage(t); g1 <= g0 && f1 <= f0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Errorf("goroutines %d -> %d, files %d -> %d\n%s", g0, g1, f0, f1, buf[:runtime.Stack(buf, true)])
}

func TestIdleStackIsSilent(t *testing.T) {
	l := newLab(t, true)
	s, _ := l.start(l.options(0, 1), func(*Conn) {})
	time.Sleep(100 * time.Millisecond) // what netstack sends on its own, it sends at the start
	if out := s.Stats().FramesOut; out != 0 {
		t.Errorf("an idle stack has sent %d frames", out)
	}
}

func TestRunEndsWhenTheHubGoes(t *testing.T) {
	l := newLab(t, false)
	s, err := New(l.options(0, 1), nil)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	for !s.running() {
		runtime.Gosched()
	}
	l.remove(l.hub, "hub1")
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "hub") {
			t.Errorf("Run: %v, want an error that names the hub", err)
		}
	case <-time.After(ample):
		t.Fatal("Run goes on without a hub")
	}
	if s.Run(context.Background()) == nil {
		t.Error("Run may be called twice")
	}
}

// nopReady is for connections that nobody serves.
func nopReady(party.Ready) {}

// remove deletes an interface.
func (l *lab) remove(ns netns.NsHandle, dev string) {
	l.t.Helper()
	l.with(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		return h.LinkDel(link)
	})
}

// dialFor dials from the client and closes.
func (l *lab) dialFor(addr string, limit time.Duration) error {
	var err error
	in(l.t, l.client, func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", addr, limit); err == nil {
			c.Close()
		}
	})
	return err
}

// sieve is a filter that swallows SYNs to port 81, sends those to port 82 back
// to the host, and counts the rest.
type sieve struct{ in, out int }

func (g *sieve) inbound(s *segment) action {
	g.in++
	switch s.tcp().DestinationPort() {
	case 81:
		return swallow
	case 82:
		return forward
	}
	return pass
}

func (g *sieve) outbound(*stack.PacketBuffer) bool {
	g.out++
	return true
}

func (g *sieve) idle() {}

func TestFilter(t *testing.T) {
	l := newLab(t, true)
	s, err := New(l.options(0, 1), func(c *Conn) { c.Abort() })
	must(t, err)
	g := &sieve{}
	s.in.filters = append(s.in.filters, g)
	s.out.filters = append(s.out.filters, g)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for !s.running() {
		runtime.Gosched()
	}
	l.dialFor(anywhere(false, 80), ample)
	var timeout net.Error
	if err := l.dialFor(anywhere(false, 81), 300*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("dial of the filtered port: %v, want a timeout", err)
	}
	// The host has no route to there, and says so: the SYN has reached it.
	if err := l.dialFor(anywhere(false, 82), ample); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("dial of the forwarded port: %v, want %v", err, unix.ENETUNREACH)
	}
	cancel()
	must(t, <-done)
	if st := s.Stats(); st.Filtered == 0 || st.Forwarded == 0 || st.SendErrors != 0 || g.in < 3 || g.out < 2 {
		t.Errorf("filtered %d, forwarded %d, errors %d, filter saw %d in and %d out", st.Filtered, st.Forwarded, st.SendErrors, g.in, g.out)
	}
}
