// Package egress keeps a cloud from being a weapon: it bounds how often each
// edge connects to servers and how often each server is connected to, how many
// attempts are open at a time, and remembers for a moment who has refused, so
// that a scan behind an edge does not become a flood on others.
//
// The package does no I/O, reads no clock and starts no goroutines.
package egress

import (
	"math"
	"net/netip"
	"time"

	"hawser/pkg/stream"
)

// Limits are a Limiter's bounds. Zero fields do not bound.
type Limits struct {
	EdgeRate, ServerRate int           // connects per second: of an edge, to a server's address
	EdgeOpen, ServerOpen int           // attempts under way: of an edge, to a server's address
	Memory               time.Duration // after a first refusal; it doubles with each in a row
	Shared               bool          // several edges share servers: none has more than its fair part of what a server is asked
}

const (
	// burst is how many seconds' worth of connects may come at once.
	burst = 2
	// fairPart is how many times what is left of a server one of several edges may have
	// (package places): alone three quarters, so that another finds some at once.
	fairPart = 3
	// longest bounds how long a refusal is remembered, in Limits.Memory.
	longest = 8
	// most bounds each of the tables. Beyond it the new is not remembered:
	// refusals are a kindness, and a server without a record is one that has
	// not been asked often.
	most = 1 << 16
)

// Limiter decides about each attempt. It is not safe for concurrent use.
type Limiter struct {
	limits  Limits
	edges   map[string]*party
	servers map[netip.Addr]*party
	refused map[netip.AddrPort]refusal
	swept   time.Time
	none    part // where edges share nothing
	Counts  Counts
}

// Counts are what was not dialled, since the Limiter was made.
type Counts struct {
	Edge     uint64 // because of the edge's rate
	Server   uint64 // because of the server's rate
	Open     uint64 // because too many attempts were under way
	Recalled uint64 // because the server had just refused
}

// party is an edge's or a server's account.
type party struct {
	tokens float64
	at     time.Time // of tokens
	open   int
	by     map[string]*part // a server's, by edge, where edges share it
}

// part is what an edge has of a server.
type part struct {
	took float64 // lately: what is burst seconds old counts 1/e
	at   time.Time
	open int
}

// refusal is what a server has said.
type refusal struct {
	code  stream.Code
	until time.Time
	again time.Duration // how long the next one counts
}

// New returns a Limiter that has seen nothing.
func New(l Limits) *Limiter {
	return &Limiter{limits: l, edges: map[string]*party{}, servers: map[netip.Addr]*party{}, refused: map[netip.AddrPort]refusal{}}
}

// Ask says whether an edge may connect to a server now: stream.CodeNone, after
// which End must follow once; or the code to refuse its flow with.
func (l *Limiter) Ask(edge string, server netip.AddrPort, now time.Time) stream.Code {
	l.sweep(now)
	if r, ok := l.refused[server]; ok && now.Before(r.until) {
		l.Counts.Recalled++
		return r.code
	}
	e, s := account(l.edges, edge, l.limits.EdgeRate, now), account(l.servers, server.Addr(), l.limits.ServerRate, now)
	own := l.part(s, edge, now)
	switch {
	case over(e.open, l.limits.EdgeOpen) || over(s.open, l.limits.ServerOpen) ||
		l.limits.ServerOpen > 0 && own.open > fairPart*(l.limits.ServerOpen-s.open):
		l.Counts.Open++
	case l.limits.EdgeRate > 0 && e.tokens < 1:
		l.Counts.Edge++
	case l.limits.ServerRate > 0 && (s.tokens < 1 || own.took > fairPart*s.tokens):
		l.Counts.Server++
	default:
		e.tokens--
		s.tokens--
		e.open++
		s.open++
		own.took++
		own.open++
		return stream.CodeNone
	}
	return stream.CodeResources
}

// part returns what an edge has of a server, brought up to now.
func (l *Limiter) part(s *party, edge string, now time.Time) *part {
	if !l.limits.Shared {
		l.none = part{}
		return &l.none
	}
	p := s.by[edge]
	if p == nil {
		if s.by == nil {
			s.by = map[string]*part{}
		}
		p = &part{}
		s.by[edge] = p
	}
	p.took *= math.Exp(-now.Sub(p.at).Seconds() / burst)
	p.at = now
	return p
}

// End notes how an attempt ended: CodeNone when the server is connected.
func (l *Limiter) End(edge string, server netip.AddrPort, code stream.Code, now time.Time) {
	// An attempt whose account was not kept is not counted in the one there is by now.
	if e := l.edges[edge]; e != nil && e.open > 0 {
		e.open--
	}
	if s := l.servers[server.Addr()]; s != nil && s.open > 0 {
		s.open--
		if p := s.by[edge]; p != nil && p.open > 0 {
			p.open--
		}
	}
	switch code {
	case stream.CodeNone:
		delete(l.refused, server)
	case stream.CodeRefused, stream.CodeUnreachable:
		l.remember(server, code, now)
	}
}

// remember keeps a refusal, longer than the last one. While that is remembered nobody asks:
// what is refused then was under way together with it, and is the same refusal.
func (l *Limiter) remember(server netip.AddrPort, code stream.Code, now time.Time) {
	r, known := l.refused[server]
	if l.limits.Memory <= 0 || !known && len(l.refused) >= most || known && now.Before(r.until) {
		return
	}
	if !known {
		r.again = l.limits.Memory
	}
	r.code, r.until = code, now.Add(r.again)
	r.again = min(2*r.again, longest*l.limits.Memory)
	l.refused[server] = r
}

// sweep forgets, once a second, accounts that are as good as new and refusals
// that ended long enough ago for a next one to be a first.
func (l *Limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	for k, p := range l.edges {
		if p.open == 0 && now.Sub(p.at) > burst*time.Second {
			delete(l.edges, k)
		}
	}
	for k, p := range l.servers {
		if p.open == 0 && now.Sub(p.at) > burst*time.Second {
			delete(l.servers, k)
		}
		for edge, own := range p.by {
			if own.open == 0 && now.Sub(own.at) > longest*burst*time.Second {
				delete(p.by, edge)
			}
		}
	}
	for k, r := range l.refused {
		if now.Sub(r.until) > longest*l.limits.Memory {
			delete(l.refused, k)
		}
	}
}

// account returns a party's account, filled up to now. A table that is full of
// busy parties gives a new one an account that is not kept.
func account[K comparable](table map[K]*party, k K, rate int, now time.Time) *party {
	p := table[k]
	if p == nil {
		p = &party{tokens: burst * float64(rate), at: now}
		if len(table) < most {
			table[k] = p
		}
		return p
	}
	p.tokens = min(p.tokens+float64(rate)*now.Sub(p.at).Seconds(), burst*float64(rate))
	p.at = now
	return p
}

// over says that n has reached a bound that there is.
func over(n, bound int) bool { return bound > 0 && n >= bound }
