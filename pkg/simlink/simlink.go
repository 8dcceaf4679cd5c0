// Package simlink gives tests links in memory: pairs of tunnel carriers with a
// rate, a delay and a finite queue, which can be cut silently. With
// testing/synctest all of it runs in virtual time.
//
// The package starts no goroutines of its own; timers deliver.
package simlink

import (
	"errors"
	"sync"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Spec describes both directions of a link.
type Spec struct {
	Rate  float64       // bytes per second; 0 = without limit
	Delay time.Duration // one way
	Queue int           // bytes that Send may be ahead of the wire; 0 = 32 KiB
}

// overhead is what a record costs on the wire beyond block and body, in bytes.
const overhead = 20

// packet is a record on its way.
type packet struct {
	block []byte
	body  buffer.Seg
	size  int
	at    time.Time // of arrival
}

// lane is one direction.
type lane struct {
	spec Spec
	out  chan packet // to the receiver, in order
	stop chan struct{}

	mu     sync.Mutex
	cond   *sync.Cond
	queued int
	free   time.Time // when the wire is free
	cut    bool
	held   []packet
	closed error
}

// End is one end of a Pair. It satisfies tunnel.Carrier.
type End struct {
	tx, rx *lane
	pair   *Pair
}

// Pair is a link.
type Pair struct {
	A, B *End

	lanes [2]*lane
	once  sync.Once
}

// NewPair returns a link whose ends are A and B.
func NewPair(spec Spec) *Pair {
	if spec.Queue == 0 {
		spec.Queue = 32 << 10
	}
	p := &Pair{lanes: [2]*lane{newLane(spec), newLane(spec)}}
	p.A = &End{tx: p.lanes[0], rx: p.lanes[1], pair: p}
	p.B = &End{tx: p.lanes[1], rx: p.lanes[0], pair: p}
	return p
}

func newLane(spec Spec) *lane {
	l := &lane{spec: spec, out: make(chan packet, 1<<14), stop: make(chan struct{})}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// Cut makes the link swallow everything silently, or lets it live again; what
// was swallowed then arrives, as a transport that retransmits would have it.
func (p *Pair) Cut(cut bool) {
	for _, l := range p.lanes {
		l.setCut(cut)
	}
}

// CutFrom cuts only the direction away from A (true) or from B (false).
func (p *Pair) CutFrom(a, cut bool) {
	if a {
		p.lanes[0].setCut(cut)
	} else {
		p.lanes[1].setCut(cut)
	}
}

func (l *lane) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if cut {
		return
	}
	for _, p := range l.held {
		l.queued -= p.size
		p.at = time.Now().Add(l.spec.Delay)
		l.out <- p
	}
	l.held = nil
	l.cond.Broadcast()
}

// Send implements tunnel.Carrier. It blocks while the queue is full, and for
// good while the link is cut, as a transport whose window is closed.
func (e *End) Send(batch []wire.Record) error { return e.send(batch, true) }

func (e *End) send(batch []wire.Record, wait bool) error {
	for i, r := range batch {
		if err := e.tx.send(r, wait); err != nil {
			for _, r := range batch[i:] {
				r.Body.Release()
			}
			return err
		}
	}
	return nil
}

// TrySend implements tunnel.QuickCarrier: it never blocks, as its caller holds what
// others wait for, with whom virtual time would stand still. A batch is not begun when
// the queue is half full; what is begun may be more than the queue holds.
func (e *End) TrySend(batch []wire.Record) (done bool, err error) {
	if e.tx.full() {
		return false, nil
	}
	return true, e.send(batch, false)
}

// Resume implements tunnel.QuickCarrier.
func (e *End) Resume(batch []wire.Record) error { return e.Send(batch) }

func (l *lane) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queued > l.spec.Queue/2
}

func (l *lane) send(r wire.Record, wait bool) error {
	size := len(r.Block) + r.Body.Len() + overhead
	l.mu.Lock()
	defer l.mu.Unlock()
	for wait && l.queued > l.spec.Queue && l.closed == nil {
		l.cond.Wait()
	}
	if l.closed != nil {
		return l.closed
	}
	p := packet{block: append([]byte(nil), r.Block...), size: size}
	if r.Body.Len() > 0 {
		p.body = buffer.Copy(r.Body.P)
		r.Body.Release()
	}
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	if l.spec.Rate > 0 {
		l.free = l.free.Add(time.Duration(float64(size) / l.spec.Rate * 1e9))
	}
	l.queued += size
	time.AfterFunc(l.free.Sub(now), func() { l.departed(p) })
	return nil
}

// departed is called when the packet has left the queue.
func (l *lane) departed(p packet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		p.body.Release()
		return
	}
	if l.cut {
		l.held = append(l.held, p) // still queued: the window stays closed
		return
	}
	l.queued -= p.size
	l.cond.Broadcast()
	p.at = time.Now().Add(l.spec.Delay)
	l.out <- p
}

// Receive implements tunnel.Carrier.
func (e *End) Receive() (wire.Record, error) {
	select {
	case p := <-e.rx.out:
		if d := time.Until(p.at); d > 0 {
			select {
			case <-time.After(d):
			case <-e.rx.stop:
				p.body.Release()
				return wire.Record{}, e.rx.reason()
			}
		}
		return wire.Record{Block: p.block, Body: p.body}, nil
	case <-e.rx.stop:
		return wire.Record{}, e.rx.reason()
	}
}

// Buffered implements tunnel.Carrier.
func (e *End) Buffered() bool { return false }

// Sense implements tunnel.Carrier.
func (e *End) Sense() scheduler.Sense { return scheduler.Sense{RTT: 2 * e.tx.spec.Delay} }

// Pace implements tunnel.Carrier. A simulated link has no bursts to smooth.
func (e *End) Pace(float64) {}

// Close implements tunnel.Carrier: it ends both directions for both ends.
func (e *End) Close(err error) {
	e.pair.once.Do(func() {
		for _, l := range e.pair.lanes {
			l.close(errors.Join(errors.New("link closed"), err))
		}
	})
}

func (l *lane) close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = err
	close(l.stop)
	l.cond.Broadcast()
	for _, p := range l.held {
		p.body.Release()
	}
	l.held = nil
	for {
		select {
		case p := <-l.out:
			p.body.Release()
		default:
			return
		}
	}
}

func (l *lane) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}
