package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"hawser/pkg/box"
	"hawser/pkg/config"
	"hawser/pkg/link"
	"hawser/pkg/quiet"
	"hawser/pkg/stream"
	"hawser/pkg/tunnel"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// sessions keeps one session per edge and decides which connection joins
// which. It implements link.Admitter.
//
// Goroutines, all ended when stop returns: per session runSession, per link
// connection serve.
type sessions struct {
	kinds  scheduler.Kinds
	log    *slog.Logger
	budget *tunnel.Budget
	sink   stream.Sink
	places *tunnel.Places
	ended  func(stream.Tunnel) // told of sessions that have ended
	quiet  *quiet.Log

	mu      sync.Mutex // guards the following
	edges   []config.Client
	byEdge  map[[32]byte]*held
	left    map[[32]byte]time.Time // when an edge's last session has ended
	rivals  map[[32]byte]*rivals   // of the edges that have had a session
	stopped bool
	wg      sync.WaitGroup
}

// held is an edge's current session.
type held struct {
	edge    config.Client
	id      [16]byte
	secret  [32]byte
	session *tunnel.Session
	cancel  context.CancelCauseFunc
	since   time.Time
	from    netip.AddrPort // of its first link
	here    *presence
	version uint16
}

var (
	errStopped  = errors.New("the cloud stops")
	errReplaced = errors.New("the edge has begun a new session")
)

func newSessions(cfg *config.Cloud, budget *tunnel.Budget, log *slog.Logger) *sessions {
	return &sessions{kinds: box.Kinds(cfg.Scheduler), edges: cfg.Edges, log: log, budget: budget, byEdge: map[[32]byte]*held{}, left: map[[32]byte]time.Time{}, rivals: map[[32]byte]*rivals{}, quiet: quiet.New(log)}
}

// Admit implements link.Admitter.
func (s *sessions) Admit(r link.Request) (link.Admission, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edge, ok := s.find(r.Key)
	if !ok {
		return link.Admission{}, fmt.Errorf("%w: no entry of edges has its key %s", link.ErrUnknownEdge, link.KeyText(r.Key))
	}
	if n := wire.LaneOf(int(r.Hello.Link)); n >= wire.MaxLanes {
		return link.Admission{}, &link.Refusal{Status: wire.StatusBadLink, Text: fmt.Sprintf("lane %d of a link, which may have %d", n+1, wire.MaxLanes)}
	}
	if s.stopped {
		return link.Admission{}, &link.Refusal{Status: wire.StatusStopping}
	}
	h := s.byEdge[r.Key]
	known := h != nil && h.id == r.Hello.Session
	switch {
	case known:
	case r.Hello.Resume:
		return link.Admission{}, &link.Refusal{Status: wire.StatusNoSession}
	default:
		if h != nil {
			if refusal := s.rival(h, r); refusal != nil {
				return link.Admission{}, refusal
			}
			h.cancel(errReplaced)
		}
		var err error
		if h, err = s.begin(edge, r.Hello.Session, r.Remote); err != nil {
			return link.Admission{}, err
		}
	}
	return link.Admission{
		Edge: edge.Name, Secret: h.secret, Resumed: known,
		Attach: func(c *link.Conn) { s.attach(h, c) },
	}, nil
}

// rival returns why an edge's session that stands is not to be replaced. The caller holds mu.
func (s *sessions) rival(h *held, r link.Request) *link.Refusal {
	if h.here.gone() {
		return nil
	}
	return s.rivals[r.Key].refuse(time.Since(h.since), h.from, r.Remote)
}

// find returns an edge's entry. The caller holds mu.
func (s *sessions) find(key [32]byte) (config.Client, bool) {
	for _, e := range s.edges {
		if e.Key == key {
			return e, true
		}
	}
	return config.Client{}, false
}

// begin makes the edge's session. The caller holds mu.
func (s *sessions) begin(edge config.Client, id [16]byte, from netip.AddrPort) (*held, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	h := &held{edge: edge, id: id, cancel: cancel, since: time.Now(), from: from, here: newPresence()}
	if s.rivals[edge.Key] == nil {
		s.rivals[edge.Key] = &rivals{}
	}
	if _, err := io.ReadFull(rand.Reader, h.secret[:]); err != nil {
		return nil, err
	}
	h.session = tunnel.New(tunnel.Config{
		Peer: edge.Name, Secret: h.secret[:], Sink: s.sink, Budget: s.budget, Places: s.places, Silent: h.here.hush, Log: s.log,
		Kinds: s.kinds, Total: float64(edge.Limit) / 8, Terms: box.Override(edge.Policies),
	})
	s.byEdge[edge.Key] = h
	s.wg.Go(func() { s.runSession(ctx, h) })
	return h, nil
}

// runSession runs a session to its end.
func (s *sessions) runSession(ctx context.Context, h *held) {
	s.log.Info("session begins", "peer", h.edge.Name)
	err := h.session.Run(ctx)
	s.log.Info("session ends", "peer", h.edge.Name, "reason", err)
	s.mu.Lock()
	if s.byEdge[h.edge.Key] == h {
		delete(s.byEdge, h.edge.Key)
		s.left[h.edge.Key] = time.Now()
	}
	s.mu.Unlock()
	s.ended(h.session)
}

// attach serves a link connection until it ends. One that was admitted before stop
// and comes up after it is closed: nobody would wait for it.
func (s *sessions) attach(h *held, c *link.Conn) {
	info := c.Info()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		c.Close(errStopped)
		return
	}
	h.version = info.Version
	h.here.serve(int(info.Index), 1)
	s.wg.Go(func() {
		defer h.here.serve(int(info.Index), -1)
		// The session closes its connections when it ends, after its goodbye.
		_ = h.session.Serve(context.Background(), tunnel.LinkInfo{
			ID: int(info.Index), Name: info.Link, Transport: string(info.Transport), Congestion: info.Congestion, Remote: info.Remote.String(), Version: info.Version,
		}, box.Carrier(c))
	})
}

// served are the edges that are configured.
func (s *sessions) served() []config.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.edges
}

// stop ends all sessions and returns when they have ended.
func (s *sessions) stop() {
	s.mu.Lock()
	s.stopped = true
	for _, h := range s.byEdge {
		h.cancel(errStopped)
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// of returns an edge's current session, or nil and when its last one has ended, zero if it
// had none; and what boxes with its key were told of late.
func (s *sessions) of(key [32]byte) (h *held, left time.Time, conflict string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conflict = s.rivals[key].conflict()
	if h = s.byEdge[key]; h == nil {
		return nil, s.left[key], conflict
	}
	copied := *h
	return &copied, time.Time{}, conflict
}

// unaccepted logs why links wait.
func (s *sessions) unaccepted(why error) {
	s.quiet.Warn("accept", "links wait: none can be accepted (LimitNOFILE=, ulimit -n)", "reason", why)
}

// failed logs handshakes that failed; strangers cannot fill the log with it. It is no fault
// that an edge asks for a session which is not there: one that was started before this
// cloud begins another, and check asks for none.
func (s *sessions) failed(e *link.StepError) {
	who := *e
	who.Remote = netip.AddrPortFrom(e.Remote.Addr(), 0)
	if refusal := new(link.Refusal); errors.As(e, &refusal) && refusal.Status == wire.StatusNoSession {
		s.quiet.Info(who.Error(), "edge asks for a session that is not there", "reason", e)
		return
	}
	s.quiet.Warn(who.Error(), "connection failed", "reason", e)
}
