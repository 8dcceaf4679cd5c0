package link

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apernet/quic-go/congestion"

	"hawser/pkg/bbr"
)

const govPacket = 1452

// drive lets a governor send for d on a path of 20 ms that delivers all, with
// the library's sequence of questions, and returns the bytes sent. often is how
// long the library sleeps when the pacing stops it.
func drive(g *governor, from, d, often time.Duration) (sent int) {
	type flight struct {
		number int64
		at     time.Duration
	}
	var out []flight
	number := g.now.Nanoseconds() // above all earlier ones
	for now := from; now < from+d; now += often {
		for len(out) > 0 && out[0].at+20*time.Millisecond <= now {
			g.acked(out[0].at+20*time.Millisecond, out[0].number)
			g.settle(out[0].at+20*time.Millisecond, 0, (len(out)-1)*govPacket)
			out = out[1:]
		}
		for g.hasRoom(len(out)*govPacket) && g.maySend(now) {
			out = append(out, flight{number, now})
			g.sent(now, number, govPacket, len(out)*govPacket)
			number++
			sent += govPacket
		}
	}
	return sent
}

// TestGovernorLimit: the rate that pace asks for is an upper bound, and no more
// than that.
func TestGovernorLimit(t *testing.T) {
	g := newGovernor(0, govPacket, 20*time.Millisecond)
	free := drive(g, 0, 200*time.Millisecond, time.Millisecond)
	g.limit(1e6)
	held := drive(g, time.Second, time.Second, time.Millisecond)
	g.limit(0)
	again := drive(g, 2*time.Second, 100*time.Millisecond, time.Millisecond)
	t.Logf("%d bytes in 200 ms, %d in a second when held to 1 MB/s, %d in 100 ms after that", free, held, again)
	if free < 2e6 || held > 1.02e6 || held < 0.95e6 || again < held {
		t.Error("the limit is not kept, or is kept after it was lifted")
	}
	var s Stats
	g.sample(&s)
	if s.Window < govPacket || s.InFlight <= 0 || s.DeliveryRate <= 0 {
		t.Errorf("figures %+v", s)
	}
}

// TestGovernorLed: a governor that is led sends at the rate that it is asked for, also
// where its controller knows of less, but by a quarter of that at most; its window bounds what
// is in flight.
func TestGovernorLed(t *testing.T) {
	g := newGovernor(0, govPacket, 20*time.Millisecond)
	g.limit(1e6)
	drive(g, 0, 3*time.Second, time.Millisecond)
	own := g.controller.Rate()
	for _, k := range []struct {
		led        bool
		asks, want float64 // times the controller's own rate
	}{{false, 1.2, 1}, {true, 1.2, 1.2}, {true, 10, ledMost}, {true, 0.5, 0.5}, {false, 0.5, 0.5}} {
		g.isLed.Store(k.led)
		g.limit(k.asks * own)
		if r := g.rate(); r != k.want*own {
			t.Errorf("led %v, asked for %.1f: %.2f times its own rate, wanted %.1f", k.led, k.asks, r/own, k.want)
		}
		if g.hasRoom(g.controller.Window()) {
			t.Errorf("led %v: room beyond the window", k.led)
		}
	}
	g.isLed.Store(true)
	if g.limit(0); g.rate() != own {
		t.Errorf("%.0f bytes per second without a limit, wanted %.0f", g.rate(), own)
	}
}

// TestGovernorStarved: the controller is told that data was short when the
// library may send and does not, and never while it does.
func TestGovernorStarved(t *testing.T) {
	const ms = time.Millisecond
	limited := func(between func(g *governor)) bool {
		g := newGovernor(0, govPacket, 20*ms)
		g.maySend(0)
		g.sent(0, 0, govPacket, govPacket)
		between(g)
		g.sent(30*ms, 1, govPacket, 2*govPacket)
		g.acked(50*ms, 1)
		g.settle(50*ms, 0, 0)
		var s Stats
		g.sample(&s)
		return s.AppLimited
	}
	for name, c := range map[string]struct {
		between func(g *governor)
		want    bool
	}{
		"the pacing allowed it long ago": {func(g *governor) { g.maySend(20 * ms) }, true},
		"asked again and again":          {func(g *governor) { g.maySend(29 * ms); g.maySend(29 * ms); g.maySend(29 * ms) }, true},
		"asked at an acknowledgement": {func(g *governor) {
			g.maySend(10 * ms)
			g.acked(20*ms, 0)
			g.settle(20*ms, 0, 0)
		}, true},
		"asked and sent at once": {func(g *governor) { g.maySend(30 * ms) }, false},
		"an acknowledgement was taken in first": {func(g *governor) {
			g.maySend(29 * ms)
			g.acked(30*ms, 0)
			g.settle(30*ms, 0, govPacket)
			g.maySend(30 * ms)
		}, false},
		"the window was full meanwhile": {func(g *governor) { g.maySend(10 * ms); g.hasRoom(1 << 30) }, false},
	} {
		if got := limited(c.between); got != c.want {
			t.Errorf("%s: starved %v, want %v", name, got, c.want)
		}
	}
}

// TestGoverned: both ends of a QUIC connection are governed, and say so.
func TestGoverned(t *testing.T) {
	edge, cloud := startCloud(t, loopback, nil).connect(QUIC)
	const n = 500
	done := make(chan error, 2)
	go traffic(&edge.Strand, n, done)
	go expect(&cloud.Strand, n, done)
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]*Conn{"edge": edge, "cloud": cloud} {
		if got := c.Info().Congestion; got != "bbr" {
			t.Errorf("%s: congestion control %q", name, got)
		}
		if s := c.Stats(); s.Window <= 0 {
			t.Errorf("%s: no window: %+v", name, s)
		}
	}
	if s := edge.Stats(); s.DeliveryRate <= 0 {
		t.Errorf("no delivery rate: %+v", s)
	}
}

// nat is a UDP relay between an edge and a cloud which can change the address
// that the cloud sees. It owns two goroutines per address, which end when their
// sockets are closed.
type nat struct {
	t      *testing.T
	inside net.PacketConn
	cloud  netip.AddrPort
	edge   atomic.Pointer[net.Addr]
	out    atomic.Pointer[net.UDPConn]
}

func startNAT(t *testing.T, cloud netip.AddrPort) *nat {
	t.Helper()
	inside, err := net.ListenPacket("udp4", loopback)
	if err != nil {
		t.Fatal(err)
	}
	n := &nat{t: t, inside: inside, cloud: cloud}
	t.Cleanup(func() { inside.Close() })
	n.rebind()
	go n.towardsCloud()
	return n
}

// rebind changes the address; the old one goes on delivering to the edge.
func (n *nat) rebind() {
	out, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(n.cloud))
	if err != nil {
		n.t.Error(err)
		return
	}
	n.t.Cleanup(func() { out.Close() })
	n.out.Store(out)
	go n.towardsEdge(out)
}

func (n *nat) towardsCloud() {
	buf := make([]byte, 2048)
	for {
		k, from, err := n.inside.ReadFrom(buf)
		if err != nil {
			return
		}
		n.edge.Store(&from)
		_, _ = n.out.Load().Write(buf[:k])
	}
}

func (n *nat) towardsEdge(out *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		k, err := out.Read(buf)
		if err != nil {
			return
		}
		if edge := n.edge.Load(); edge != nil {
			_, _ = n.inside.WriteTo(buf[:k], *edge)
		}
	}
}

// TestRebound: when a NAT gives the edge another address the library starts
// over with a controller of its own; the cloud puts ours back, with its limit.
func TestRebound(t *testing.T) {
	c := startCloud(t, loopback, nil)
	n := startNAT(t, c.listener.Addr())
	edge, _, err := c.dialer(QUIC, func(o *DialerOptions) { o.Remote = mustAddr(t, n.inside.LocalAddr().String()) }).Dial(context.Background(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	cloud := <-c.conns
	defer edge.Close(nil)
	defer cloud.Close(nil)
	cloud.Pace(50e6)
	pipe := cloud.pipe.(*quicPipe)
	before := pipe.control.Load()
	carry := func(records int) {
		t.Helper()
		done := make(chan error, 4)
		go traffic(&edge.Strand, records, done)
		go expect(&cloud.Strand, records, done)
		go traffic(&cloud.Strand, records, done)
		go expect(&edge.Strand, records, done)
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	carry(300)
	was := cloud.Stats()
	n.rebind()
	deadline := time.Now().Add(ample)
	for pipe.control.Load() == before && time.Now().Before(deadline) {
		carry(20)
	}
	after := pipe.control.Load()
	if after == before {
		t.Fatalf("the controller was not put back; the peer is %v", pipe.conn.RemoteAddr())
	}
	if after.most.Load() != before.most.Load() {
		t.Error("the new controller has another limit")
	}
	if is := cloud.Stats(); was.Acked == 0 || is.Acked < was.Acked || is.Delivered < was.Delivered || is.Lost < was.Lost {
		t.Errorf("figures fell from %+v to %+v", was, is)
	}
	if err := cloud.Send(nil); err != nil {
		t.Error(err)
	}
}

// BenchmarkGovernor is what congestion control adds to a packet: questions,
// sending and acknowledging it, two to an acknowledgement. A QUIC packet costs
// about 9 microseconds of both ends.
func BenchmarkGovernor(b *testing.B) {
	g := newGovernor(0, govPacket, 20*time.Millisecond)
	const flight = 256
	number := int64(0)
	for ; number < flight; number++ {
		g.sent(time.Duration(number)*time.Microsecond, number, govPacket, int(number+1)*govPacket)
	}
	b.ReportAllocs()
	for b.Loop() {
		now := time.Duration(number) * 100 * time.Microsecond
		g.acked(now, number-flight)
		if number%2 == 1 {
			g.settle(now, 20*time.Millisecond, (flight-2)*govPacket)
		}
		g.hasRoom(flight * govPacket)
		g.maySend(now)
		g.nextSend()
		g.sent(now, number, govPacket, flight*govPacket)
		number++
	}
	if g.controller.State() == bbr.Startup {
		b.Log("still in startup")
	}
}

// TestGovernorWhole: packets that arrive count as whole if they are as large as they may
// be, but for a few bytes of padding that a frame did not fill, and go on being counted by
// the governor of another path.
func TestGovernorWhole(t *testing.T) {
	q := &quicGovernor{g: newGovernor(0, govPacket, 20*time.Millisecond)}
	for _, size := range []congestion.ByteCount{60, govPacket / 2, govPacket - wholeSlack - 1, govPacket - wholeSlack, govPacket, govPacket + 100} {
		q.OnPacketAcked(1, size, 0, 1)
	}
	next := newGovernor(0, govPacket, 0)
	next.succeed(q.g)
	var s Stats
	if next.sample(&s); s.Whole != 3 {
		t.Errorf("%d whole packets, wanted 3", s.Whole)
	}
}
