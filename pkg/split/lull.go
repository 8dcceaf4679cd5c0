package split

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
)

const (
	// lullEach is for how long each client with a shut window makes all of them wait, and
	// lullMost the longest that one waits. Below lullLeast, which is fewer than 50
	// clients, none does.
	lullEach  = 2 * time.Millisecond
	lullLeast = 100 * time.Millisecond
	lullMost  = 5 * time.Second
	// lullSegments is how large a window must be to end the wait, in segments: whoever
	// has more room than that may have nothing left to read.
	lullSegments = 3
	// lullTiny is more than the longest segment takes of a window field without a shift:
	// from there on a window is not looked at where nothing is known of the client.
	lullTiny = 1500
)

// lull spares a crowd of clients that hardly read most of the packets that netstack
// would exchange with each. It asks whether a shut window is still shut from 200 ms on, and
// begins anew whenever it was open; a window that opens by one segment is filled with two,
// as what is to be sent lies in pieces. So a client that reads 1 KB/s costs nine packets
// each second and a half.
//
// Where there are many such clients, a window that was shut and has opened a little is kept
// from netstack until the client has room for lullSegments, or a pause has passed since the
// window was shut; until then nothing asks the client either. A sender does the same
// against silly windows (RFC 9293 section 3.8.6.2.1), for less than a second; here the pause
// grows with the number of clients (pause). A client that waits so has more to read than it
// has room for. What is left of a window counts as shut if it is less than a segment.
// Acknowledgements are passed on at once, with a window of zero.
//
// It is the filter next to netstack, of clients whom the guard has let in, as that knows
// their windows' scale.
type lull struct {
	scale  func(*guard.Ends) (mss int, shift uint8, ok bool) // of a client; false: not to be waited for
	inject func(ip []byte, v6 bool)                          // gives netstack a segment
	relax  func(ends *guard.Ends, rest time.Duration)        // told of a question that did not leave, with the endpoint's lock
	clock  tcpip.Clock
	count  *counters
	live   atomic.Int32 // of flows: a look without the lock

	mu    sync.Mutex
	flows map[guard.Ends]*lulled // those that netstack takes for shut
}

// lulled is one client with a shut window.
type lulled struct {
	since tcpip.MonotonicTime // when it was shut
	ack   uint32              // newest that netstack has heard
	room  int32               // the window that ends the wait, in bytes
	shift uint8
	v6    bool
	held  []byte      // the newest segment with a window that netstack has not heard of: all headers
	alarm tcpip.Timer // of the pause's end; nil where nothing waits for that
}

// lulls makes a lull the filter next to netstack.
func (s *Stack) lulls() *lull {
	l := &lull{scale: s.keeper.segmentsOf, inject: s.keeper.injectRaw, relax: s.keeper.relax, clock: s.clock, count: &s.count}
	l.flows = map[guard.Ends]*lulled{}
	s.keeper.lull.Store(l)
	s.in.filters = append(s.in.filters, l)
	s.out.filters = append(s.out.filters, l)
	return l
}

// segmentsOf is the longest segment of an open client and the shift of its windows.
func (k *keeper) segmentsOf(ends *guard.Ends) (mss int, shift uint8, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.flows[*ends]
	if w == nil || w.flow.State() != guard.Open {
		return 0, 0, false
	}
	return int(w.flow.Hello.MSS), uint8(max(w.flow.Hello.Scale, 0)), true
}

// pause is for how long a shut window stays so for netstack.
func (l *lull) pause() time.Duration { return lullPause(l.live.Load()) }

// lullPause is that where so many windows are shut.
func lullPause(n int32) time.Duration {
	p := time.Duration(n) * lullEach
	if p < lullLeast {
		return 0
	}
	return min(p, lullMost)
}

// inbound implements filter.
func (l *lull) inbound(s *segment) action {
	h := s.tcp()
	window := h.WindowSize()
	if window != 0 && l.live.Load() == 0 {
		return pass
	}
	ends := endsOf(s)
	if h.Flags()&(header.TCPFlagSyn|header.TCPFlagFin|header.TCPFlagRst) != 0 || s.payload() > 0 {
		l.forget(ends) // netstack must hear all of it
		return pass
	}
	pause := l.pause()
	l.mu.Lock()
	f := l.flows[ends]
	l.mu.Unlock()
	if f == nil {
		return l.first(&ends, s, pause)
	}
	return l.next(&ends, f, s, pause)
}

// first sees a segment of a client whose window was open.
func (l *lull) first(ends *guard.Ends, s *segment, pause time.Duration) action {
	h := s.tcp()
	window := h.WindowSize()
	if window > 0 && (window >= lullTiny || pause == 0) {
		return pass
	}
	mss, shift, ok := l.scale(ends)
	if !ok || int(window)<<shift >= mss {
		return pass
	}
	l.mu.Lock()
	f := &lulled{since: l.clock.NowMonotonic(), ack: h.AckNumber(), room: int32(lullSegments * mss), shift: shift, v6: s.v6}
	l.flows[*ends] = f
	l.live.Store(int32(len(l.flows)))
	if window > 0 {
		l.hold(ends, f, s, pause)
		h.SetWindowSize(0)
	}
	l.mu.Unlock()
	if _, _, ok := l.scale(ends); !ok { // the guard has forgotten the client meanwhile, and would not do so again
		l.forget(*ends)
	}
	return pass
}

// next sees a segment of a client whose window netstack takes for shut.
func (l *lull) next(ends *guard.Ends, f *lulled, s *segment, pause time.Duration) action {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := s.tcp()
	window, ack := int32(h.WindowSize())<<f.shift, h.AckNumber()
	waited := l.clock.NowMonotonic().Sub(f.since)
	switch {
	case l.flows[*ends] != f: // the pause has just ended
		return pass
	case window == 0:
		f.held, f.ack = nil, ack
		return pass
	case window >= f.room || waited >= pause:
		l.drop(ends, f)
		return pass
	}
	l.hold(ends, f, s, pause-waited)
	if ack == f.ack {
		return swallow
	}
	f.ack = ack
	h.SetWindowSize(0)
	return pass
}

// hold keeps a segment's headers for when the pause is over. The caller holds mu.
func (l *lull) hold(ends *guard.Ends, f *lulled, s *segment, rest time.Duration) {
	l.count.lulled.Add(1)
	f.held = append(f.held[:0], s.ip[:s.data]...)
	if f.alarm == nil {
		of := *ends
		f.alarm = l.clock.AfterFunc(rest, func() { l.release(&of, f) })
	}
}

// release tells netstack what was held. The clock calls it.
func (l *lull) release(ends *guard.Ends, f *lulled) {
	l.mu.Lock()
	held := f.held
	if l.flows[*ends] != f || held == nil {
		f.alarm = nil // what is held from now on needs another one
		l.mu.Unlock()
		return
	}
	l.drop(ends, f)
	l.mu.Unlock()
	l.inject(held, f.v6)
}

// drop forgets a flow. The caller holds mu.
func (l *lull) drop(ends *guard.Ends, f *lulled) {
	if f.alarm != nil {
		f.alarm.Stop()
	}
	delete(l.flows, *ends)
	l.live.Store(int32(len(l.flows)))
}

// forget forgets a client, if it is known.
func (l *lull) forget(ends guard.Ends) {
	if l == nil || l.live.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flows[ends]; f != nil {
		l.drop(&ends, f)
	}
}

// outbound implements filter: it keeps back netstack's question whether a window is still
// shut. That is a byte which the client has, and alone of all data is not pushed.
func (l *lull) outbound(pkt *stack.PacketBuffer) bool {
	if pkt.Data().Size() != 1 || l.live.Load() == 0 {
		return true
	}
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags() != header.TCPFlagAck {
		return true
	}
	ends, rest := endsTo(pkt, h), time.Duration(0)
	l.mu.Lock()
	if f := l.flows[ends]; f != nil {
		rest = l.pause() - l.clock.NowMonotonic().Sub(f.since)
	}
	l.mu.Unlock()
	if rest <= 0 {
		return true
	}
	l.count.unasked.Add(1)
	l.relax(&ends, rest)
	return false
}

// idle implements filter.
func (l *lull) idle() {}
