package link

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/places"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// simWorld is an edge's and a cloud's session over QUIC links in virtual time.
type simWorld struct {
	t         *testing.T
	ups       *simUplinks
	edge      *tunnel.Session
	cloud     *tunnel.Session
	wg        sync.WaitGroup
	ctx       context.Context
	cancel    context.CancelFunc
	mu        sync.Mutex
	flows     map[stream.ID]*simUser
	conns     [][2]*Conn // newest of each link
	every     []*Conn    // that the cloud ever had
	dialers   []*Dialer
	races     []*simRace
	version   uint16 // highest that the edge speaks
	leads     atomic.Int32
	over      bool // flows are reset by the test
	listener  *Listener
	accepting chan error
}

// simUser is a flow: a download, or messages that come back.
type simUser struct {
	echo    bool
	size    int       // of the download; 0: without end
	piece   int       // bytes that its server has at once, one each simPiece; 0: all
	limit   [2]uint64 // edge, cloud
	sent    [2]uint64
	left    [2]int
	got     int
	at      time.Time
	gap     time.Duration
	lastGot time.Time
	rtts    []time.Duration
}

type simCarrier struct {
	*Conn
	cpu   *simCPU
	leads *atomic.Int32 // times that it was led
}

func (c simCarrier) Send(batch []wire.Record) error {
	c.cpu.wait()
	return c.Conn.Send(batch)
}

func (c simCarrier) Resume(batch []wire.Record) error {
	c.cpu.wait()
	return c.Conn.Resume(batch)
}

func (c simCarrier) Urge() { c.Conn.Urge() }

func (c simCarrier) Stretch(rtt time.Duration) { c.Conn.Stretch(rtt) }

func (c simCarrier) Lead(yes bool) {
	if yes {
		c.leads.Add(1)
	}
	c.Conn.Lead(yes && !*unled)
}

func (c simCarrier) Urgent() tunnel.Strand {
	if s := c.Conn.Urgent(); s != nil {
		return s
	}
	return nil
}

func (c simCarrier) Twin() tunnel.Strand {
	if s := c.Conn.Twin(); s != nil {
		return s
	}
	return nil
}

func (c simCarrier) Sense() scheduler.Sense {
	s := c.Stats()
	return scheduler.Sense{RTT: s.RTT, Arrived: s.Arrived, Ahead: int(s.Ahead), InFlight: int(s.InFlight), Progress: s.Delivered, Delivered: s.Acked, Whole: s.Whole, Known: s.Window > 0, Lost: s.Lost, Due: s.Due, Carries: s.Carries, Volleys: s.Volleys}
}

type simSink struct {
	w    *simWorld
	side int
}

func (s simSink) Place(stream.ID) int { return 0 }
func (s simSink) Settle(int)          {}

func (s simSink) Deliver(_ int, batch []stream.Event) {
	s.w.mu.Lock()
	var out []stream.Command
	for _, ev := range batch {
		out = append(out, s.event(ev)...)
	}
	s.w.mu.Unlock()
	if len(out) > 0 {
		s.session().Post(out)
	}
}

func (s simSink) session() *tunnel.Session {
	if s.side == 0 {
		return s.w.edge
	}
	return s.w.cloud
}

func (s simSink) event(ev stream.Event) (out []stream.Command) {
	u := s.w.flows[ev.Flow]
	switch ev.Kind {
	case stream.EventOpen:
		out = append(out, stream.Command{Kind: stream.CmdAccepted, Flow: ev.Flow, Bytes: -1})
		switch {
		case u.piece > 0:
			s.w.wg.Go(func() { s.w.feed(ev.Flow, u) })
		case u.size > 0:
			u.left[1] = u.size
		case !u.echo:
			u.left[1] = min(1<<40, math.MaxInt/2)
		}
	case stream.EventCredit:
		u.limit[s.side] = ev.Limit
	case stream.EventData:
		n := ev.Seg.Len()
		ev.Seg.Release()
		out = append(out, stream.Command{Kind: stream.CmdConsumed, Flow: ev.Flow, Bytes: n})
		if s.side == 1 && u.echo {
			u.left[1] += n
		}
		if s.side == 0 {
			u.got += n
			now := time.Now()
			u.gap = max(u.gap, now.Sub(u.lastGot))
			u.lastGot = now
			if u.echo && u.got%simMessage == 0 && !u.at.IsZero() {
				u.rtts = append(u.rtts, now.Sub(u.at))
				u.at = time.Time{}
			}
		}
	case stream.EventReset:
		if s.w.ctx.Err() != nil || s.w.over {
			return nil
		}
		s.w.t.Errorf("flow %d reset: %v", ev.Flow, ev.Code)
	}
	return append(out, u.send(ev.Flow, s.side)...)
}

const simMessage = 1200

// simPiece is the time from one piece of a download to the next.
const simPiece = 200 * time.Microsecond

// feed gives the cloud a download piece by piece.
func (w *simWorld) feed(id stream.ID, u *simUser) {
	for given := 0; given < u.size; given += u.piece {
		w.mu.Lock()
		u.left[1] += min(u.piece, u.size-given)
		out := u.send(id, 1)
		w.mu.Unlock()
		w.cloud.Post(out)
		time.Sleep(simPiece)
	}
}

func (u *simUser) send(id stream.ID, side int) (out []stream.Command) {
	for u.left[side] > 0 && u.sent[side] < u.limit[side] {
		n := min(u.left[side], int(u.limit[side]-u.sent[side]), 16000)
		b := buffer.Get(n)
		out = append(out, stream.Command{Kind: stream.CmdSend, Flow: id, Seg: b.Seg(0, n)})
		u.sent[side] += uint64(n)
		u.left[side] -= n
	}
	return out
}

func (w *simWorld) Admit(r Request) (Admission, error) {
	return Admission{Edge: "edge", Secret: [32]byte{1}, Resumed: r.Hello.Resume, Attach: func(c *Conn) { w.serve(w.cloud, int(r.Hello.Link), c) }}, nil
}

func (w *simWorld) serve(s *tunnel.Session, i int, c *Conn) {
	info := tunnel.LinkInfo{ID: i, Name: string(rune('a' + i)), Transport: "quic"}
	w.mu.Lock()
	side := 0
	if s == w.cloud {
		side = 1
	}
	w.conns[i][side] = c
	if side == 1 {
		w.every = append(w.every, c)
	}
	w.mu.Unlock()
	w.wg.Go(func() { _ = s.Serve(w.ctx, info, simCarrier{c, w.ups.net.cpus[side], &w.leads}) })
}

func newSimWorld(t *testing.T, seed uint64, version uint16, specs ...simLine) *simWorld {
	time.Sleep(60 * 365 * 24 * time.Hour) // the library takes no times before its own start
	w := &simWorld{t: t, ups: newSimUplinks(seed, specs...), flows: map[stream.ID]*simUser{}, conns: make([][2]*Conn, len(specs)), accepting: make(chan error, 1), version: version}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	session := func(side int) *tunnel.Session {
		return tunnel.New(tunnel.Config{
			Peer: "peer", Edge: side == 0, Secret: make([]byte, 32), Sink: simSink{w, side},
			Budget: tunnel.NewBudget(256 << 20), Log: slog.New(slog.DiscardHandler),
			Silent: func(i int, silent bool) {
				if side == 0 {
					w.races[i].tell(silent)
				}
			},
		})
	}
	w.edge, w.cloud = session(0), session(1)
	for i := range specs {
		w.races = append(w.races, newSimRace(w, i))
	}
	w.wg.Go(func() { _ = w.edge.Run(w.ctx) })
	w.wg.Go(func() { _ = w.cloud.Run(w.ctx) })
	edge, cloud := newParty(t), newParty(t)
	o := ListenOptions{Certificate: cloud.cert, PeerKey: readKey, Admitter: w, Name: "cloud", Failed: func(*StepError) {}}
	if err := o.fill(); err != nil {
		t.Fatal(err)
	}
	l := &Listener{options: o, places: places.New(256, 256)}
	v := &verdict{peerKey: readKey}
	config := v.config(cloud.cert)
	config.VerifyConnection = o.verify
	var err error
	if l.quic, err = newQUICListener(newQUICSocket(w.ups.cloud), config, l.places, nil); err != nil {
		t.Fatal(err)
	}
	w.listener = l
	go l.acceptQUIC(w.ctx, w.accepting)
	for i := range specs {
		d, err := NewDialer(DialerOptions{
			Link: string(rune('a' + i)), Index: uint16(i), Remote: netip.MustParseAddrPort("192.0.2.1:443"), Transport: QUIC,
			Certificate: edge.cert, PeerKey: readKey, CloudKey: cloud.key, packets: w.ups.packets(i),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.dialers = append(w.dialers, d)
		w.dial(i)
		w.wg.Go(func() { w.races[i].run(w.ctx) })
	}
	return w
}

func (w *simWorld) dial(i int) {
	c, _, err := w.dialers[i].Dial(w.ctx, wire.Hello{VersionMin: 1, VersionMax: w.version, Session: [16]byte{9}, Resume: true})
	if err != nil {
		return
	}
	w.serve(w.edge, i, c)
}

func (w *simWorld) close() {
	w.cancel()
	w.wg.Wait()
	<-w.accepting
	_ = w.listener.quic.early.Close()
	w.listener.active.Wait()
	w.listener.quic.socket.close()
}

// active is the cloud's end of the connection that a link's edge uses.
func (w *simWorld) active(i int) *Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	local := w.conns[i][0].Info().Local
	for _, c := range w.every {
		if c.Info().Remote == local {
			return c
		}
	}
	return w.conns[i][1]
}

// open starts a flow.
func (w *simWorld) open(echo bool) (stream.ID, *simUser) {
	return w.begin(&simUser{echo: echo, lastGot: time.Now()})
}

// begin starts the flow that u describes.
func (w *simWorld) begin(u *simUser) (stream.ID, *simUser) {
	id := w.edge.NewFlow(0)
	w.mu.Lock()
	w.flows[id] = u
	w.mu.Unlock()
	w.edge.Post([]stream.Command{{Kind: stream.CmdOpen, Flow: id, Dst: netip.MustParseAddrPort("198.51.100.7:80"), Src: netip.MustParseAddrPort("10.1.1.9:4711")}})
	return id, u
}

// ping sends messages one after the other, every so often.
func (w *simWorld) ping(id stream.ID, u *simUser, every, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(every) {
		w.mu.Lock()
		var out []stream.Command
		if u.at.IsZero() {
			u.at = time.Now()
			u.left[0] += simMessage
			out = u.send(id, 0)
		}
		w.mu.Unlock()
		if len(out) > 0 {
			w.edge.Post(out)
		}
	}
}

func (w *simWorld) got(u *simUser) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return u.got
}

func quantileOf(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Clone(d)
	slices.Sort(s)
	return s[int(q*float64(len(s)-1))]
}

var _ net.PacketConn = (*simSocket)(nil)
