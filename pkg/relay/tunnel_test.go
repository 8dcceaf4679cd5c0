package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
)

// loop is a fake tunnel: one session whose two ends are in the same place. It
// cuts the sealed streams anywhere, delays them, keeps to the credit, may flip
// bits, and goes back when it is asked to. What breaks the contract of a worker
// fails the test.
type loop struct {
	t       testing.TB
	r       *rand.Rand
	ends    [2]*port // edge, cloud
	window  uint64   // credit beyond what was consumed
	flip    float64  // chance that a delivered piece has a flipped bit, but for a record's last attempt
	always  bool     // flip in every piece and in every 4 KB
	delay   time.Duration
	piece   int // largest piece
	once    int // see flipOnce; -1 none
	secret  []byte
	flows   map[stream.ID]*route
	order   []*route
	flipped int
	rejects int

	mu      sync.Mutex
	cond    *sync.Cond
	stopped bool
	ended   chan struct{}
}

// port is one side's stream.Tunnel.
type port struct {
	*loop
	side   int
	worker *Worker
	queue  []stream.Command // guarded by loop.mu
	next   stream.ID        // guarded by loop.mu
	events []stream.Event
	codes  []stream.Code // resets that the worker sent; guarded by loop.mu
	done   int           // guarded by loop.mu
}

// route is one flow: ways[i] carries what side i sends.
type route struct {
	id   stream.ID
	ways [2]way
	over [2]bool // the side has forgotten the flow
}

type way struct {
	base      uint64 // consumed
	data      []byte // from base on
	delivered uint64
	limit     uint64
	fin, told bool
	refused   int // times since the last byte was consumed
}

func (w *way) end() uint64 { return w.base + uint64(len(w.data)) }

func newLoop(t testing.TB, seed uint64) *loop {
	l := &loop{
		t: t, r: rand.New(rand.NewPCG(seed, 4)), window: 256 << 10, piece: 24 << 10, once: -1,
		secret: bytes.Repeat([]byte{byte(seed)}, 32), flows: map[stream.ID]*route{}, ended: make(chan struct{}),
	}
	l.cond = sync.NewCond(&l.mu)
	for i := range l.ends {
		l.ends[i] = &port{loop: l, side: i}
	}
	return l
}

func (e *port) Post(batch []stream.Command) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		for _, c := range batch {
			c.Seg.Release()
		}
		return
	}
	e.queue = append(e.queue, batch...)
	e.cond.Signal()
}

func (e *port) NewFlow(int) stream.ID {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	return e.next
}

func (e *port) Secret() []byte { return e.secret }

// Record: one side makes large records.
func (e *port) Record() int { return [...]int{buffer.Most, buffer.Plain}[e.side] }

func (e *port) Tag() string { return [...]string{"the cloud", "the edge"}[e.side] }

func (e *port) emit(v stream.Event) {
	v.From = e
	e.events = append(e.events, v)
}

// run is the session's goroutine. It ends with stop.
func (l *loop) run() {
	defer close(l.ended)
	for {
		l.mu.Lock()
		busy := l.pump()
		for !l.stopped && !busy && len(l.ends[0].queue)+len(l.ends[1].queue) == 0 {
			l.cond.Wait()
		}
		if l.stopped {
			for _, e := range l.ends {
				for _, c := range e.queue {
					c.Seg.Release()
				}
			}
			l.mu.Unlock()
			for _, e := range l.ends {
				l.hand(e) // what pump has brought out
			}
			return
		}
		for _, e := range l.ends {
			for i := range e.queue {
				l.obey(e, &e.queue[i])
			}
			clear(e.queue)
			e.queue = e.queue[:0]
		}
		l.mu.Unlock()
		for _, e := range l.ends {
			l.hand(e)
		}
		if l.delay > 0 {
			time.Sleep(time.Duration(l.r.Int64N(int64(l.delay))))
		}
	}
}

// hand delivers what a side is owed, in one of the ways in which that may be done.
func (l *loop) hand(e *port) {
	if len(e.events) == 0 {
		return
	}
	switch l.r.IntN(3) {
	case 0:
		e.worker.Deliver(e.events)
	case 1:
		e.worker.Leave(e.events)
		e.worker.Settle()
	default: // the parties become ready meanwhile, perhaps
		e.worker.Attend()
		e.worker.Leave(e.events)
		runtime.Gosched()
		e.worker.Settled()
	}
	clear(e.events)
	e.events = e.events[:0]
}

func (l *loop) stop() {
	l.mu.Lock()
	l.stopped = true
	l.cond.Broadcast()
	l.mu.Unlock()
	<-l.ended
}

// obey does what a worker asks.
func (l *loop) obey(e *port, c *stream.Command) {
	if c.Kind == stream.CmdOpen {
		f := &route{id: c.Flow}
		for i := range f.ways {
			f.ways[i].limit = l.window
		}
		l.flows[c.Flow] = f
		l.order = append(l.order, f)
		l.ends[1].emit(stream.Event{Kind: stream.EventOpen, Flow: c.Flow, Dst: c.Dst, Src: c.Src})
		for _, e := range l.ends {
			e.emit(stream.Event{Kind: stream.EventCredit, Flow: c.Flow, Limit: l.window})
		}
		return
	}
	f := l.flows[c.Flow]
	if f == nil { // the peer's reset has crossed it
		c.Seg.Release()
		if c.Kind == stream.CmdReset {
			e.codes = append(e.codes, c.Code)
		}
		return
	}
	if f.over[e.side] {
		l.t.Errorf("side %d: command %d for flow %d after its end", e.side, c.Kind, c.Flow)
	}
	out, in := &f.ways[e.side], &f.ways[1-e.side]
	switch c.Kind {
	case stream.CmdAccepted:
		l.ends[0].emit(stream.Event{Kind: stream.EventAccepted, Flow: f.id, Limit: uint64(uint32(c.Bytes))})
	case stream.CmdSend:
		out.data = append(out.data, c.Seg.P...)
		c.Seg.Release()
		if out.fin || out.end() > out.limit {
			l.t.Errorf("side %d flow %d: sent up to %d, limit %d, fin %v", e.side, f.id, out.end(), out.limit, out.fin)
		}
	case stream.CmdFin:
		out.fin = true
	case stream.CmdConsumed:
		if in.base+uint64(c.Bytes) > in.delivered {
			l.t.Errorf("side %d flow %d: consumed %d bytes after %d, delivered %d", e.side, f.id, c.Bytes, in.base, in.delivered)
			return
		}
		in.base += uint64(c.Bytes)
		in.refused = 0
		in.data = in.data[c.Bytes:]
		in.limit = max(in.limit, in.base+l.window)
		l.ends[1-e.side].emit(stream.Event{Kind: stream.EventCredit, Flow: f.id, Limit: in.limit})
	case stream.CmdReject:
		if c.Bytes <= 0 || in.base+uint64(c.Bytes) > in.delivered {
			l.t.Errorf("side %d flow %d: rejects %d bytes after %d, delivered %d", e.side, f.id, c.Bytes, in.base, in.delivered)
		}
		l.rejects++
		in.refused++
		in.delivered, in.told = in.base, false
		e.emit(stream.Event{Kind: stream.EventRewind, Flow: f.id})
	case stream.CmdReset:
		e.codes = append(e.codes, c.Code)
		if !f.over[1-e.side] {
			for c.Code == stream.CodeAbort && l.flip == 0 && !l.always && out.delivered < out.end() {
				l.deliver(f, out, l.ends[1-e.side]) // what came before the party's reset
			}
			l.ends[1-e.side].emit(stream.Event{Kind: stream.EventReset, Code: c.Code, Flow: f.id})
		}
		l.remove(f)
	case stream.CmdDone:
		e.done++
		if !out.fin || !in.told || len(in.data) > 0 {
			l.t.Errorf("side %d flow %d: done with fin %v, peer's fin %v, %d bytes not consumed", e.side, f.id, out.fin, in.told, len(in.data))
		}
		f.over[e.side] = true
		if f.over[1-e.side] {
			l.remove(f)
		}
	default:
		l.t.Errorf("command %d", c.Kind)
	}
}

func (l *loop) remove(f *route) {
	delete(l.flows, f.id)
	for i, g := range l.order {
		if g == f {
			l.order = append(l.order[:i], l.order[i+1:]...)
			return
		}
	}
}

// pump delivers some pieces and reports whether there was anything.
func (l *loop) pump() bool {
	busy := false
	for _, f := range l.order {
		for side := range f.ways {
			w, to := &f.ways[side], l.ends[1-side]
			if f.over[1-side] {
				continue
			}
			for n := l.r.IntN(4); n > 0 && w.delivered < w.end(); n-- {
				l.deliver(f, w, to)
			}
			if w.fin && w.delivered == w.end() && !w.told {
				w.told = true
				to.emit(stream.Event{Kind: stream.EventFin, Flow: f.id})
			}
			busy = busy || w.delivered < w.end()
			busy = busy || len(to.events) > 0
		}
	}
	return busy || len(l.ends[0].events)+len(l.ends[1].events) > 0
}

// deliver hands over the next piece: in a slab of its own, or as parts of one
// that is shared.
func (l *loop) deliver(f *route, w *way, to *port) {
	n := int(min(uint64(1+l.r.IntN(l.piece)), w.end()-w.delivered))
	from := int(w.delivered - w.base)
	s := buffer.Copy(w.data[from : from+n])
	if at := l.once/8 - int(w.delivered); l.once >= 0 && to.side == 1 && at >= 0 && at < n {
		s.P[at] ^= 1 << (l.once % 8)
		l.once = -1
		l.flipped++
	}
	w.delivered += uint64(n)
	switch {
	case l.always: // in each record of the piece, too
		for i := l.r.IntN(min(n, 4<<10)); i < n; i += 4 << 10 {
			l.flipped++
			s.P[i] ^= 1 << l.r.IntN(8)
		}
	case w.refused < attempts-1 && l.r.Float64() < l.flip: // else the flow may be reset
		l.flipped++
		s.P[l.r.IntN(n)] ^= 1 << l.r.IntN(8)
	}
	if n > 1 && l.r.IntN(2) == 0 {
		head, tail := s.Cut(1 + l.r.IntN(n-1))
		to.emit(stream.Event{Kind: stream.EventData, Flow: f.id, Seg: head})
		s = tail
	}
	to.emit(stream.Event{Kind: stream.EventData, Flow: f.id, Seg: s})
}

// codesOf returns the resets that a side's worker sent.
func (l *loop) codesOf(side int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.ends[side].codes)
}

// doneOf returns how many flows a side's worker ended well.
func (l *loop) doneOf(side int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends[side].done
}

var (
	serverAt = netip.MustParseAddrPort("198.18.0.1:80")
	clientAt = netip.MustParseAddrPort("[fd00::7]:40000")
)

// flipOnce flips one bit of what the edge sends on a flow to come, counted
// from the start of its stream, the first time that bit is delivered.
func (l *loop) flipOnce(bit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.once = bit
}
