package tunnel

import (
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/slim"
	"hawser/scheduler"
)

// pieceState says where the bytes of a piece are.
type pieceState uint8

const (
	unsent  pieceState = iota // never given to a link
	sent                      // on at least one link, not acknowledged
	arrived                   // a link's peer acknowledged it; kept until consumed
	gone                      // consumed or dropped; only link logs still point here
)

// piece is a range of a flow's send stream that was never cut further. It
// stays in the queue until the receiver's card has opened it (PROTOCOL.md
// section 5.3), because only then is it certain that it need not be sent again.
type piece struct {
	off     uint64
	seg     buffer.Seg
	fin     bool
	state   pieceState
	again   bool // waits in the flow's resend list
	resent  bool // was in the resend list, which may still point here
	refused bool // the receiver could not authenticate a record of which it is a part
	copies  int  // entries of link logs that point here
	turn    int  // raised when the receiver threw it away: older copies no longer count
	flow    *flow
	next    *piece
}

// pieces is a session's free list of pieces, so that a stream in motion
// allocates none. A nil list makes new ones.
type pieces struct {
	head *piece
	n    int
}

// morePieces is how many pieces a free list keeps.
const morePieces = 4096

func (l *pieces) get() *piece {
	if l == nil || l.head == nil {
		return &piece{}
	}
	p := l.head
	l.head, p.next = p.next, nil
	l.n--
	return p
}

// put takes a piece that is gone, once nothing points to it any more.
func (l *pieces) put(p *piece) {
	if l == nil || p.state != gone || p.copies > 0 || p.resent || l.n >= morePieces {
		return
	}
	*p = piece{next: l.head}
	l.head = p
	l.n++
}

// presses reports whether somebody is likely to wait for p: it is of the first
// bytes of its flow, or a small message with nothing behind it, here or for want of
// credit, in a flow that has little under way.
func (p *piece) presses() bool {
	if p.flow.node.Class() == scheduler.Background {
		return false
	}
	return scheduler.Presses(int(p.off), p.seg.Len(), p.next == nil && p.flow.send.held <= scheduler.UrgentHead && !p.flow.usedUp())
}

func (p *piece) end() uint64 { return p.off + uint64(p.seg.Len()) }

// sendQueue is the send side of one direction of a flow: everything from the
// first byte that was not consumed yet to the last that the worker gave.
type sendQueue struct {
	free       *pieces // where pieces come from
	head, tail *piece
	first      *piece       // first unsent piece
	block      *piece       // the first that has not arrived: it blocks the flow
	moved      slim.Instant // when another one last did; 0: it is not known
	resend     []*piece
	base, end  uint64 // offsets: consumed by the peer, given by the worker
	next       uint64 // offset of the first unsent byte
	held       int    // bytes kept
	anew       bool   // see standsAnew
	fin        bool   // the worker closed the stream
	finSeen    bool   // the peer consumed the end
	asks       uint8  // times that something was to be sent anew
	asked      uint32 // while base was of this run of asksPer bytes
}

// add appends seg and owns it.
func (q *sendQueue) add(f *flow, seg buffer.Seg) {
	p := q.free.get()
	p.off, p.seg, p.flow = q.end, seg, f
	q.link(p)
	q.end += uint64(seg.Len())
	q.held += seg.Len()
}

// close marks the end of the stream: on the last piece when that was not sent
// yet, else on an empty one of its own.
func (q *sendQueue) close(f *flow) {
	if q.fin {
		return
	}
	q.fin = true
	if q.tail != nil && q.tail.state == unsent {
		q.tail.fin = true
		return
	}
	p := q.free.get()
	p.off, p.fin, p.flow = q.end, true, f
	q.link(p)
}

func (q *sendQueue) link(p *piece) {
	if q.tail == nil {
		q.head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
	if q.first == nil {
		q.first = p
	}
	if q.block == nil {
		q.block = p
	}
}

// ready returns the piece to send next, or nil: what must be sent again first.
func (q *sendQueue) ready() *piece {
	for len(q.resend) > 0 {
		p := q.resend[0]
		if p.again && p.state != gone {
			return p
		}
		q.resend = q.resend[1:]
	}
	q.resend = nil
	return q.first
}

// left is the number of unsent bytes, as path choice wants it.
func (q *sendQueue) left() int { return int(q.end - q.next) }

// take marks p as sent, cutting it to n bytes first when it is longer.
func (q *sendQueue) take(p *piece, n int) {
	q.anew = false
	if n < p.seg.Len() {
		q.cut(p, n)
	}
	if p.again {
		p.again = false
	} else {
		q.first = p.next
		q.next = p.end()
	}
	p.state = sent
}

// cut splits p after n bytes; the rest inherits p's place, state and fin.
func (q *sendQueue) cut(p *piece, n int) {
	head, tail := p.seg.Cut(n)
	rest := q.free.get()
	rest.off, rest.seg, rest.fin = p.off+uint64(n), tail, p.fin
	rest.state, rest.turn, rest.refused, rest.flow, rest.next = p.state, p.turn, p.refused, p.flow, p.next
	p.seg, p.fin, p.next = head, false, rest
	if q.tail == p {
		q.tail = rest
	}
	if p.again {
		q.enqueue(rest)
	}
}

// enqueue puts a piece that was sent back in line. Pieces go out in the order
// of their offsets, because the first one blocks the flow.
func (q *sendQueue) enqueue(p *piece) bool {
	if p.again || p.state == gone || p.state == unsent {
		return false
	}
	p.again, p.resent = true, true
	i := len(q.resend)
	q.resend = append(q.resend, p)
	for i > 0 && q.resend[i-1].off > p.off {
		q.resend[i] = q.resend[i-1]
		i--
	}
	q.resend[i] = p
	return true
}

// acked notes that a link's peer has the copy of p that was sent in a turn.
func (p *piece) acked(turn int) {
	if p.state == sent && p.turn == turn {
		p.state = arrived
		p.again = false
	}
}

// advance finds out what blocks the flow, after pieces have arrived.
func (q *sendQueue) advance(now time.Time) {
	p := q.block
	for p != nil && p.state == arrived {
		p = p.next
	}
	if p != q.block || q.moved == 0 {
		q.block, q.moved = p, moments.At(now)
	}
}

// stuck is for how long the same piece has blocked the flow, one of an age that has not arrived.
func (q *sendQueue) stuck(now time.Time, age time.Duration) time.Duration {
	if q.moved == 0 {
		return age
	}
	return min(age, moments.Since(q.moved, now))
}

// consumed frees everything below off; the end of the stream counts as one
// more byte. It returns false when off lies beyond what was sent.
func (q *sendQueue) consumed(off uint64) bool {
	switch {
	case off == q.end+1 && q.fin && q.first == nil:
		q.finSeen = true
	case off > q.next:
		return false
	}
	for p := q.head; p != nil && p.state != unsent && p.end() <= off; p = q.head {
		if p.fin && !q.finSeen {
			break
		}
		q.pop()
	}
	q.base = max(q.base, min(off, q.end))
	return true
}

func (q *sendQueue) pop() {
	p := q.head
	q.head = p.next
	if q.head == nil {
		q.tail = nil
	}
	if q.block == p {
		q.block, q.moved = p.next, 0
	}
	q.held -= p.seg.Len()
	p.drop()
	q.free.put(p)
}

func (p *piece) drop() {
	p.seg.Release()
	p.seg, p.state, p.again = buffer.Seg{}, gone, false
}

// standsAnew reports whether all of that stands in line since resendFrom, and nothing of it has
// left: to ask for it again changes nothing.
func (q *sendQueue) standsAnew(off uint64) bool {
	return q.anew && len(q.resend) > 0 && q.resend[0].off <= off
}

// A receiver refuses a record three times at most, and asks for it anew as often (PROTOCOL.md
// section 6.4). Of asksPer bytes asksMost requests are more than what changes records on its way
// comes to, as links are given up that do.
const (
	asksMost = 16
	asksPer  = 16 << 10
)

// mayAsk notes that the peer asks for something anew, and says whether it may.
func (q *sendQueue) mayAsk() bool {
	if run := uint32(q.base / asksPer); run != q.asked {
		q.asked, q.asks = run, 0
	}
	if q.asks == asksMost {
		return false
	}
	q.asks++
	return true
}

// resendFrom puts everything sent at or beyond off back in line: the receiver
// has thrown it away (RESEND, PROTOCOL.md section 5.3).
func (q *sendQueue) resendFrom(off uint64) {
	for p := q.head; p != nil && p.state != unsent; p = p.next {
		if p.end() > off || p.fin {
			p.state = sent
			p.turn++ // an ack of an earlier copy may still be under way
			if q.block == nil || p.off < q.block.off {
				q.block = p
			}
			q.enqueue(p)
		}
	}
	q.anew = len(q.resend) > 0 && q.resend[0].end() > off // all from there on is in line, and nothing before it
}

// clear drops everything.
func (q *sendQueue) clear() {
	for q.head != nil {
		q.pop()
	}
	q.first, q.resend = nil, nil
}
