package split

import (
	"sync"
	"sync/atomic"
	"time"

	"hawser/pkg/guard"
)

// Gate is the guard's bounds and its choice of mode, shared by the stacks of
// one agent. Any goroutine may call its methods.
type Gate struct {
	mu   sync.Mutex
	gate *guard.Gate
	l    guard.Limits // as at the start

	cookies *cookies
	floods  floods
	poor    *peers
	unused  unused
	keepers []*keeper // of all stacks, before they run
}

// NewGate returns a gate; m is the mode where no policy says another.
func NewGate(m guard.Mode, l guard.Limits) *Gate {
	g := guard.NewGate(m, l)
	return &Gate{gate: g, l: g.Limits(), cookies: newCookies(), poor: newPeers(), unused: newUnused(g.Limits().Unused), floods: floods{rise: make(chan struct{}, 1)}}
}

// Status returns the figures as they stand.
func (g *Gate) Status() guard.GateStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Status(time.Now())
}

// Change has other bounds be in force, and another mode where no policy says one. What a
// first flight may have, and how many flows may be pending and unused, stays.
func (g *Gate) Change(m guard.Mode, l guard.Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.Pending, l.Unused, l.FirstFlight = g.l.Pending, g.l.Unused, g.l.FirstFlight
	g.gate.Change(m, l)
}

func (g *Gate) limits() *guard.Limits { return &g.l }

func (g *Gate) mode() guard.Mode {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Default()
}

func (g *Gate) resolve(m guard.Mode, v6 bool, now time.Time) guard.Mode {
	if m != guard.Auto {
		return m
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Resolve(m, v6, now)
}

func (g *Gate) admit(client [16]byte, s guard.Server, now time.Time) guard.Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Admit(client, s, now)
}

func (g *Gate) ask(s guard.Server, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Ask(s, now)
}

func (g *Gate) silent(s guard.Server, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Silent(s, now)
}

// connected turns a pending flow, whose first flight was n bytes, into one
// that is not. After true, proceed is to follow.
func (g *Gate) connected(client [16]byte, s guard.Server, n int) (wait bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate.Give(n)
	return g.gate.Connected(client, s, time.Now())
}

// refuse ends a pending flow. After true, proceed is to follow.
func (g *Gate) refuse(client [16]byte, s guard.Server, asked bool) (wait bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Refused(client, s, asked)
}

func (g *Gate) closed(client [16]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate.Closed(client)
}

func (g *Gate) take(n int, s guard.Server, now time.Time) bool {
	if n == 0 {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Take(n, s, now)
}

func (g *Gate) room(s guard.Server, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate.Room(s, now)
}

func (g *Gate) give(n int) {
	if n == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate.Give(n)
}

// guardCounters are the guard's own figures.
type guardCounters struct {
	syns, badSYNs, answers, again atomic.Uint64
	admitted, abandoned, replaced atomic.Uint64
	refused                       [guard.Verdicts]atomic.Uint64
	forged, strays, denied        atomic.Uint64
	doubted                       atomic.Uint64
	probes, discarded, excess     atomic.Uint64
	misjoined, displaced          atomic.Uint64
	waited, dismissed, unused     atomic.Uint64
}

// GuardStats are the guard's figures since the stack was made.
type GuardStats struct {
	SYNs      uint64 // received
	BadSYNs   uint64 // of them dropped: absurd options, flags or lengths
	Answers   uint64 // SYN-ACKs with a cookie
	Again     uint64 // of them sent once more because no ACK came
	Admitted  uint64 // valid ACKs (strict: SYNs) that have made a flow
	Abandoned uint64 // flows whose client gave up before the server was there
	Replaced  uint64 // flows whose client has begun anew between the same ends
	Crowded   uint64 // valid ACKs without a place: all were taken, or what of them the server may have
	Greedy    uint64 // valid ACKs without a place: the client had its share, or its bound of open flows
	Waited    uint64 // flows whose server was not asked at once: it had not answered those before
	Silent    uint64 // clients reset because their server was asked for others in vain
	Displaced uint64 // pending flows reset because all places were taken and their servers had not answered for long
	Unused    uint64 // connections reset because there were too many on which nobody had sent a byte
	Forged    uint64 // segments that belong to no flow and bring no valid cookie
	Strays    uint64 // resets and the like of no flow
	Denied    uint64 // resets that the guard answered with
	Doubted   uint64 // clients' resets that were asked back about, as their number was not the one expected
	Probes    uint64 // window probes and early data answered while the server was asked
	Discarded uint64 // bytes of payload not taken
	Excess    uint64 // segments beyond the bounds of first flights
	Misjoined uint64 // handshakes with netstack that failed
}

// guardStats returns the present figures.
func (k *keeper) stats() GuardStats {
	c := &k.count
	return GuardStats{
		SYNs: c.syns.Load(), BadSYNs: c.badSYNs.Load(), Answers: c.answers.Load(), Again: c.again.Load(),
		Admitted: c.admitted.Load(), Abandoned: c.abandoned.Load(), Replaced: c.replaced.Load(),
		Crowded: c.refused[guard.TooMany].Load() + c.refused[guard.TooManyServer].Load(),
		Greedy:  c.refused[guard.TooManyClient].Load() + c.refused[guard.TooManyOpen].Load(),
		Forged:  c.forged.Load(), Strays: c.strays.Load(), Denied: c.denied.Load(), Doubted: c.doubted.Load(),
		Probes: c.probes.Load(), Discarded: c.discarded.Load(), Excess: c.excess.Load(),
		Misjoined: c.misjoined.Load(), Displaced: c.displaced.Load(), Waited: c.waited.Load(), Unused: c.unused.Load(),
		Silent: c.dismissed.Load() + c.refused[guard.SilentServer].Load(),
	}
}
