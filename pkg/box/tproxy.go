package box

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"hawser/netns"
	"hawser/pkg/card"
	"hawser/pkg/relay"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
)

// door is where one worker takes clients' connections without a hub: a
// transparent listener per family. Other workers listen on the same addresses.
type door struct {
	worker    *relay.Worker
	session   func() stream.Tunnel
	listeners []*sock.Listener

	accepted, refused atomic.Uint64
}

// openDoor makes worker i listen. The first one lets the kernel choose ports.
func (w *Workers) openDoor(i int, poller *sock.Poller) error {
	d := &door{worker: w.workers[i], session: w.opts.Session}
	for f, addr := range w.opts.Sockets {
		at := netip.AddrPortFrom(addr, 0)
		if i > 0 {
			at = w.doors[0].listeners[f].Addr()
		}
		l, err := sock.ListenTransparent(poller, at, netns.BypassMark, d.take)
		if err != nil {
			d.close()
			return fmt.Errorf("worker %d: transparent socket: %w", i, err)
		}
		d.listeners = append(d.listeners, l)
	}
	w.doors = append(w.doors, d)
	return nil
}

// take gives a client's connection to the worker. Who connects to the listener
// itself, which only this host can, wants no server.
func (d *door) take(c *sock.Conn) {
	dst := c.Local()
	t := d.session()
	if t == nil || !dst.IsValid() || dst.Addr().IsLoopback() {
		d.refused.Add(1)
		c.Abort()
		return
	}
	d.accepted.Add(1)
	d.worker.Accept(c, dst, c.Remote(), t)
}

// close stops listening; connections that the worker has not taken are reset.
func (d *door) close() {
	for _, l := range d.listeners {
		l.Close()
	}
}

// closeDoor comes when worker i has ended: it alone may use its listeners.
func (w *Workers) closeDoor(i int) {
	if w.opts.Detach != nil {
		w.opts.Detach(i)
	}
	if i < len(w.doors) {
		w.doors[i].close()
	}
}

// Sockets are the addresses of the transparent listeners, one per family; nil
// where there is a hub.
func (w *Workers) Sockets() []netip.AddrPort {
	if len(w.doors) == 0 {
		return nil
	}
	var found []netip.AddrPort
	for _, l := range w.doors[0].listeners {
		found = append(found, l.Addr())
	}
	return found
}

// intercept says how clients' connections are taken, "" where none are.
func (w *Workers) intercept() string {
	switch {
	case w.opts.Role == card.Cloud:
		return ""
	case len(w.doors) > 0:
		return netns.InterceptTPROXY
	}
	return netns.InterceptHub
}

// spareFiles are the descriptors that parties leave to everything else: links,
// which must be able to connect again, control clients, and what the runtime
// opens.
const spareFiles = 1024

// flowLimit is the most flows that a worker may have, 0 for the relay's
// default. A party that is a kernel socket takes a descriptor; the limit keeps
// a crowd of them from taking those of the links.
func (w *Workers) flowLimit() (int, error) {
	if w.opts.Host != nil {
		return 0, nil
	}
	sockets := uint64(1) // of a flow
	if w.opts.Attach != nil {
		sockets = 2
	}
	files, err := sock.RaiseFileLimit(sockets*uint64(w.opts.Count)*relay.DefaultFlows + spareFiles)
	if err != nil {
		return 0, err
	}
	flows := flowsWithin(files/sockets, w.opts.Count)
	if flows*w.opts.Count < relay.DefaultFlows {
		w.opts.Log.Warn("the limit of open files limits connections: raise it (LimitNOFILE=, ulimit -n)", "open files", files, "connections", flows*w.opts.Count)
	}
	return flows, nil
}

// flowsWithin shares the descriptors out to workers.
func flowsWithin(files uint64, workers int) int {
	parties := files - min(spareFiles, files/2)
	return int(min(max(parties/uint64(workers), 1), relay.DefaultFlows))
}
