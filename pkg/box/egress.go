package box

import (
	"net/netip"
	"sync"
	"time"

	"hawser/pkg/config"
	"hawser/pkg/egress"
	"hawser/pkg/stream"
)

// limiter shares the egress limits between the workers.
type limiter struct {
	mu sync.Mutex
	l  *egress.Limiter
}

func newLimiter(e config.EgressLimits, shared bool) *limiter {
	return &limiter{l: egress.New(egress.Limits{
		EdgeRate: e.EdgeRate, ServerRate: e.ServerRate, EdgeOpen: e.EdgeOpen, ServerOpen: e.ServerOpen,
		Memory: time.Duration(e.RefusalSeconds) * time.Second, Shared: shared,
	})}
}

// Ask implements relay.Egress.
func (l *limiter) Ask(edge string, server netip.AddrPort, now time.Time) stream.Code {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.l.Ask(edge, server, now)
}

// End implements relay.Egress.
func (l *limiter) End(edge string, server netip.AddrPort, code stream.Code, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.l.End(edge, server, code, now)
}

// addEgress adds what was not dialled.
func (l *limiter) add(c map[string]uint64) {
	l.mu.Lock()
	n := l.l.Counts
	l.mu.Unlock()
	c["egress_edge_rate"] += n.Edge
	c["egress_server_rate"] += n.Server
	c["egress_half_open"] += n.Open
	c["egress_recalled"] += n.Recalled
}
