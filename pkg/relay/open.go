package relay

import (
	"errors"
	"io"
	"math"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// stepDown does one action of the opening direction. It returns the plain
// bytes that the party took, and whether anything was done.
func (w *Worker) stepDown(f *flow) (n int, did bool) {
	switch f.down.m.Next() {
	case ActRead:
		w.openRecord(f)
	case ActPut:
		w.put(f, &f.down.half)
	case ActSend:
		n = w.writePlain(f)
	case ActFinish:
		if err := f.conn.CloseWrite(); err != nil {
			w.sever(f)
			return 0, true
		}
		f.down.m.Finished()
	default:
		return 0, false
	}
	return n, true
}

// data takes the next bytes of the sealed stream, which keys open.
func (d *opening) data(l *nodes, s buffer.Seg, keys *card.Keys) {
	if d.rewind {
		s.Release()
		return
	}
	d.received += uint64(s.Len())
	d.rx.push(l, s, keys)
	d.ripen()
}

// ended notes where the sealed stream ends. The place stays known when the
// session goes back.
func (d *opening) ended() {
	if d.rewind {
		return
	}
	d.fin, d.finAt = true, d.received
	d.ripen()
}

// ripen tells the machine whether a record can be taken from rx, or the end.
func (d *opening) ripen() {
	if d.need == 0 && !d.bad {
		d.measure()
	}
	atEnd := d.fin && d.received == d.finAt
	switch {
	case d.rewind:
		d.m.SourceDry()
	case d.need > 0 && d.rx.bytes >= int(d.need):
		d.m.SourceReady()
	case !d.m.Idle():
		// What follows may yet be void: an end, or what cannot be a record,
		// waits until all before it is delivered.
		d.m.SourceDry()
	case atEnd && d.rx.bytes == 0:
		d.m.SourceEnd()
	case d.bad || atEnd: // also an end inside a record
		d.bad = true
		d.m.SourceReady()
	default:
		d.m.SourceDry()
	}
}

// measure reads the header of the record that is first in rx.
func (d *opening) measure() {
	var p [card.HeaderLen]byte
	if d.rx.peek(p[:]) < len(p) {
		return
	}
	h, err := card.ParseHeader(p[:])
	d.need, d.bad = uint16(h.Len), err != nil
}

// openRecord puts the first record of rx into the card.
func (w *Worker) openRecord(f *flow) {
	d := &f.down
	if d.bad || d.counter == math.MaxUint32 {
		w.reject(f)
		return
	}
	t := w.tasks.get(f)
	t.size, t.sent, t.round = int(d.need), 0, d.round
	j := &t.job
	j.Op, j.Ring, j.Flow, j.Counter, j.Now = card.Open, f.session.ring, f.id, d.counter, w.now
	j.Since = d.rx.head.keys
	j.In, j.Slab = d.rx.take(&w.nodes, t.size)
	j.N = t.size
	d.counter++
	d.need = 0
	d.refused = t
	d.m.Block()
	d.ripen()
	w.put(f, &d.half)
}

// writePlain gives the finished blocks to the party, in one call.
func (w *Worker) writePlain(f *flow) int {
	d := &f.down
	vec := w.vec[:0]
	for t := d.done.head; t != nil && t.job.Err == nil; t = t.next {
		vec = append(vec, t.job.Out.P[t.sent:])
	}
	if len(vec) == 0 {
		w.reject(f)
		return 0
	}
	n, err := f.conn.Writev(vec)
	clear(vec) // no reference to a block outlives the call
	w.vec = vec[:0]
	w.stats.plainDown.Add(uint64(n))
	switch {
	case w.delivered(d, n):
	case err == nil || errors.Is(err, party.ErrAgain):
		d.m.SinkFull()
		d.trickle.full(w.now)
		return n
	default:
		w.sever(f)
	}
	d.trickle.took(n, w.now)
	return n
}

// delivered notes that the party has n more bytes, and returns whether that is
// all there was for it. The sealed bytes of a block count as consumed when the
// party has all of it, so a slow party holds back the peer.
func (w *Worker) delivered(d *opening, n int) bool {
	for t := d.done.head; t != nil && t.job.Err == nil; t = d.done.head {
		left := t.job.Out.Len() - t.sent
		if n < left {
			t.sent += n
			return false
		}
		n -= left
		d.done.pop()
		d.consumed += uint64(t.size)
		d.unposted += t.size
		d.tries = 0
		w.stats.opened.Add(1)
		w.stats.sealedDown.Add(uint64(t.size))
		w.tasks.drop(t)
		d.m.Sent()
	}
	d.ripen()
	return true
}

// reject asks for the stream anew from the first record that is not
// delivered: all before it is consumed by now. What is held beyond is void; a
// block that is still in the card, or waits for it, is known by its round.
func (w *Worker) reject(f *flow) {
	d := &f.down
	w.stats.forged.Add(1)
	d.tries++
	if d.tries >= attempts || d.counter == math.MaxUint32 {
		peer := f.session.tunnel.Tag()
		w.quiet.Warn(peer+" forges", "record refused for good", "peer", peer, "id", uint64(f.id), "offset", d.consumed)
		w.abort(f, stream.CodeProtocol)
		return
	}
	size := d.refusedSize()
	if d.done.head != nil {
		d.counter = d.done.head.job.Counter
	}
	for d.done.head != nil {
		w.tasks.drop(d.done.pop())
		d.m.Dropped()
	}
	d.rx.drop(&w.nodes)
	d.round++
	d.received = d.consumed
	d.need, d.bad, d.rewind = 0, false, true
	d.ripen()
	w.postConsumed(f)
	f.session.post(w, stream.Command{Kind: stream.CmdReject, Flow: f.id, Bytes: size})
}

// refusedSize is how many bytes there are of the record that is refused: of one whose header
// is none that, and of one that the stream ends in what has come.
func (d *opening) refusedSize() int {
	switch {
	case d.done.head != nil:
		return d.done.head.size
	case d.need == 0:
		return min(card.HeaderLen, d.rx.bytes)
	}
	return d.rx.bytes
}

// rewound notes that what comes now follows the consumed bytes.
func (d *opening) rewound() {
	d.rewind = false
	d.ripen()
}

// postConsumed tells the session what was delivered since it was told last.
func (w *Worker) postConsumed(f *flow) {
	if n := f.down.unposted; n > 0 {
		f.down.unposted = 0
		f.session.post(w, stream.Command{Kind: stream.CmdConsumed, Flow: f.id, Bytes: n, Room: f.room()})
	}
}

// orderly reports whether a read error is none of the connection's.
func orderly(err error) bool {
	return errors.Is(err, party.ErrAgain) || errors.Is(err, io.EOF)
}
