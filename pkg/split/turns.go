package split

import (
	"time"

	"hawser/pkg/guard"
)

// Flows wait here while their server has not answered those that came before
// them (see guard.Gate.Ask): their clients' windows are closed, and nobody else
// knows of them, neither the worker nor the tunnel nor the cloud.

// line is the flows that wait for their turn at one server.
type line struct {
	wards
	moving bool // proceed is at work
}

// enlist makes a keeper one of those whose flows wait at the same servers.
func (g *Gate) enlist(k *keeper) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keepers = append(g.keepers, k)
}

// all returns the keepers.
func (g *Gate) all() []*keeper {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.keepers
}

// proceed has a server asked for those that wait, as far as it may be. Nobody's
// lock is held.
func (g *Gate) proceed(s guard.Server) {
	for _, k := range g.all() {
		k.proceed(s)
	}
}

// dismiss resets those that wait for a server. Nobody's lock is held.
func (g *Gate) dismiss(s guard.Server) {
	for _, k := range g.all() {
		k.dismiss(s)
	}
}

// list makes a flow wait. The caller holds mu.
func (k *keeper) list(w *ward) {
	l := k.waiting[w.server()]
	if l == nil {
		l = &line{wards: wards{by: byServer}}
		k.waiting[w.server()] = l
	}
	l.add(w)
}

// unlist ends a flow that waits; nobody was given it. The caller holds mu.
func (k *keeper) unlist(w *ward) {
	w.left = true
	k.unwait(w)
	k.pending.remove(w)
	k.opts.Gate.refuse(w.ends.Client, w.server(), false) // lets nobody proceed
}

// unwait takes a flow out of its line. The caller holds mu.
func (k *keeper) unwait(w *ward) {
	s := w.server()
	l := k.waiting[s]
	l.remove(w)
	if l.oldest == nil && !l.moving {
		delete(k.waiting, s)
	}
}

// proceed asks one after the other. Who is asked for may fail at once, and that
// leads here again: the first call does it all, however many wait.
func (k *keeper) proceed(s guard.Server) {
	k.mu.Lock()
	l := k.waiting[s]
	if l == nil || l.moving {
		k.mu.Unlock()
		return
	}
	l.moving = true
	for l.oldest != nil && k.opts.Gate.ask(s, time.Now()) {
		w := l.oldest
		l.remove(w)
		k.hire(w)
		k.mu.Unlock()
		if join := k.begin(w, k.fast(&w.ends, w.v6)); join.Flags != 0 {
			k.inject(&join, &w.ends, w.v6)
		}
		k.mu.Lock()
	}
	l.moving = false
	if l.oldest == nil {
		delete(k.waiting, s)
	}
	k.mu.Unlock()
}

// dismiss resets all that wait for a server.
func (k *keeper) dismiss(s guard.Server) {
	for {
		k.mu.Lock()
		l := k.waiting[s]
		if l == nil || l.oldest == nil {
			k.mu.Unlock()
			return
		}
		w := l.oldest
		reset := w.flow.Reset()
		k.remove(w)
		k.mu.Unlock()
		k.count.dismissed.Add(1)
		k.emit(&reset, &w.ends, w.v6)
	}
}

// refuse notes that a flow's server has refused it, or not answered: Conn.Abort
// follows.
func (k *keeper) refuse(w *ward, silent bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.refused, w.silent = true, silent
}

// after follows a flow that has left; wait says that others wait for its server.
func (k *keeper) after(w *ward, wait bool) {
	g, s := k.opts.Gate, w.server()
	dead := w.refused && !w.connected
	if dead && w.silent {
		dead = g.silent(s, time.Now())
	}
	switch {
	case !wait:
	case dead:
		g.dismiss(s)
	default:
		g.proceed(s)
	}
}
