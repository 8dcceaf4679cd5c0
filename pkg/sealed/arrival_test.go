package sealed

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"hawser/pkg/sock"
	"hawser/pkg/stream"
)

// TestArrivalsAreBounded: sources that connect, begin to say what they are and do not
// end are so many at most, and keep no client out.
func TestArrivalsAreBounded(t *testing.T) {
	poller, err := sock.NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	client, gateway := couple(t)
	var count Counters
	opened := false
	port := NewPort(Options{Poller: poller, Budget: NewBudget(plenty), Counters: &count, Deliver: func(events []stream.Event) {
		for _, e := range events {
			opened = opened || e.Kind == stream.EventOpen
		}
	}})
	gateway.servers = []*Server{NewServer(netip.MustParseAddrPort("127.0.0.1:9"))}
	gateway.lanes = []*Lane{newLane(port, gateway)}
	g := NewGate(GateOptions{Counters: &count, Log: slog.New(slog.DiscardHandler)})
	g.table[gateway.ID] = gateway
	l, err := sock.ListenGreeted(poller, netip.MustParseAddrPort("127.0.0.1:0"), func(c *sock.Conn) { g.Greet(port, c) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		l.Close()
		port.Close()
		g.Close()
		for _, c := range gateway.lanes[0].conns {
			c.abort()
		}
		if err := poller.Close(); err != nil {
			t.Error(err)
		}
	}()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(ample); !ok(); {
			if time.Now().After(end) {
				t.Fatalf("not within a minute: %s", what)
			}
			if err := poller.Wait(10 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	knock := func(from byte, say []byte) {
		t.Helper()
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write(say); err != nil {
			t.Fatal(err)
		}
	}
	join := client.appendJoin(nil, 7, 0)
	const few = mostArrivals / mostArrivalsPerSource
	for i := range byte(few) {
		for range mostArrivalsPerSource + 1 {
			knock(2+i, join[:5])
		}
	}
	until("all have come", func() bool { return len(port.arrivals)+int(count.Crowded.Load()) == mostArrivals+few })
	if n := len(port.arrivals); n != mostArrivals {
		t.Errorf("%d wait", n)
	}
	knock(100, join[:20])
	until("one to lose its place", func() bool { return count.Crowded.Load() == few+1 })
	knock(1, join)
	until("a client to join", func() bool { return opened })
	if n, m := len(port.arrivals), port.places.Taken(); n != mostArrivals || m != n {
		t.Errorf("%d wait in %d places", n, m)
	}
}
