package sealed

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hawser/pkg/card"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
)

// crowd is a gateway with one worker, and clients that join it.
type crowd struct {
	*testing.T
	poller *sock.Poller
	port   *Port
	gate   *Gate
	at     string
	count  Counters
	log    bytes.Buffer
	joins  uint64
	opened int
}

func newCrowd(t *testing.T, most, clients int) *crowd {
	c := &crowd{T: t}
	var err error
	if c.poller, err = sock.NewPoller(); err != nil {
		t.Fatal(err)
	}
	c.port = NewPort(Options{Poller: c.poller, Budget: NewBudget(plenty), Counters: &c.count, Deliver: func(events []stream.Event) {
		for _, e := range events {
			if e.Kind == stream.EventOpen {
				c.opened++
			}
		}
	}})
	known := map[[32]byte]Client{}
	for i := range clients {
		known[[32]byte{byte(i + 1)}] = Client{}
	}
	c.gate = NewGate(GateOptions{Clients: known, Counters: &c.count, Log: slog.New(slog.NewTextHandler(&c.log, nil)), Most: most})
	l, err := sock.ListenGreeted(c.poller, netip.MustParseAddrPort("127.0.0.1:0"), func(s *sock.Conn) { c.gate.Greet(c.port, s) })
	if err != nil {
		t.Fatal(err)
	}
	c.at = l.Addr().String()
	t.Cleanup(func() {
		l.Close()
		c.port.Close()
		c.gate.Close()
		if err := c.poller.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// member is one client's association, as both ends have it.
type member struct{ near, far *Association }

func (c *crowd) member(key byte) member {
	secret := bytes.Repeat([]byte{key}, secretSize)
	near, err1 := newAssociation(card.Edge, secret, nil)
	far, err2 := newAssociation(card.Cloud, secret, nil)
	if err1 != nil || err2 != nil {
		c.Fatal(err1, err2)
	}
	near.ID, far.ID, far.Key, far.Peer = [16]byte{key}, [16]byte{key}, [32]byte{key}, "client "+string('0'+rune(key))
	far.gate, far.Services = c.gate, []string{"web"}
	far.servers, far.lanes = []*Server{NewServer(netip.MustParseAddrPort("127.0.0.1:9"))}, []*Lane{newLane(c.port, far)}
	if _, err := c.gate.enter(far, Client{}); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { c.end(far) })
	return member{near, far}
}

func (c *crowd) end(a *Association) {
	for _, one := range a.lanes[0].conns {
		one.abort()
	}
}

// join has a client make n connections, and returns how many it has then.
func (c *crowd) join(m member, n int) int {
	c.Helper()
	before := c.opened + int(c.count.Refused.Load())
	for range n {
		raw, err := net.Dial("tcp", c.at)
		if err != nil {
			c.Fatal(err)
		}
		c.Cleanup(func() { raw.Close() })
		c.joins++
		if _, err := raw.Write(m.near.appendJoin(nil, c.joins, 0)); err != nil {
			c.Fatal(err)
		}
	}
	for end := time.Now().Add(ample); c.opened+int(c.count.Refused.Load()) < before+n; {
		if err := c.poller.Wait(10 * time.Millisecond); err != nil || time.Now().After(end) {
			c.Fatalf("%d of %d joins are settled, %v", c.opened+int(c.count.Refused.Load())-before, n, err)
		}
	}
	return len(m.far.lanes[0].conns)
}

// TestFairParts: a client that opens what it can leaves others a quarter of a worker's
// places, two leave a seventh; what one gives back others may have. The log says so once,
// status counts it. A client that is the only one may have all.
func TestFairParts(t *testing.T) {
	const most = 28
	c := newCrowd(t, most, 3)
	first, second, third := c.member(1), c.member(2), c.member(3)
	if n := c.join(first, most); n != 21 {
		t.Errorf("the first has %d of %d", n, most)
	}
	if n := c.join(second, 3); n != 3 {
		t.Errorf("a quiet one has %d of 3", n)
	}
	if n := c.join(second, most); n != 6 {
		t.Errorf("the second has %d beside the first", n)
	}
	if n := c.join(third, 1); n != 1 {
		t.Errorf("the third has %d", n)
	}
	if was := c.gate.Client(first.far.Key).Crowded; was != most-21 || strings.Count(c.log.String(), "as many as it may have") != 2 {
		t.Errorf("%d of the first were too many, the log says\n%s", was, c.log.String())
	}
	c.end(first.far)
	if n := c.join(second, most); n != 21 || c.port.parts.all != 22 {
		t.Errorf("the second has %d when the first has gone, all have %d", n, c.port.parts.all)
	}
	for _, a := range []*Association{second.far, third.far} {
		c.end(a)
	}
	if c.port.parts.all != 0 || len(c.port.parts.of) != 0 {
		t.Errorf("places are left: %+v", c.port.parts)
	}
	alone := newCrowd(t, most, 1)
	if n := alone.join(alone.member(1), most+2); n != most+2 {
		t.Errorf("one that is alone has %d", n)
	}
}

// TestRestInParts: a client's connections at rest are in its part, and one of them that carries
// the next flow is there once.
func TestRestInParts(t *testing.T) {
	const most = 28
	c := newCrowd(t, most, 3)
	m := c.member(1)
	m.far.again = true
	raw, err := net.Dial("tcp", c.at)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	say := func() {
		t.Helper()
		c.joins++
		if _, err := raw.Write(m.near.appendJoin(nil, c.joins, 0)); err != nil {
			t.Fatal(err)
		}
		for before, end := c.opened, time.Now().Add(ample); c.opened == before; {
			if err := c.poller.Wait(10 * time.Millisecond); err != nil || time.Now().After(end) {
				t.Fatalf("no flow by a connection at rest, %v", err)
			}
		}
	}
	rest := func() {
		for _, one := range m.far.lanes[0].conns {
			one.rested()
		}
	}
	say()
	for range 3 {
		c.join(m, most)
		rest()
	}
	if n := len(c.port.arrivals); n != 21 || c.port.parts.all != n {
		t.Errorf("%d connections of a client rest, its part has %d of %d", n, c.port.parts.all, most)
	}
	say() // in the place of itself
	if n := len(c.port.arrivals); n != 20 || c.port.parts.all != 21 {
		t.Errorf("%d rest beside one that carries a flow, its part has %d", n, c.port.parts.all)
	}
	rest()
	for a := range c.port.arrivals {
		a.refuse("the end")
	}
	if c.port.parts.all != 0 || len(c.port.parts.of) != 0 {
		t.Errorf("places are left: %+v", c.port.parts)
	}
}
