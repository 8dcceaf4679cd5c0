package link

import (
	"context"
	"sync"

	"hawser/pkg/places"
)

// What comes by QUIC behind a gap waits in the cloud's memory, up to the connection's window, and
// an edge has as many connections as it likes. A window begins small (firstWindows) and grows as
// it is read fast: of several edges each has its fair part of what all may have grown by, so that
// one with a fault, or bad intentions, does not take the memory of all.

// aheadFree is how many connections of an edge have the first of their windows besides: eight
// uplinks of eight lanes.
const aheadFree = 64

// ahead is what edges may send ahead of what can be read. A nil ahead bounds nothing. Concurrent
// use is safe.
type ahead struct {
	most int // bytes, of all

	mu    sync.Mutex
	taken int
	edges map[[32]byte]*sharer
	conns map[any]*holding // by the library's connection
}

// sharer is an edge.
type sharer struct{ conns, bytes int }

// holding is a connection's.
type holding struct {
	edge  [32]byte
	of    *sharer
	bytes int
}

// newAhead returns what may be of most bytes; nil for 0.
func newAhead(most int) *ahead {
	if most == 0 {
		return nil
	}
	return &ahead{most: most, edges: map[[32]byte]*sharer{}, conns: map[any]*holding{}}
}

// enter takes in an edge's connection, whose window is counted from then on; false: it may not
// have one more. Call leave when that has ended.
func (a *ahead) enter(conn any, edge [32]byte) bool {
	if a == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.edges[edge]
	if of == nil {
		of = &sharer{}
		a.edges[edge] = of
	}
	h := &holding{edge: edge, of: of}
	if of.conns >= aheadFree && !a.take(h, quicFirst+quicFirstUrgent) {
		return false
	}
	of.conns++
	a.conns[conn] = h
	return true
}

// grow asks for n bytes more of a connection's window. A stranger's does not grow.
func (a *ahead) grow(conn any, n uint64) bool {
	if a == nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.conns[conn]
	return h != nil && a.take(h, int(min(n, quicWindow+quicUrgentWindow)))
}

// take gives n bytes to a connection if its edge may have them. The caller holds mu.
func (a *ahead) take(h *holding, n int) bool {
	if !places.Fair(h.of.bytes+n-1, a.most-a.taken-n) {
		return false
	}
	h.bytes += n
	h.of.bytes += n
	a.taken += n
	return true
}

// leave gives back what a connection had.
func (a *ahead) leave(conn any) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.conns[conn]
	if h == nil {
		return
	}
	delete(a.conns, conn)
	a.taken -= h.bytes
	h.of.bytes -= h.bytes
	if h.of.conns--; h.of.conns == 0 {
		delete(a.edges, h.edge)
	}
}

// share has the connection be one of its edge's until it ends; false: the edge has no more.
func (p *quicPipe) share(edges *ahead, edge [32]byte) bool {
	if !edges.enter(p.conn, edge) {
		return false
	}
	context.AfterFunc(p.conn.Context(), func() { edges.leave(p.conn) })
	return true
}
