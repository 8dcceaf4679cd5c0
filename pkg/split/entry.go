package split

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
)

// Flows wait here for their handshake with the stack when their servers have
// answered at nearly the same time. Their clients' windows are closed until then,
// so nothing that they send is lost by it.

// enter returns the SYN that gives a flow to the stack, none if it has to wait. The
// caller holds mu.
func (k *keeper) enter(w *ward) (join guard.Segment) {
	if w.strict || !k.stack.door.crowded() {
		return w.flow.Join(k.opts.Gate.limits().FirstFlight)
	}
	w.queued = true
	k.entries.add(w)
	return join
}

// enterNext gives the stack flows that wait, as many as it has room for. It is called
// when a handshake has ended and has left the door, so that nobody waits for nobody.
// No lock may be held.
func (k *keeper) enterNext() {
	for {
		k.mu.Lock()
		w := k.entries.oldest
		if w == nil || k.stack.door.crowded() {
			k.mu.Unlock()
			return
		}
		k.unqueue(w)
		join := w.flow.Join(k.opts.Gate.limits().FirstFlight)
		k.mu.Unlock()
		k.inject(&join, &w.ends, w.v6)
	}
}

// unqueue takes a flow out of those that wait; one that does not is left alone. The
// caller holds mu.
func (k *keeper) unqueue(w *ward) {
	if w.queued {
		w.queued = false
		k.entries.remove(w)
	}
}

// quick says that the guard is the client in a handshake of the stack's: in strict
// mode the client itself is. least is what the stack's receive buffer must have, in
// bytes: the client may have sent a first flight, and half of a buffer is its window.
func (k *keeper) quick(id stack.TransportEndpointID) (quick bool, least int) {
	if k == nil {
		return false, 0
	}
	w := k.wardOf(id)
	if w == nil || w.strict {
		return false, 0
	}
	if w.flow.Offered() {
		least = 2 * k.opts.Gate.limits().FirstFlight
	}
	return true, least
}
