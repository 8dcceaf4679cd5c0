package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/box"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
)

// nowhere is a sink for sessions that have no flows.
type nowhere struct{}

func (nowhere) Deliver(int, []stream.Event) {}
func (nowhere) Place(stream.ID) int         { return 0 }
func (nowhere) Settle(int)                  {}

// rig is a cloud's listener on the loopback and an edge's links to it.
type rig struct {
	t        *testing.T
	ctx      context.Context // of the cloud's side
	edge     identity.Key
	cloud    identity.Key
	listener *link.Listener
	tunnels  *tunnels

	mu      sync.Mutex
	refuse  wire.Status    // what Admit answers, if not StatusOK
	ends    link.Transport // by which no connection lasts
	ending  func() bool    // until it returns false; nil: always
	hellos  []wire.Hello
	came    []time.Time // when each hello did
	conns   []*link.Conn
	clouds  map[[16]byte]*tunnel.Session
	running sync.WaitGroup
	attempt atomic.Int32
}

func newRig(t *testing.T, links int) *rig {
	r := &rig{t: t, clouds: map[[16]byte]*tunnel.Session{}}
	var err error
	if r.edge, err = identity.Generate(rand.Reader); err == nil {
		r.cloud, err = identity.Generate(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	certificate, _ := r.cloud.Certificate(time.Now())
	r.listener, err = link.Listen(t.Context(), link.ListenOptions{
		Address: "127.0.0.1:0", Name: "cloud", Certificate: certificate, PeerKey: identity.PeerKey, Admitter: r,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	r.running.Go(func() { _ = r.listener.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		r.running.Wait()
		r.listener.Close()
	})
	r.tunnels = &tunnels{
		log: slog.New(slog.DiscardHandler), sink: nowhere{}, budget: tunnel.NewBudget(1 << 20), ended: func(stream.Tunnel) {}, term: newTerm(),
	}
	for i := range links {
		r.tunnels.uplinks = append(r.tunnels.uplinks, r.uplink(i))
	}
	return r
}

func (r *rig) certificate() tls.Certificate {
	c, _ := r.edge.Certificate(time.Now())
	return c
}

func (r *rig) uplink(i int) *uplink {
	name := string(rune('a' + i))
	d, err := link.NewDialer(link.DialerOptions{
		Link: name, Index: uint16(i), Remote: r.listener.Addr(), Transport: link.TCP,
		Certificate: r.certificate(), PeerKey: identity.PeerKey, CloudKey: r.cloud.Public(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	dial := func(ctx context.Context, h wire.Hello) (*link.Conn, wire.Welcome, error) {
		r.attempt.Add(1)
		return d.Dial(ctx, h)
	}
	u := newUplink(i, name, r.tunnels)
	u.dial = dial
	return u
}

// Admit implements link.Admitter.
func (r *rig) Admit(q link.Request) (link.Admission, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != wire.StatusOK {
		return link.Admission{}, &link.Refusal{Status: r.refuse}
	}
	r.hellos, r.came = append(r.hellos, q.Hello), append(r.came, time.Now())
	s := r.clouds[q.Hello.Session]
	if s == nil {
		s = tunnel.New(tunnel.Config{
			Peer: "edge", Secret: make([]byte, 32), Sink: nowhere{}, Budget: tunnel.NewBudget(1 << 20),
			Log: slog.New(slog.DiscardHandler),
		})
		r.clouds[q.Hello.Session] = s
		r.running.Go(func() { _ = s.Run(r.ctx) })
	}
	return link.Admission{Edge: "edge", Attach: func(c *link.Conn) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if c.Info().Transport == r.ends && (r.ending == nil || r.ending()) {
			time.AfterFunc(20*time.Millisecond, func() { c.Close(errors.New("ended by the test")) }) // once the edge knows it
			return
		}
		r.conns = append(r.conns, c)
		r.running.Go(func() { _ = s.Serve(r.ctx, tunnel.LinkInfo{ID: int(q.Hello.Link)}, box.Carrier(c)) })
	}}, nil
}

func (r *rig) answer(s wire.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = s
}

// dropAll closes the cloud's ends of n connections, once they are there.
func (r *rig) dropAll(n int) {
	r.t.Helper()
	r.eventually("connections to drop", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.conns) >= n
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close(errors.New("dropped by the test"))
	}
	r.conns = nil
}

func (r *rig) admitted() []wire.Hello {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]wire.Hello(nil), r.hellos...)
}

// eventually waits for a condition on real sockets.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	const ample = time.Minute // however busy the machine is
	for end := time.Now().Add(ample); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("%s: not within %v", what, ample)
}

// TestLinksShareASession: all links join one session, come back to it when
// they are lost, and begin another when the cloud has forgotten it.
func TestLinksShareASession(t *testing.T) {
	r := newRig(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()

	r.eventually("both links", func() bool { return len(r.admitted()) >= 2 })
	h := r.admitted()
	if h[0].Session != h[1].Session || h[0].Resume {
		t.Errorf("hellos %+v", h)
	}
	r.eventually("a session", func() bool { s, since := r.tunnels.current(); return s != nil && !since.IsZero() })
	first, _ := r.tunnels.current()
	if v := r.tunnels.protocol(); v != wire.VersionMax {
		t.Errorf("the status says protocol %d", v)
	}
	r.dropAll(2)
	// On a busy machine attempts from before the session may still arrive.
	again := func() bool {
		resumed := map[uint16]bool{}
		for _, hello := range r.admitted() {
			if hello.Session != h[0].Session {
				t.Errorf("a lost link asks for %+v", hello)
			}
			if hello.Resume {
				resumed[hello.Link] = true
			}
		}
		return len(resumed) == 2 && r.tunnels.uplinks[0].serves.Load() == 1 && r.tunnels.uplinks[1].serves.Load() == 1
	}
	r.eventually("both links again", again)
	r.answer(wire.StatusNoSession)
	r.dropAll(2)
	r.eventually("the session given up", func() bool { s, _ := r.tunnels.current(); return s != first })
	r.answer(wire.StatusOK)
	r.eventually("another session", func() bool { s, _ := r.tunnels.current(); return s != nil && s != first })
	// An attempt from before may still arrive; it is given up.
	r.eventually("no more of the old session", func() bool {
		last := r.admitted()
		return last[len(last)-1].Session != h[0].Session
	})
}

// TestNoSessionAtTheEnd: a link that connects at the moment in which the edge is
// told to stop makes no session, which nobody would end.
func TestNoSessionAtTheEnd(t *testing.T) {
	r := newRig(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.tunnels.run(ctx)
	if r.tunnels.join(r.tunnels.term, wire.Welcome{}) != nil {
		t.Error("a session was made")
		r.tunnels.cancel(nil)
		r.tunnels.wg.Wait()
	}
}

// TestOtherKeys: a welcome to the present session with other keys than it has ends it. It
// is of a cloud that has been started anew, to whom an attempt from before the session has
// come late.
func TestOtherKeys(t *testing.T) {
	r := newRig(t, 0)
	tm := r.tunnels.term
	s := r.tunnels.join(tm, wire.Welcome{Secret: [32]byte{1}})
	if again := r.tunnels.join(tm, wire.Welcome{Secret: [32]byte{1}, Resumed: true}); s == nil || again != s {
		t.Fatal("a second link does not join the session")
	}
	if late := r.tunnels.join(tm, wire.Welcome{Secret: [32]byte{2}}); late != nil {
		t.Error("a link joins though no record will open")
		r.tunnels.retire(tm)
	}
	r.tunnels.wg.Wait() // the session's end
	if now, hello := r.tunnels.hello(); now == tm || hello.Session == tm.id || hello.Resume {
		t.Errorf("the next hello is %+v", hello)
	}
}

// TestCloudKeepsItsName: metrics of a session that has ended are those of the one before.
func TestCloudKeepsItsName(t *testing.T) {
	r := newRig(t, 0)
	if s := r.tunnels.describe(); s.Peer != "" || s.State != "down" {
		t.Errorf("before the first session: %+v", s)
	}
	r.tunnels.join(r.tunnels.term, wire.Welcome{Name: "vm"})
	r.tunnels.retire(r.tunnels.term)
	r.tunnels.wg.Wait()
	if s := r.tunnels.describe(); s.Peer != "vm" || s.State != "down" {
		t.Errorf("after a session: %+v", s)
	}
}

// TestSilentLinkIsRaced: a link that falls silent gets another connection,
// unless it speaks again within the grace.
func TestSilentLinkIsRaced(t *testing.T) {
	r := newRig(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	// On a busy machine a second attempt may have begun: it is given up.
	r.eventually("the link", func() bool { return r.tunnels.uplinks[0].serves.Load() == 1 })
	settled := func() int {
		before := -1
		r.eventually("the end of other attempts", func() bool {
			was := before
			time.Sleep(silenceGrace)
			before = len(r.admitted())
			return before == was
		})
		return before
	}
	before := settled()
	for took := silenceGrace; took >= silenceGrace; before = settled() {
		// Where the test itself was away for the grace, the link did not speak within it.
		began := time.Now()
		r.tunnels.silent(0, true)
		r.tunnels.silent(0, false)
		took = time.Since(began)
		time.Sleep(silenceGrace + 200*time.Millisecond)
		if n := len(r.admitted()); n != before && took < silenceGrace {
			t.Errorf("%d more connections though the link spoke again", n-before)
		}
	}
	r.tunnels.silent(0, true)
	r.eventually("another connection", func() bool { return len(r.admitted()) > before })
}

// TestLostLinkIsReplaced: a link that speaks again gets another connection all the same
// where the path was dead for so long that no attempt came through; but not for ever.
func TestLostLinkIsReplaced(t *testing.T) {
	r := newRig(t, 1)
	u := r.tunnels.uplinks[0]
	var dead atomic.Bool
	dial := u.dial
	u.dial = func(ctx context.Context, h wire.Hello) (*link.Conn, wire.Welcome, error) {
		if dead.Load() {
			r.attempt.Add(1)
			<-ctx.Done()
			return nil, wire.Welcome{}, ctx.Err()
		}
		return dial(ctx, h)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	r.eventually("the link", func() bool { return u.serves.Load() == 1 })
	lose := func() {
		dead.Store(true)
		before := r.attempt.Load()
		r.eventually("attempts", func() bool { // raceFirm has passed by then
			r.tunnels.silent(0, true) // once more: the session may just have found the link up
			return r.attempt.Load() >= before+3
		})
	}
	r.eventually("another connection", func() bool {
		lose() // once more: if the session found the link up meanwhile, the last race was a young one
		before := len(r.admitted())
		r.tunnels.silent(0, false)
		dead.Store(false)
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && len(r.admitted()) == before; {
			time.Sleep(10 * time.Millisecond)
		}
		return len(r.admitted()) > before
	})
	r.eventually("the end of the old one", func() bool { return u.serves.Load() == 1 })
	lose()
	r.tunnels.silent(0, false)
	r.eventually("the end of the race", func() bool {
		was := r.attempt.Load()
		time.Sleep(2 * raceEager)
		return r.attempt.Load() == was
	})
}

// TestLastError: status says why a link does not connect.
func TestLastError(t *testing.T) {
	r := newRig(t, 1)
	r.answer(wire.StatusBusy)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.tunnels.run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	u := r.tunnels.uplinks[0]
	r.eventually("an error", func() bool { return u.lastError() != "" })
	r.answer(wire.StatusOK)
	r.eventually("the error gone", func() bool { return u.lastError() == "" })
	if r.attempt.Load() < 2 {
		t.Error("one attempt only")
	}
}
