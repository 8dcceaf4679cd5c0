package tunnel

import (
	"fmt"
	"runtime"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
)

// Limits of batches.
const (
	txBatches  = 2         // per connection: one at the transport, one being filled
	rxBatches  = 4         // per connection: the reader waits when the loop is behind
	rxRecords  = 32        // records in a received batch
	rxFrames   = 1 << 10   // frames in it, but for those of its last record
	txRecords  = 32        // records in a batch to send
	batchMin   = 16 << 10  // bytes of bodies in a batch to send, at least
	batchMax   = 256 << 10 // and at most
	batchTime  = 4 * time.Millisecond
	blockSpace = 32 << 10 // bytes of header blocks in a batch
)

// strand is one strand of a connection. The loop owns all fields but those that
// are said to be the reader's or the writer's.
type strand struct {
	conn    *conn
	carrier Strand
	quick   QuickStrand // carrier, or nil if it is none

	apart *apart        // set where the strand has a connection of its own
	stop  chan struct{} // closed when the writer is to end
	end   func(error)   // ends what the strand is carried by

	log      sentLog
	answered time.Time // when the peer last acknowledged something, or its transport did as far as it says of what
	recvSeq  uint64    // records received
	ackDue   bool      // the peer waits for an acknowledgement
	ackNow   bool      // without delay
	recvAt   time.Time // when the newest record that waits for it came

	filling *txBatch
	free    []*txBatch

	out chan *txBatch // to the writer
	rx  chan *rxBatch // emptied batches back to the reader
}

// txBatch is a batch of records on its way to the transport.
type txBatch struct {
	strand *strand
	recs   []wire.Record
	blocks []byte
	bytes  int  // of bodies
	begun  bool // TrySend has begun with it
}

// rxBatch is a batch of received records with their frames decoded.
type rxBatch struct {
	strand *strand
	at     time.Time
	recs   []rxRecord
	frames []wire.Frame
}

// rxRecord is one received record; its frames are frames[from:to].
type rxRecord struct {
	from, to int
	body     buffer.Seg
}

// newStrand returns a strand whose batches have space bytes for header blocks.
func newStrand(c *conn, carrier Strand, space int) *strand {
	st := &strand{
		conn: c, carrier: carrier, stop: c.stop, end: c.carrier.Close,
		out: make(chan *txBatch, txBatches),
		rx:  make(chan *rxBatch, rxBatches),
	}
	st.quick, _ = carrier.(QuickStrand)
	for range txBatches {
		st.free = append(st.free, &txBatch{strand: st, blocks: make([]byte, 0, space)})
	}
	for range rxBatches {
		st.rx <- &rxBatch{strand: st}
	}
	return st
}

// write is the writer goroutine: it ends when stop is closed.
func (st *strand) write(s *Session) {
	for {
		select {
		case <-st.stop:
			return
		case b := <-st.out:
			if err := st.send(b); err != nil {
				st.end(err)
			}
			s.post(func(in *mail) { in.room = append(in.room, b) })
		}
	}
}

// read is the reader: it ends with the carrier's error.
func (st *strand) read(s *Session) error {
	for {
		b := <-st.rx
		if err := b.fill(st.carrier); err != nil {
			b.release()
			return err
		}
		b.at = time.Now()
		alone := b.alone()
		if !s.post(func(in *mail) { in.received = append(in.received, b) }) {
			b.release()
			st.finish()
			return ErrEnded
		}
		if alone {
			runtime.Gosched() // the worker can begin before the next look at the transport
		}
	}
}

// finish ends what the strand is carried by and receives until that says so: it then gives back
// what it has of a record that has come in part.
func (st *strand) finish() {
	st.end(ErrEnded)
	for {
		r, err := st.carrier.Receive()
		if err != nil {
			return
		}
		r.Body.Release()
	}
}

// fill receives at least one record and as many as come without waiting. Frames take more
// memory here than on the link: a byte says PING.
func (b *rxBatch) fill(c Strand) error {
	b.recs, b.frames = b.recs[:0], b.frames[:0]
	for len(b.recs) < rxRecords && len(b.frames) < rxFrames {
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
		for len(block) > 1 && wire.Kind(block[0]) == wire.KindPing && block[1] == block[0] {
			block = block[1:] // it asks for the same answer
		}
		f, rest, err := wire.Next(block)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if f.Kind == wire.KindPad {
			break
		}
		if claimed > 0 && f.Length > 0 {
			return errBody
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
	if cap(b.frames) > 2*rxFrames {
		b.frames = nil // the batch may rest for long
	}
}

// batch returns the batch being filled if it has space for a record with a
// body, or nil: the strand has no room.
func (st *strand) batch() *txBatch {
	if st.filling == nil {
		n := len(st.free)
		if n == 0 {
			return nil
		}
		st.filling = st.free[n-1]
		st.free = st.free[:n-1]
	}
	b := st.filling
	if len(b.recs) >= txRecords || b.bytes >= st.batchLimit() || cap(b.blocks)-len(b.blocks) < wire.MaxBlock {
		return nil
	}
	return b
}

// batchLimit keeps a batch short in time, so that little is bound to the link.
func (st *strand) batchLimit() int {
	return min(max(int(st.conn.link.est.Rate()*batchTime.Seconds()), batchMin), batchMax)
}

// oweAck notes that a record that came asks for an acknowledgement. A small one
// that comes alone may wait for company: the answer to what it carries is
// likely to follow at once.
func (st *strand) oweAck(kind wire.Kind, body int, at time.Time) {
	st.ackNow = st.ackDue || body > ackSmall || kind == wire.KindPing
	st.ackDue, st.recvAt = true, at
}

// ackAt is when an acknowledgement that is due must leave.
func (st *strand) ackAt() time.Time {
	if st.ackNow {
		return st.recvAt
	}
	return st.recvAt.Add(ackDelay)
}

const (
	ackSmall = 2 << 10          // bytes of a body up to which its acknowledgement may wait
	ackDelay = time.Millisecond // for this long
)

// block starts a record's header block and puts due acknowledgements first, where
// they wait behind no bulk.
func (st *strand) block(b *txBatch, now time.Time) []byte {
	blk := b.blocks[len(b.blocks):len(b.blocks):cap(b.blocks)]
	c := st.conn
	for _, of := range c.strands {
		if !of.ackDue || of.acksOn(now) != st {
			continue
		}
		of.ackDue = false
		delay := uint32(min(max(now.Sub(of.recvAt), 0), time.Minute).Microseconds())
		switch {
		case of == c.bulk:
			blk = wire.AppendAck(blk, of.recvSeq, delay)
		case of == c.twin && of.apart == nil:
			blk = wire.AppendTwin(blk, of.recvSeq, delay)
		default:
			blk = wire.AppendUrgent(blk, of.recvSeq, delay)
		}
	}
	return blk
}

// acksOn is the strand that carries the acknowledgements of st's records: the urgent
// one, but where that is a connection of its own those of bulk wait for nothing on the
// bulk connection unless there is bulk this way, too, and cost less there. Nor do they go by
// one that has rested: the peer's bulk would wait for them until that is found to be dead.
func (st *strand) acksOn(now time.Time) *strand {
	c := st.conn
	if st.apart != nil {
		return st
	}
	if c.urgent.apart != nil && st == c.bulk && (c.bulk.log.bytes <= busyBytes || c.urgent.rested(now)) {
		return c.bulk
	}
	return c.urgent
}

// commit closes a record that asks for an answer and logs it.
func (st *strand) commit(b *txBatch, blk []byte, body buffer.Seg, e entry) {
	e.size = st.seal(b, blk, body)
	c := st.conn
	c.rate.stamp(&e, c.inFlight)
	c.inFlight += e.size
	c.probed = e.at
	e.end = c.eye.sent
	e.seq = st.log.count
	st.log.push(e)
}

// seal closes a record and returns its size on the link.
func (st *strand) seal(b *txBatch, blk []byte, body buffer.Seg) int {
	b.blocks = b.blocks[:len(b.blocks)+len(blk)]
	b.recs = append(b.recs, wire.Record{Block: blk, Body: body})
	b.bytes += body.Len()
	size := len(blk) + body.Len() + recordOverhead
	st.conn.link.sentBytes += uint64(size)
	if st.apart == nil {
		st.conn.eye.sent += uint64(size)
	} else {
		st.apart.sent += uint64(size)
	}
	st.log.count++
	return size
}

// holds reports whether p went by the strand, and not by bulk, last.
func (st *strand) holds(p *piece) bool {
	return st != nil && st != st.conn.bulk && st.log.n > 0 && st.log.at(st.log.n-1).piece == p
}

// flush hands the filled batch to the writer, or sends it at once if that is
// little and nothing is before it.
func (st *strand) flush() {
	if st.filling == nil || len(st.filling.recs) == 0 {
		return
	}
	b := st.filling
	st.filling = nil
	st.conn.handed += b.bytes
	if st.quick != nil && b.bytes <= quickMost && len(st.free) == txBatches-1 && st.mayTry() {
		done, err := st.quick.TrySend(b.recs)
		if err != nil {
			st.end(err)
		}
		if done || err != nil {
			st.returned(b)
			return
		}
		b.begun = true
	}
	st.out <- b // never blocks: out has a slot for each batch
}

// quickMost bounds the bodies that are sent without the writer, in bytes. More
// would keep the loop's state busy for longer than the change to the writer
// takes.
const quickMost = 4 << 10

// mayTry reports whether a batch may be sent without the writer. A transport takes
// what is urgent whatever its congestion control says: what the peer has not
// answered bounds that.
func (st *strand) mayTry() bool { return st == st.conn.bulk || st.log.bytes <= unansweredMost }

// unansweredMost is how many bytes an urgent strand may have on their way for that.
const unansweredMost = 64 << 10

// send sends a batch, or the rest of it. The writer calls it.
func (st *strand) send(b *txBatch) error {
	if b.begun {
		return st.quick.Resume(b.recs)
	}
	return st.carrier.Send(b.recs)
}

// returned takes a written batch back.
func (st *strand) returned(b *txBatch) {
	st.conn.handed -= b.bytes
	clear(b.recs)
	b.recs, b.blocks, b.bytes, b.begun = b.recs[:0], b.blocks[:0], 0, false
	st.free = append(st.free, b)
}

// discard releases the bodies of batches that were never written.
func (st *strand) discard() {
	if st.filling != nil {
		st.conn.handed += st.filling.bytes
		st.out <- st.filling
		st.filling = nil
	}
	for {
		select {
		case b := <-st.out:
			st.conn.handed -= b.bytes
			for _, r := range b.recs {
				r.Body.Release()
			}
		default:
			return
		}
	}
}
