package tunnel

import (
	"errors"
	"runtime"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Carrier is one established and authenticated link connection.
type Carrier interface {
	// Send writes the records and returns when the transport has taken them:
	// that is the room signal. It releases their bodies. One caller at a time.
	Send(batch []wire.Record) error
	// Receive returns the next record. Its block is valid until the next call,
	// its body belongs to the caller. One caller at a time.
	Receive() (wire.Record, error)
	// Buffered reports whether Receive would return at once; Receive's caller
	// asks.
	Buffered() bool
	// Sense asks the transport what it knows. It may cost a system call.
	Sense() scheduler.Sense
	// Pace asks the transport not to send faster than rate bytes per second,
	// also in bursts; 0 = no limit.
	Pace(rate float64)
	// Close ends both directions at once; Send and Receive return err.
	Close(err error)
}

// QuickCarrier is a Carrier that can send without blocking. TrySend sends the
// batch as Send does, if the transport takes all of it at once. Otherwise it
// returns false, and Resume must be called with the same batch before anything
// else is sent; it sends what is left and blocks as Send does.
type QuickCarrier interface {
	Carrier
	TrySend(batch []wire.Record) (done bool, err error)
	Resume(batch []wire.Record) error
}

// Urger is a Carrier whose transport can be asked to look for more than its own
// congestion control lets pass, as at the start of a connection.
type Urger interface{ Urge() }

// Limits of batches.
const (
	txBatches  = 2         // per connection: one at the transport, one being filled
	rxBatches  = 4         // per connection: the reader waits when the loop is behind
	rxRecords  = 32        // records in a received batch
	txRecords  = 32        // records in a batch to send
	batchMin   = 16 << 10  // bytes of bodies in a batch to send, at least
	batchMax   = 256 << 10 // and at most
	batchTime  = 4 * time.Millisecond
	blockSpace = 32 << 10 // bytes of header blocks in a batch
)

// conn is one connection of a link. The loop owns all fields but those that
// are said to be the reader's or the writer's.
type conn struct {
	link      *link
	info      LinkInfo
	carrier   Carrier
	quick     QuickCarrier // carrier, or nil if it is none
	candidate bool         // waits for its first record (cloud)
	closed    bool
	toldStop  bool  // the goodbye is on its way
	err       error // why the loop closed it

	log      sentLog
	spoke    time.Time // when the peer's last record came
	heard    time.Time // when something of ours was last acknowledged, by the transport too; without its help: when anything came
	probed   time.Time
	recvSeq  uint64    // records received
	ackDue   bool      // the peer waits for an acknowledgement
	ackNow   bool      // without delay
	recvAt   time.Time // when the newest record that waits for it came
	inFlight int
	rate     rateState
	paced    float64 // what the transport was last asked
	eye      eye
	handed   int // bytes of bodies in batches at the writer

	filling *txBatch
	free    []*txBatch

	out  chan *txBatch // to the writer
	stop chan struct{} // closed by Serve: the writer ends
	rx   chan *rxBatch // emptied batches back to the reader
}

// txBatch is a batch of records on its way to the transport.
type txBatch struct {
	conn   *conn
	recs   []wire.Record
	blocks []byte
	bytes  int  // of bodies
	begun  bool // TrySend has begun with it
}

// rxBatch is a batch of received records with their frames decoded.
type rxBatch struct {
	conn   *conn
	at     time.Time
	recs   []rxRecord
	frames []wire.Frame
}

// rxRecord is one received record; its frames are frames[from:to].
type rxRecord struct {
	from, to int
	body     buffer.Seg
}

func newConn(l *link, c Carrier) *conn {
	cn := &conn{
		link: l, carrier: c,
		out:  make(chan *txBatch, txBatches),
		stop: make(chan struct{}),
		rx:   make(chan *rxBatch, rxBatches),
	}
	cn.quick, _ = c.(QuickCarrier)
	cn.rate.limitedTo = 1 // the first probe says nothing about the rate
	for range txBatches {
		cn.free = append(cn.free, &txBatch{conn: cn, blocks: make([]byte, 0, blockSpace)})
	}
	for range rxBatches {
		cn.rx <- &rxBatch{conn: cn}
	}
	return cn
}

// write is the writer goroutine: it ends when stop is closed.
func (c *conn) write(s *Session, done chan<- struct{}) {
	defer close(done)
	for {
		select {
		case <-c.stop:
			return
		case b := <-c.out:
			if err := c.send(b); err != nil {
				c.carrier.Close(err)
			}
			s.post(func(in *mail) { in.room = append(in.room, b) })
		}
	}
}

// read is the reader: it ends with the carrier's error.
func (c *conn) read(s *Session) error {
	for {
		b := <-c.rx
		if err := b.fill(c.carrier); err != nil {
			b.release()
			return err
		}
		b.at = time.Now()
		alone := b.alone()
		if !s.post(func(in *mail) { in.received = append(in.received, b) }) {
			b.release()
			return ErrEnded
		}
		if alone {
			runtime.Gosched() // the worker can begin before the next look at the transport
		}
	}
}

// fill receives at least one record and as many as come without waiting.
func (b *rxBatch) fill(c Carrier) error {
	b.recs, b.frames = b.recs[:0], b.frames[:0]
	for len(b.recs) < rxRecords {
		r, err := c.Receive()
		if err == nil {
			err = b.decode(r.Block, r.Body)
		}
		if err != nil {
			return err
		}
		if !c.Buffered() {
			break
		}
	}
	return nil
}

// alone reports whether the batch is one small record, which somebody may wait
// for.
func (b *rxBatch) alone() bool { return len(b.recs) == 1 && b.recs[0].body.Len() <= ackSmall }

// decode takes the frames of one record apart and checks that the body is
// claimed by exactly one of them (PROTOCOL.md section 4).
func (b *rxBatch) decode(block []byte, body buffer.Seg) error {
	rec := rxRecord{from: len(b.frames), body: body}
	b.recs = append(b.recs, rec)
	claimed := 0
	for len(block) > 0 {
		f, rest, err := wire.Next(block)
		if err != nil {
			return errors.Join(ErrProtocol, err)
		}
		if f.Kind == wire.KindPad {
			break
		}
		claimed += int(f.Length)
		b.frames = append(b.frames, f)
		block = rest
	}
	if claimed != body.Len() {
		return errBody
	}
	b.recs[len(b.recs)-1].to = len(b.frames)
	return nil
}

func (b *rxBatch) release() {
	for i := range b.recs {
		b.recs[i].body.Release()
		b.recs[i].body = buffer.Seg{}
	}
	b.recs = b.recs[:0]
}

// batch returns the batch being filled if it has space for a record with a
// body, or nil: the connection has no room.
func (c *conn) batch() *txBatch {
	if c.filling == nil {
		n := len(c.free)
		if n == 0 {
			return nil
		}
		c.filling = c.free[n-1]
		c.free = c.free[:n-1]
	}
	b := c.filling
	if len(b.recs) >= txRecords || b.bytes >= c.batchLimit() || cap(b.blocks)-len(b.blocks) < wire.MaxBlock {
		return nil
	}
	return b
}

// batchLimit keeps a batch short in time, so that little is bound to the link.
func (c *conn) batchLimit() int {
	return min(max(int(c.link.est.Rate()*batchTime.Seconds()), batchMin), batchMax)
}

// room is how many bytes the connection may take now. The cap is for what is in
// the network; what has arrived and was not acknowledged yet, behind a lost
// packet or because the other end is busy, has a bound of its own.
func (c *conn) room() int {
	if c.closed || c.batch() == nil {
		return 0
	}
	if !c.eye.sense.Known {
		return c.link.est.Cap() - c.inFlight
	}
	most := c.link.est.NetCap()
	return min(most-c.flying(), max(holdGain*most, holdMin)-c.inFlight)
}

// Bounds of what is sent and not acknowledged by the other end's tunnel.
const (
	holdGain = 4 // of the cap
	holdMin  = 128 << 10
)

// oweAck notes that a record that came asks for an acknowledgement. A small one
// that comes alone may wait for company: the answer to what it carries is
// likely to follow at once.
func (c *conn) oweAck(kind wire.Kind, body int, at time.Time) {
	c.ackNow = c.ackDue || body > ackSmall || kind == wire.KindPing
	c.ackDue, c.recvAt = true, at
}

// ackAt is when an acknowledgement that is due must leave.
func (c *conn) ackAt() time.Time {
	if c.ackNow {
		return c.recvAt
	}
	return c.recvAt.Add(ackDelay)
}

const (
	ackSmall = 2 << 10          // bytes of a body up to which its acknowledgement may wait
	ackDelay = time.Millisecond // for this long
)

// block starts a record's header block and puts a due acknowledgement first.
func (c *conn) block(b *txBatch, now time.Time) []byte {
	blk := b.blocks[len(b.blocks):len(b.blocks):cap(b.blocks)]
	if c.ackDue {
		c.ackDue = false
		delay := min(max(now.Sub(c.recvAt), 0), time.Minute)
		blk = wire.AppendAck(blk, c.recvSeq, uint32(delay.Microseconds()))
	}
	return blk
}

// commit closes a record that asks for an answer and logs it.
func (c *conn) commit(b *txBatch, blk []byte, body buffer.Seg, e entry) {
	e.size = c.seal(b, blk, body)
	c.rate.stamp(&e, c.inFlight)
	c.inFlight += e.size
	c.probed = e.at
	e.seq = c.log.count
	c.log.push(e)
}

// seal closes a record and returns its size on the link.
func (c *conn) seal(b *txBatch, blk []byte, body buffer.Seg) int {
	b.blocks = b.blocks[:len(b.blocks)+len(blk)]
	b.recs = append(b.recs, wire.Record{Block: blk, Body: body})
	b.bytes += body.Len()
	size := len(blk) + body.Len() + recordOverhead
	c.link.sentBytes += uint64(size)
	c.eye.sent += uint64(size)
	c.log.count++
	return size
}

// recordOverhead is a link record's prefix and tag, in bytes (PROTOCOL.md
// section 4).
const recordOverhead = 4 + 16

// pace tells the transport of the link's rate when that has moved.
func (c *conn) pace() {
	if u, ok := c.carrier.(Urger); ok && c.link.est.Urge() {
		u.Urge()
	}
	want := c.link.est.Pace()
	if want > c.paced*0.95 && want < c.paced*1.05 || want == c.paced {
		return
	}
	c.paced = want
	c.carrier.Pace(want)
}

// flush hands the filled batch to the writer, or sends it at once if that is
// little and nothing is before it.
func (c *conn) flush() {
	if c.filling == nil || len(c.filling.recs) == 0 {
		return
	}
	b := c.filling
	c.filling = nil
	c.handed += b.bytes
	if c.quick != nil && b.bytes <= quickMost && len(c.free) == txBatches-1 {
		done, err := c.quick.TrySend(b.recs)
		if err != nil {
			c.carrier.Close(err)
		}
		if done || err != nil {
			c.returned(b)
			return
		}
		b.begun = true
	}
	c.out <- b // never blocks: out has a slot for each batch
}

// quickMost bounds the bodies that are sent without the writer, in bytes. More
// would keep the loop's state busy for longer than the change to the writer
// takes.
const quickMost = 4 << 10

// send sends a batch, or the rest of it. The writer calls it.
func (c *conn) send(b *txBatch) error {
	if b.begun {
		return c.quick.Resume(b.recs)
	}
	return c.carrier.Send(b.recs)
}

// returned takes a written batch back.
func (c *conn) returned(b *txBatch) {
	c.handed -= b.bytes
	clear(b.recs)
	b.recs, b.blocks, b.bytes, b.begun = b.recs[:0], b.blocks[:0], 0, false
	c.free = append(c.free, b)
}

// discard releases the bodies of batches that were never written.
func (c *conn) discard() {
	if c.filling != nil {
		c.out <- c.filling
		c.filling = nil
	}
	for {
		select {
		case b := <-c.out:
			for _, r := range b.recs {
				r.Body.Release()
			}
		default:
			return
		}
	}
}

// evidence is what health judges by.
func (c *conn) evidence() scheduler.Evidence {
	if c == nil || c.closed {
		return scheduler.Evidence{}
	}
	return scheduler.Evidence{Connected: true, Heard: c.heard, Oldest: c.log.oldest(), LastProbe: c.probed, Arrived: c.arrived()}
}
