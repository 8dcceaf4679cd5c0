package link

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/wire"
)

// urgentPair makes both ends of an urgent connection beside another's.
func urgentPair(t *testing.T, edge, cloud *Conn) (*Conn, *Conn) {
	t.Helper()
	ctx := context.Background()
	got := make(chan *Conn, 1)
	go func() {
		c, err := cloud.NextUrgent(ctx, false)
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	e, err := edge.NextUrgent(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	k := <-got
	t.Cleanup(func() { e.Close(nil); k.Close(nil) })
	return e, k
}

// TestBeside: an urgent connection carries records both ways beside the link's own,
// with keys and numbers of its own, and each lives on when the other's records are
// forged or it ends (PROTOCOL.md section 4.4).
func TestBeside(t *testing.T) {
	c := startCloud(t, loopback, nil)
	edge, cloud := c.connect(TCP)
	e, k := urgentPair(t, edge, cloud)
	if i := k.Info(); i.Link != "lte" || i.Index != 3 || i.Peer != "train-7" || i.Session != sampleHello().Session || i.Version != wire.VersionMax {
		t.Errorf("%+v", i)
	}
	const n = 200
	done := make(chan error, 8)
	for _, p := range [][2]*Conn{{edge, cloud}, {cloud, edge}, {e, k}, {k, e}} {
		go traffic(&p[0].Strand, n, done)
		go expect(&p[1].Strand, n, done)
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	k.Strand.seal = cloud.Strand.seal // a record of the one on the other
	if err := k.Send([]wire.Record{{Block: []byte{1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Receive(); !errors.Is(err, ErrTampered) {
		t.Errorf("a record of another connection: %v", err)
	}
	k.Close(nil)
	edge.berth.wait = Backoff{Min: time.Millisecond, Max: time.Millisecond}
	again, anew := urgentPair(t, edge, cloud)
	go traffic(&again.Strand, 1, done)
	go expect(&anew.Strand, 1, done)
	go traffic(&cloud.Strand, 1, done)
	if err := errors.Join(<-done, <-done, <-done); err != nil {
		t.Error(err)
	}
	cloud.Close(nil)
	if len(c.requests) != 1 {
		t.Errorf("%d connections were admitted", len(c.requests))
	}
	if c.listener.besides.find(edge.berth.token) != nil {
		t.Error("an ended connection is still found")
	}
}

// TestBesideAtOnce: the first connection of a dialer gets its urgent one and the twin at
// once, and later ones when they have stood for a while.
func TestBesideAtOnce(t *testing.T) {
	c := startCloud(t, loopback, nil)
	d := c.dialer(TCP, nil)
	for _, want := range []time.Duration{0, besideFirst, besideFirst} {
		edge, _, err := d.Dial(context.Background(), sampleHello())
		if err != nil {
			t.Fatal(err)
		}
		defer edge.Close(nil)
		defer (<-c.conns).Close(nil)
		for _, b := range []*berth{edge.berth, edge.twinBerth} {
			if b.pause != want {
				t.Errorf("an urgent connection waits for %v, want %v", b.pause, want)
			}
		}
	}
}

// TestBesideOthers: QUIC, older peers and other lanes have no urgent connections.
func TestBesideOthers(t *testing.T) {
	c := startCloud(t, loopback, nil)
	edge, cloud := c.connect(QUIC)
	if edge.TakesUrgent() || cloud.TakesUrgent() {
		t.Error("QUIC has one")
	}
	older := sampleHello()
	older.VersionMin, older.VersionMax = 1, wire.VersionBeside-1
	for name, of := range map[string]struct {
		lane  int
		hello wire.Hello
	}{"older": {0, older}, "lane": {1, sampleHello()}} {
		d := c.dialer(TCP, func(o *DialerOptions) { o.Index = wire.LinkIndex(0, of.lane) })
		edge, _, err := d.Dial(context.Background(), of.hello)
		if err != nil {
			t.Fatal(err)
		}
		cloud := <-c.conns
		if edge.TakesUrgent() || cloud.TakesUrgent() {
			t.Errorf("%s: there is one", name)
		}
		edge.Close(nil)
		cloud.Close(nil)
	}
}

// TestBesideRefused: a token opens nothing to another key, in another session, for
// another link, or after the end of the connection that it names.
func TestBesideRefused(t *testing.T) {
	c := startCloud(t, loopback, nil)
	edge, cloud := c.connect(TCP)
	ask := func(transport Transport, change func(*DialerOptions), hello wire.Hello) error {
		hello.Beside, hello.VersionMin, hello.VersionMax = edge.berth.token, 3, 3
		u, _, err := c.dialer(transport, change).Dial(context.Background(), hello)
		if err == nil {
			u.Close(nil)
		}
		return err
	}
	refused := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, ErrBadLink) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if e := <-c.failures; !errors.Is(e, ErrBadLink) {
			t.Errorf("%s, the cloud: %v", name, e)
		}
	}
	stranger, session := newParty(t), sampleHello()
	session.Session[0]++
	refused("another key", ask(TCP, func(o *DialerOptions) { o.Certificate = stranger.cert }, sampleHello()))
	refused("another session", ask(TCP, nil, session))
	refused("another link", ask(TCP, func(o *DialerOptions) { o.Index = 4 }, sampleHello()))
	refused("QUIC", ask(QUIC, nil, sampleHello()))
	if c.listener.besides.find(edge.berth.token) != cloud {
		t.Error("what was refused has ended the connection")
	}
	edge.berth.token[0]++
	refused("another token", ask(TCP, nil, sampleHello()))
	edge.berth.token[0]--
	cloud.Close(nil)
	refused("ended", ask(TCP, nil, sampleHello()))
	if c.counters.Refused.Load() != 6 {
		t.Errorf("%d refusals counted", c.counters.Refused.Load())
	}
}

// TestBesideNobodyTakes: of urgent connections that nobody takes the newest stays, and
// goes with the connection that it is beside; who waits for one is told of the end.
func TestBesideNobodyTakes(t *testing.T) {
	c := startCloud(t, loopback, nil)
	edge, cloud := c.connect(TCP)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	edge.berth.wait = Backoff{Min: time.Millisecond, Max: time.Millisecond}
	var mine [2]*Conn
	for i := range mine {
		var err error
		if mine[i], err = edge.NextUrgent(ctx, false); err != nil {
			t.Fatal(err)
		}
		defer mine[i].Close(nil)
		<-cloud.berth.come // one that was overtaken there would be the newer one
	}
	if _, err := mine[0].Receive(); !errors.Is(err, ErrPeerClosed) {
		t.Errorf("the older one: %v", err)
	}
	cloud.Close(nil)
	if _, err := mine[1].Receive(); !errors.Is(err, ErrPeerClosed) {
		t.Errorf("the newer one: %v", err)
	}
	if _, err := edge.NextUrgent(ctx, false); !errors.Is(err, ErrBadLink) {
		t.Errorf("beside one that has ended: %v", err)
	}
	cancel()
	for name, end := range map[string]*Conn{"edge": edge, "cloud": cloud} {
		if _, err := end.NextUrgent(ctx, false); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBesideForgotten: one lost probe does not end an urgent connection, and where one has
// ended by itself that had stood for long those after it are kept in mind more often, also
// beside the uplink's next connection: its NAT forgets soon. One that ended early says nothing.
func TestBesideForgotten(t *testing.T) {
	c := startCloud(t, loopback, nil)
	d := c.dialer(TCP, nil)
	next := func() (edge, cloud *Conn) {
		t.Helper()
		edge, _, err := d.Dial(context.Background(), sampleHello())
		if err != nil {
			t.Fatal(err)
		}
		cloud = <-c.conns
		t.Cleanup(func() { edge.Close(nil); cloud.Close(nil) })
		edge.berth.wait = Backoff{Min: time.Millisecond, Max: time.Millisecond}
		edge.berth.pause = 0
		return edge, cloud
	}
	first, cloud := next()
	for _, step := range []struct {
		name  string
		stood time.Duration // of the one before
		want  time.Duration
	}{{"first", 0, besideIdle}, {"after a short one", besideKept / 2, besideIdle}, {"after a long one", besideKept, besideKept}, {"then", 0, besideKept}} {
		first.berth.last = first.berth.last.Add(-step.stood)
		e, k := urgentPair(t, first, cloud)
		kept(t, step.name, e, step.want)
		if option(t, k, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
			t.Errorf("%s: the cloud asks, too", step.name)
		}
		k.Close(nil)
	}
	e, _ := urgentPair(t, first, cloud)
	kept(t, "again", e, besideKept)
	second, cloud := next()
	e, _ = urgentPair(t, second, cloud)
	kept(t, "beside the next connection", e, besideKept)
}

// kept checks that an urgent connection at rest is asked after idle, and outlasts lost probes.
func kept(t *testing.T, name string, c *Conn, idle time.Duration) {
	t.Helper()
	if got := time.Duration(option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)) * time.Second; got != idle {
		t.Errorf("%s: asked after %v, want %v", name, got, idle)
	}
	interval := time.Duration(option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL)) * time.Second
	if most := time.Duration(option(t, c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)) * time.Millisecond; most < idle+2*interval {
		t.Errorf("%s: ends after %v, before a second probe has had its time", name, most)
	}
}

// option is a socket option of a TCP connection.
func option(t *testing.T, c *Conn, level, name int) (value int) {
	t.Helper()
	err := c.pipe.(*tcpPipe).raw.Control(func(fd uintptr) {
		var err error
		if value, err = unix.GetsockoptInt(int(fd), level, name); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}
