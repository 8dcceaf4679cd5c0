package sealed

import (
	"errors"
	"io"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// conn is one sealed connection. Its worker owns it.
type conn struct {
	lane *Lane
	id   stream.ID
	sock *sock.Conn
	// What the worker was told to dial, the gateway's alone.
	server *Server
	turn   uint32
	over   bool // forgotten
	dirty  bool // in the port's list

	// Receiving. A record is gathered in slab, or its first bytes in head.
	head     [card.HeaderLen]byte
	headed   uint8
	fin      bool // the peer has ended its direction
	readable bool // and not yet dry
	slab     *buffer.Buf
	have     int        // bytes in slab
	need     int        // of the record in slab
	rest     []byte     // came behind the end: the next flow's
	hung     bool       // the kernel knows of an error
	gone     bool       // the peer has closed behind its end
	received uint64     // bytes of whole records
	ahead    int        // of these, not consumed
	keys     *card.Keys // what opens what may still be on its way; nil: what the association has then
	late     bool       // the last record is older than what that opens

	// Sending.
	ended   bool   // our end is queued, or sent
	done    bool   // both directions have ended well: to be closed when all is sent
	shut    bool   // our end is sent
	prelude []byte // the join, before all else
	out     []buffer.Seg
	first   int    // bytes of out[0] that are sent
	queued  uint64 // bytes of records that were queued in all
	sent    uint64 // of these, bytes that the kernel has taken
	granted uint64 // what the worker may have queued
	credit  int    // the window when that was granted
	lent    int    // this one's part of the budget's
}

// ready is told by the poller.
func (c *conn) ready(bits party.Ready) {
	if c.over {
		return
	}
	if bits&(party.Writable|party.Hangup) != 0 {
		c.flush()
	}
	if !c.over && bits&(party.Readable|party.Hangup) != 0 {
		c.readable, c.hung = true, c.hung || bits&party.Hangup != 0
		c.read()
	}
	c.lane.port.deliver()
}

// begin takes what was read behind the connection's last flow, and what has come since.
func (c *conn) begin(rest []byte) {
	c.keys = c.lane.a.ring.Keys()
	c.parse(rest)
	c.read()
}

// read takes what has come, as far as the worker may be given it.
func (c *conn) read() {
	if c.keys == nil {
		c.keys = c.lane.a.ring.Keys()
	}
	for c.readable && !c.over && (c.ahead < c.most() || c.fin) && !c.stopped() {
		n, err := c.take()
		switch {
		case n > 0:
		case err == nil, errors.Is(err, party.ErrAgain):
			c.readable = false
			c.dry()
		case errors.Is(err, io.EOF):
			c.readable = false
			c.eof()
		case errors.Is(err, party.ErrRefused), errors.Is(err, party.ErrUnreachable):
			c.fail(stream.CodeUnreachable)
		default:
			c.fail(stream.CodeAbort)
		}
	}
}

// dry notes that nothing more has come. Records that its party does not take for hours wait
// in the kernels of both ends, where nobody knows of them, while others of the association
// take it to keys by which they cannot be opened. Those by which they can are kept until
// what comes is as new as what others get: the rest may still be on its way.
func (c *conn) dry() {
	if !c.late {
		c.keys = nil
	}
}

// opener returns what opens a record that has come; nil: nothing is known to.
func (c *conn) opener(record []byte) *card.Keys {
	now := c.lane.a.ring.Keys()
	if c.late = !now.Open(record); !c.late {
		c.keys = now
		return now
	}
	k := c.keys.Follow(record)
	if k != nil {
		c.keys = k
	}
	return k
}

// most is how many bytes the worker may have been given and not consumed for more to be
// read: where memory is short, none.
func (c *conn) most() int { return max(c.lane.port.o.Budget.share(), 1) }

// take reads once: the rest of the record under way with the next one's
// header, or whatever there is; where memory is short one record.
func (c *conn) take() (int, error) {
	if c.slab == nil && c.headed == card.HeaderLen {
		c.headed = 0
		head := c.head
		if c.parse(head[:]); c.over {
			return 0, nil
		}
	}
	if c.slab != nil {
		n, err := c.sock.Read(c.slab.Bytes()[c.have : c.need+card.HeaderLen])
		c.have += n
		if c.have >= c.need {
			c.complete()
		}
		return n, err
	}
	p := c.lane.port.scratch[:max(min(c.most(), scratchSize), card.HeaderLen)]
	k := copy(p, c.head[:c.headed])
	n, err := c.sock.Read(p[k:])
	if n > 0 {
		c.headed = 0
		c.parse(p[:k+n])
	}
	return n, err
}

// complete hands on the record in the slab and keeps what follows it, which gets no slab
// before it is read.
func (c *conn) complete() {
	p := c.slab.Bytes()
	c.headed = uint8(copy(c.head[:], p[c.need:c.have]))
	s := c.slab.Seg(0, c.need)
	c.slab = nil
	c.record(s)
}

// parse cuts what was read from the scratch into records. The rest of the last
// one will be read into a slab of its own.
func (c *conn) parse(p []byte) {
	for len(p) > 0 && !c.over {
		if c.fin {
			c.behind(p)
			return
		}
		if len(p) < card.HeaderLen {
			c.headed = uint8(copy(c.head[:], p))
			return
		}
		need, ok := c.measure(p)
		if !ok {
			c.forged()
			return
		}
		if len(p) < need {
			c.slab, c.need = buffer.Get(need+card.HeaderLen), need
			c.have = copy(c.slab.Bytes(), p)
			return
		}
		c.record(buffer.Copy(p[:need]))
		p = p[need:]
	}
}

// measure returns the length of the record that begins with p.
func (c *conn) measure(p []byte) (need int, ok bool) {
	if isEnd(p) {
		return wire.EndSize, true
	}
	h, err := card.ParseHeader(p)
	return h.Len, err == nil && (h.Len <= ordinary || c.lane.a.large)
}

// record hands one whole record on.
func (c *conn) record(s buffer.Seg) {
	if isEnd(s.P) {
		c.fin = c.lane.a.checkEnd(s.P, uint64(c.id), c.received)
		s.Release()
		if !c.fin {
			c.forged()
			return
		}
		c.lane.port.tell(stream.Event{Kind: stream.EventFin, Flow: c.id, From: c.lane})
		return
	}
	c.received += uint64(s.Len())
	c.ahead += s.Len()
	c.lane.port.tell(stream.Event{Kind: stream.EventData, Flow: c.id, Seg: s, From: c.lane, Keys: c.opener(s.P)})
}

// eof ends a connection whose peer has closed without an end; behind one it
// says nothing new, but that no flow follows.
func (c *conn) eof() {
	if c.fin {
		c.gone = true
		return
	}
	c.lane.port.o.Counters.Truncated.Add(1)
	c.fail(stream.CodeAbort)
}

// consumed notes what the worker has opened and its party has taken.
func (c *conn) consumed(n int) {
	c.ahead -= n
	if c.readable && c.ahead <= c.most()/2 {
		c.read()
	}
}

// push queues a record for sending.
func (c *conn) push(s buffer.Seg) {
	if c.out == nil {
		c.out = c.lane.port.queue()
	}
	c.out = append(c.out, s)
	c.queued += uint64(s.Len())
	c.account()
	c.lane.port.touch(c)
}

// finish queues the end of our direction.
func (c *conn) finish() {
	offset := c.queued
	c.ended = true
	c.push(buffer.Copy(c.lane.a.appendEnd(make([]byte, 0, wire.EndSize), uint64(c.id), offset)))
}

// flush sends what the kernel takes.
func (c *conn) flush() {
	if c.over || c.sock.Connected() != nil {
		return // if it has failed, reading says why
	}
	if len(c.prelude)+len(c.out) > 0 {
		if err := c.write(); err != nil && !errors.Is(err, party.ErrAgain) {
			c.readable = true
			if c.read(); !c.over { // what the peer had sent, and then the reason
				c.fail(stream.CodeAbort)
			}
			return
		}
	}
	if len(c.prelude)+len(c.out) > 0 {
		c.grant()
		return
	}
	if c.ended && !c.shut && !c.lane.a.again {
		c.shut = true
		if err := c.sock.CloseWrite(); err != nil {
			c.fail(stream.CodeAbort)
			return
		}
	}
	if c.done {
		c.rested()
		return
	}
	c.grant()
}

// write gives the kernel all that is queued with one call.
func (c *conn) write() error {
	p := c.lane.port
	iov := p.iov[:0]
	if len(c.prelude) > 0 {
		iov = append(iov, c.prelude)
	}
	for i, s := range c.out {
		b := s.P
		if i == 0 {
			b = b[c.first:]
		}
		iov = append(iov, b)
	}
	n, err := c.sock.Writev(iov)
	clear(iov)
	p.iov = iov[:0]
	c.taken(n)
	return err
}

// taken lets go of n bytes that the kernel has.
func (c *conn) taken(n int) {
	k := min(n, len(c.prelude))
	if c.prelude = c.prelude[k:]; len(c.prelude) == 0 {
		c.prelude = nil
	}
	n -= k
	c.sent += uint64(n)
	c.lane.pace.sent += n
	c.first += n
	i := 0
	for ; i < len(c.out) && c.first >= c.out[i].Len(); i++ {
		c.first -= c.out[i].Len()
		c.out[i].Release()
		c.out[i] = buffer.Seg{}
	}
	if i == 0 {
		return
	}
	if c.out = append(c.out[:0], c.out[i:]...); len(c.out) == 0 {
		c.lane.port.giveBack(c.out)
		c.out = nil
	}
}

// left is how much credit the worker has not used.
func (c *conn) left() int { return int(max(c.granted, c.queued) - c.queued) }

// grant lets the worker seal more when it has used half of what it might. A connection
// begins with little: most of those that are at rest have never needed more.
func (c *conn) grant() {
	w := smallWindow
	if c.granted > 0 {
		w = max(w, c.lane.port.o.Budget.share())
	}
	limit := c.sent + uint64(w)
	if c.ended || c.left() > c.credit/2 || limit < c.granted+uint64(w)/2 {
		return
	}
	c.granted, c.credit = limit, w
	c.account()
	c.lane.port.tell(stream.Event{Kind: stream.EventCredit, Flow: c.id, Limit: limit, From: c.lane})
}

// account tells the budget what the worker may use at any time.
func (c *conn) account() {
	lent := 0
	if !c.ended && !c.over {
		lent = max(c.left()-smallWindow, 0)
	}
	if lent != c.lent {
		c.lane.port.o.Budget.lent.Add(int64(lent - c.lent))
		c.lent = lent
	}
}

// forged ends a connection that brings what is not authentic.
func (c *conn) forged() {
	c.lane.port.o.Counters.Tampered.Add(1)
	c.fail(stream.CodeProtocol)
}

// fail ends a connection from this side and tells the worker why.
func (c *conn) fail(code stream.Code) {
	c.lane.port.tell(stream.Event{Kind: stream.EventReset, Code: code, Flow: c.id, From: c.lane})
	c.abort()
}

// abort ends a connection that the worker has forgotten.
func (c *conn) abort() {
	if c.over {
		return
	}
	c.sock.Abort()
	c.lane.forget(c)
}

// release gives the buffers back.
func (c *conn) release() {
	c.over = true
	c.account()
	if c.slab != nil {
		c.slab.Release()
		c.slab = nil
	}
	for i := range c.out {
		c.out[i].Release()
		c.out[i] = buffer.Seg{}
	}
	if c.out != nil {
		c.lane.port.giveBack(c.out)
		c.out = nil
	}
}
