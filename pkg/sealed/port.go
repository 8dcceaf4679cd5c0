package sealed

import (
	"net/netip"
	"sync/atomic"

	"hawser/pkg/buffer"
	"hawser/pkg/places"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
)

// Counters are shared by all ports of a relay.
type Counters struct {
	Joined     atomic.Uint64 // connections that have become flows
	Refused    atomic.Uint64 // joins: forged, repeated, of no association, or not the protocol at all
	Tampered   atomic.Uint64 // connections ended by bytes that are not authentic or not the protocol
	Truncated  atomic.Uint64 // connections that ended without their end
	Crowded    atomic.Uint64 // connections that found no place before they had said what they are, or for their handshake
	Again      atomic.Uint64 // of Joined, those that came by a connection that had carried another flow
	Handshakes atomic.Uint64 // that have ended well
	Failed     atomic.Uint64 // that have not
}

// Options make a Port.
type Options struct {
	Worker   int
	Poller   *sock.Poller
	Deliver  func([]stream.Event) // of the relay worker; copies the slice
	Budget   *Budget              // of all ports: as it is used up, windows shrink to a record
	Counters *Counters
}

// scratchSize is what is read at once from a connection at rest.
const scratchSize = 32 << 10

// Port is one worker's sealed connections.
type Port struct {
	o       Options
	scratch []byte         // what was just read
	events  []stream.Event // not yet delivered
	iov     [][]byte
	dirty   []*conn        // have something to send
	joins   [2][]*conn     // have but a join to send: since the last look, and since the one before; the client's
	queues  [][]buffer.Seg // empty, for queue

	spares   []*spare                        // connections for flows to come, the newest last; the client's
	way      way                             // theirs
	source   func(netip.AddrPort) netip.Addr // tests change it
	arrivals map[*arrival]struct{}           // have not said what they are
	places   *places.Places                  // theirs
	closing  map[*conn]struct{}              // have only to be sent and closed
	parts    parts                           // whose connections there are
	lanes    map[*Lane]struct{}              // that have some
	ousting  atomic.Bool                     // some of those have to go; any goroutine's
}

// NewPort returns a Port without connections.
func NewPort(o Options) *Port {
	return &Port{o: o, source: source, scratch: make([]byte, scratchSize), arrivals: map[*arrival]struct{}{}, closing: map[*conn]struct{}{}, lanes: map[*Lane]struct{}{},
		places: places.New(mostArrivals, mostArrivalsPerSource)}
}

// Worker returns the number of the port's worker.
func (p *Port) Worker() int { return p.o.Worker }

// tell queues an event for the worker.
func (p *Port) tell(e stream.Event) {
	p.events = append(p.events, e)
}

// deliver gives the worker what was queued.
func (p *Port) deliver() {
	if len(p.events) == 0 {
		return
	}
	p.o.Deliver(p.events)
	clear(p.events)
	p.events = p.events[:0]
}

// queue returns an empty slice for Segs that wait.
func (p *Port) queue() []buffer.Seg {
	if n := len(p.queues); n > 0 {
		q := p.queues[n-1]
		p.queues = p.queues[:n-1]
		return q
	}
	return make([]buffer.Seg, 0, 16)
}

// mostQueues bounds the slices that a port keeps.
const mostQueues = 64

// giveBack takes an empty slice of queue.
func (p *Port) giveBack(q []buffer.Seg) {
	if len(p.queues) < mostQueues && cap(q) <= 64 {
		p.queues = append(p.queues, q[:0])
	}
}

// send lets all connections send what the worker has given them.
func (p *Port) send() {
	for i, c := range p.dirty {
		p.dirty[i] = nil
		c.dirty = false
		c.flush()
	}
	p.dirty = p.dirty[:0]
	p.deliver()
}

// hold keeps a join until the worker has looked once at what has come meanwhile. A client's
// request mostly has, and then both go in one segment, which the gateway reads at once.
func (p *Port) hold(c *conn) {
	if p.o.Poller.Before == nil {
		p.o.Poller.Before = p.join
	}
	p.joins[0] = append(p.joins[0], c)
}

// join sends the joins that were held before the last look; beside others the worker does
// not sleep. The poller calls it.
func (p *Port) join() {
	if len(p.joins[0])+len(p.joins[1]) == 0 {
		return
	}
	for i, c := range p.joins[1] {
		p.joins[1][i] = nil
		if len(c.prelude) > 0 {
			c.flush()
		}
	}
	p.deliver()
	if p.joins[0], p.joins[1] = p.joins[1][:0], p.joins[0]; len(p.joins[1]) > 0 {
		p.o.Poller.Wake()
	}
}

// oust ends the connections of clients that the gateway no longer serves as they were let
// in. The poller calls it.
func (p *Port) oust() {
	if !p.ousting.Load() {
		return
	}
	p.ousting.Store(false)
	for l := range p.lanes {
		if !l.a.account.ousted.Load() {
			continue
		}
		for _, c := range l.conns {
			c.fail(stream.CodeAbort)
		}
	}
	p.deliver()
}

// touch makes sure that send looks at c.
func (p *Port) touch(c *conn) {
	if !c.dirty {
		c.dirty = true
		p.dirty = append(p.dirty, c)
	}
}

// Close resets what the worker knows nothing of. It comes when the worker has
// ended.
func (p *Port) Close() {
	for a := range p.arrivals {
		a.sock.Abort()
	}
	for c := range p.closing {
		c.abort()
	}
	for _, i := range p.spares {
		i.sock.Close()
	}
	p.spares = nil
	clear(p.arrivals)
}
