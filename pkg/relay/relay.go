// Package relay is the event-driven core of both agents: it moves bytes
// between a flow's plain party (the client at the edge, the server at the
// cloud) and its sealed stream in the tunnel, through the worker's crypto card.
//
// A Worker owns its flows, its poller and its card channel, and shares nothing
// with other workers but the sessions' keyrings. Everything reaches it through
// a mailbox: batches of events from tunnel sessions, new client connections,
// and readiness of parties. Per wake-up it takes the mailbox, runs every flow
// that can move until it blocks or has used its budget, and posts each
// session's commands in batches. Sessions take turns (rota), and where there are
// several a round ends early, so that none waits for another's flows. Machine holds
// the rules by which a flow moves; seal.go and open.go do what it says.
//
// A round of the worker belongs to whoever holds its turn. That is Run's goroutine but
// while it sleeps: then whoever brings a small message may do the round in its place
// (Leave, or Attend, and Settle), because to wake a goroutine takes longer than the
// message.
//
// Memory: a flow at rest holds no buffer. In motion it holds at most Window
// blocks per direction, and the sealed bytes that its credit allows the peer
// to have sent.
//
// Goroutines: Worker.Run runs in its caller's; it starts one short-lived one
// (Worker.wake, when ctx ends) and returns after that has ended. All other
// exported methods may be called from any goroutine.
//
// # Files
//
//   - relay: interfaces and options; worker: the loop; mailbox: what others leave; rota: whose
//     turn it is
//   - flow: a flow's life; machine: the rules; seal, open: do what they say, up and down
//   - session: a worker's flows of one session; queue, list: containers
//   - trickle: who reads slowly; status: counters
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// Poller parks a worker. It also delivers the readiness of those parties whose
// Watch function it calls.
type Poller interface {
	// Wait returns when Wake was called since the last Wait, after it has
	// reported readiness to a party or the card's descriptor became readable,
	// or after timeout; at once with timeout 0, never by time when negative.
	Wait(timeout time.Duration) error
	// Rest is Wait for a caller who holds turn: others may have it while there
	// is nothing to report.
	Rest(turn sync.Locker, timeout time.Duration) error
	// Wake makes the current or the next Wait return. Any goroutine may call
	// it, a Watch function within Wait too.
	Wake()
}

// Egress decides whether an edge may connect to a server now. It is shared by
// the workers.
type Egress interface {
	// Ask returns stream.CodeNone, after which End follows once, or the code to
	// refuse the flow with.
	Ask(edge string, server netip.AddrPort, now time.Time) stream.Code
	// End says how the attempt ended: CodeNone when the server is connected.
	End(edge string, server netip.AddrPort, code stream.Code, now time.Time)
}

// Options says what a Worker works with. Poller, Card and Ring are required.
type Options struct {
	Index  int // the worker's number, as stream.Sink uses it
	Poller Poller
	// Card is this worker's channel; Run closes it. If it has a descriptor,
	// Poller must watch that for edges.
	Card card.Channel
	// Ring finds the keyring of a session; card.Rings.Get does.
	Ring func(stream.Tunnel) (*card.Keyring, error)
	// Dial starts a connection to dst on behalf of an edge's client src, and does not
	// block. Cloud only: without it, flows that the peer opens are denied.
	Dial func(dst, src netip.AddrPort, edge string) (party.Conn, error)
	// Terms says how a client's connection shares the links with others; nil
	// means the default terms. Edge only.
	Terms func(client netip.Addr, server netip.AddrPort) wire.Terms
	// Egress is asked before each Dial; nil lets all pass.
	Egress Egress
	// Allow is the egress check that comes before Dial; nil allows all.
	Allow func(dst netip.AddrPort) bool

	// Beat is called with the time whenever the worker is at work; nil: nobody is
	// interested.
	Beat func(now time.Time)

	Window int          // blocks in flight per direction of a flow, 1 to 255; 0 is DefaultWindow
	Budget int          // bytes a flow may move before others have their turn; 0 is DefaultBudget
	Flows  int          // most flows at a time; 0 is DefaultFlows
	Plain  bool         // never compress
	Log    *slog.Logger // nil logs nothing
}

// Defaults of Options.
const (
	// DefaultWindow fills what a party takes in one write, a frame of 64 KB.
	// Before an asynchronous card a single block would leave card and worker
	// waiting for each other in turn; more than four gain nothing there either
	// (docs/cards.md has the figures).
	DefaultWindow = 4
	DefaultBudget = 256 << 10
	DefaultFlows  = 1 << 17
)

const (
	roundMost = 256 << 10 // bytes that flows of several sessions move in a round of the worker, but for the last; a twentieth more CPU than long ones

	attempts = 3       // that a record has before its flow is reset
	batch    = 64      // commands after which a session is told at once
	minRoom  = 1 << 10 // sealed bytes of credit below which a record is not worth it; the least window that a session gives
)

// check fills in defaults and returns the first thing that is missing.
func (o Options) check() (Options, error) {
	switch {
	case o.Poller == nil:
		return o, errors.New("relay: no poller")
	case o.Card == nil:
		return o, errors.New("relay: no card")
	case o.Ring == nil:
		return o, errors.New("relay: no keyrings")
	case o.Window < 0 || o.Window > 255:
		return o, fmt.Errorf("relay: window of %d blocks, may be 1 to 255", o.Window)
	case o.Budget < 0 || o.Flows < 0:
		return o, fmt.Errorf("relay: negative budget %d or flows %d", o.Budget, o.Flows)
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.Budget == 0 {
		o.Budget = DefaultBudget
	}
	if o.Flows == 0 {
		o.Flows = DefaultFlows
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
