package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/config"
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

func testSessions() *sessions {
	cfg := &config.Cloud{Edges: []config.Client{{Name: "train", Key: [32]byte{1}}, {Name: "bus", Key: [32]byte{2}}}}
	s := newSessions(cfg, tunnel.NewBudget(1<<20), slog.New(slog.DiscardHandler))
	s.sink, s.ended = nowhere{}, func(stream.Tunnel) {}
	return s
}

func hello(key, session byte, resume bool) link.Request {
	return link.Request{Key: [32]byte{key}, Hello: wire.Hello{Session: [16]byte{session}, Resume: resume, Name: "lte"}}
}

// TestAdmit follows edges through what they may ask for (PROTOCOL.md section 3).
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		defer s.stop()
		ended := make(chan stream.Tunnel, 3)
		s.ended = func(st stream.Tunnel) { ended <- st }
		first, err := s.Admit(hello(1, 7, false))
		if err != nil || first.Resumed || first.Edge != "train" || first.Secret == [32]byte{} {
			t.Fatalf("a new session: %+v, %v", first, err)
		}
		second, err := s.Admit(hello(1, 7, false))
		if err != nil || !second.Resumed || second.Secret != first.Secret {
			t.Errorf("the second link of a new session: %+v, %v", second, err)
		}
		if again, err := s.Admit(hello(1, 7, true)); err != nil || again.Secret != first.Secret {
			t.Errorf("a link that comes back: %v", err)
		}
		other, err := s.Admit(hello(2, 7, false))
		if err != nil || other.Resumed || other.Secret == first.Secret {
			t.Errorf("another edge with the same session ID must get its own: %+v, %v", other, err)
		}
		wantStatus(t, s, hello(1, 8, true), wire.StatusNoSession)
		if _, err := s.Admit(hello(3, 7, false)); !errors.Is(err, link.ErrUnknownEdge) {
			t.Errorf("an edge that is not configured: %v", err)
		}
		lane := hello(1, 7, true)
		lane.Hello.Link = wire.LinkIndex(0, wire.MaxLanes-1)
		if _, err := s.Admit(lane); err != nil {
			t.Errorf("the last lane: %v", err)
		}
		lane.Hello.Link = wire.LinkIndex(0, wire.MaxLanes)
		wantStatus(t, s, lane, wire.StatusBadLink)
		if len(ended) != 0 {
			t.Errorf("%d sessions have ended", len(ended))
		}
		if fresh, err := s.Admit(hello(1, 9, false)); err != nil || fresh.Resumed || fresh.Secret == first.Secret {
			t.Errorf("an edge that was started anew: %+v, %v", fresh, err)
		}
		wantStatus(t, s, hello(1, 7, true), wire.StatusNoSession)
		synctest.Wait()
		if n := len(s.byEdge); n != 2 {
			t.Errorf("%d sessions, want one per edge", n)
		}
		if len(ended) != 1 {
			t.Errorf("%d sessions have ended, want the one that was replaced", len(ended))
		}
	})
}

// TestSameKeyTwice: two boxes with the same key do not end each other's sessions
// a hundred times a second, and are told what is wrong. A box that is started
// anew, however often, has its session within seconds.
func TestSameKeyTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		defer s.stop()
		begun, refused := 0, ""
		for n := range 1200 { // for two minutes
			_, err := s.Admit(hello(1, byte(n), false))
			var refusal *link.Refusal
			switch {
			case err == nil:
				begun++
			case errors.As(err, &refusal) && refusal.Status == wire.StatusBusy:
				refused = refusal.Error()
			default:
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if begun < 10 || begun > 20 || !strings.Contains(refused, "the same key") || strings.Contains(refused, "\n") {
			t.Errorf("%d sessions in two minutes, refused with %q", begun, refused)
		}
		if got := s.status()[0].Conflict; got == "" || !strings.Contains(refused, got) {
			t.Errorf("status says %q, the boxes are told %q", got, refused)
		}
		if _, err := s.Admit(hello(2, 1, false)); err != nil {
			t.Errorf("another edge: %v", err)
		}
		time.Sleep(rivalSettled)
		if got := s.status()[0].Conflict; got != "" {
			t.Errorf("status still says %q", got)
		}
		for n := range rivalMost {
			if _, err := s.Admit(hello(1, byte(200+n), false)); err != nil {
				t.Errorf("start %d of a box whose session has stood: %v", n, err)
			}
		}
	})
}

// TestSameKeyOnce: a box that is killed and started again and again has its session at once
// each time, since the one before has no link that speaks; and no other box is blamed.
func TestSameKeyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		defer s.stop()
		for n := range 3 * rivalMost {
			if _, err := s.Admit(hello(1, byte(n), false)); err != nil {
				t.Fatalf("start %d: %v", n, err)
			}
			here := s.byEdge[[32]byte{1}].here
			here.serve(0, 1)
			here.serve(1, 1)
			time.Sleep(2 * time.Second)
			here.serve(0, -1)  // the kernel has closed it
			here.hush(1, true) // as by QUIC: nobody says that it has gone
		}
		if got := s.status()[0].Conflict; got != "" {
			t.Errorf("status says %q", got)
		}
	})
}

// TestPresence follows an edge's links.
func TestPresence(t *testing.T) {
	p := newPresence()
	for i, step := range []struct {
		do   func()
		gone bool
	}{
		{func() {}, false}, // its first link is about to stand
		{func() { p.serve(0, 1) }, false},
		{func() { p.serve(0, 1); p.serve(0, -1) }, false}, // another connection took over
		{func() { p.serve(0, -1) }, true},
		{func() { p.serve(1, 1) }, false},
		{func() { p.hush(1, true) }, true},
		{func() { p.hush(1, false) }, false},
	} {
		if step.do(); p.gone() != step.gone {
			t.Errorf("step %d: gone %v", i, p.gone())
		}
	}
}

// TestMissingEdges: status has every edge that is configured, and since when it is gone.
func TestMissingEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		defer s.stop()
		expect := func(what string, since time.Time) {
			t.Helper()
			got := s.status()
			if len(got) != 2 || got[0].Peer != "train" || got[1].Peer != "bus" || got[0].Key == got[1].Key {
				t.Fatalf("%s: %+v", what, got)
			}
			if got[0].State != "down" || !got[0].Since.Equal(since) || !got[1].Since.IsZero() {
				t.Errorf("%s: %s since %v, want %v; the other since %v", what, got[0].State, got[0].Since, since, got[1].Since)
			}
		}
		expect("never connected", time.Time{})
		if _, err := s.Admit(hello(1, 7, false)); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		expect("without a link", begun)
		time.Sleep(time.Minute)
		s.byEdge[[32]byte{1}].cancel(errors.New("ended by the test"))
		synctest.Wait()
		ended := time.Now()
		time.Sleep(time.Hour)
		expect("gone", ended)
	})
}

// TestSessionExpires: a session without links ends and is no longer known.
func TestSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		defer s.stop()
		if _, err := s.Admit(hello(1, 7, false)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tunnel.DefaultLinger + 5*time.Second)
		wantStatus(t, s, hello(1, 7, true), wire.StatusNoSession)
	})
}

func TestAdmitWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSessions()
		s.stop()
		wantStatus(t, s, hello(1, 7, false), wire.StatusStopping)
	})
}

func wantStatus(t *testing.T, s *sessions, r link.Request, want wire.Status) {
	t.Helper()
	_, err := s.Admit(r)
	var refusal *link.Refusal
	if !errors.As(err, &refusal) || refusal.Status != want {
		t.Errorf("session %d: %v, want %v", r.Hello.Session[0], err, want)
	}
}

// knock is a failure of whoever is at an address, in the words of its link.
func knock(addr string, port int) *link.StepError {
	return &link.StepError{Transport: link.TCP, Remote: netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)), Step: link.StepTLS, Err: link.ErrPeerKey}
}

// TestQuietOfOneParty: what an edge whose key is wrong causes all the time is said once a
// minute, and leaves room for what others cause.
func TestQuietOfOneParty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := newSessions(&config.Cloud{}, tunnel.NewBudget(0), slog.New(slog.NewTextHandler(&out, nil)))
		for i := range 240 {
			s.failed(knock("192.0.2.1", i))
			time.Sleep(500 * time.Millisecond)
		}
		if n := strings.Count(out.String(), "192.0.2.1"); n != 2 {
			t.Errorf("%d lines of one party in two minutes:\n%s", n, out.String())
		}
		s.failed(knock("192.0.2.2", 1))
		if !strings.Contains(out.String(), "192.0.2.2") {
			t.Error("another party is not heard")
		}
	})
}

// TestSessionGone: what check asks for, and an edge that this cloud no longer knows, is no
// warning.
func TestSessionGone(t *testing.T) {
	var out bytes.Buffer
	s := newSessions(&config.Cloud{}, tunnel.NewBudget(0), slog.New(slog.NewTextHandler(&out, nil)))
	e := knock("192.0.2.1", 1)
	for status, level := range map[wire.Status]string{wire.StatusNoSession: "level=INFO", wire.StatusVersion: "level=WARN"} {
		out.Reset()
		e.Err = &link.Refusal{Status: status}
		if s.failed(e); !strings.Contains(out.String(), level) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%v: %q, want %s", status, out.String(), level)
		}
	}
}
