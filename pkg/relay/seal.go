package relay

import (
	"errors"
	"io"
	"math"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/compress"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// stepUp does one action of the sealing direction. It returns the plain bytes
// that were read, and whether anything was done.
func (w *Worker) stepUp(f *flow) (n int, did bool) {
	switch f.up.m.Next() {
	case ActRead:
		n = w.readPlain(f)
	case ActPut:
		w.put(f, &f.up.half)
	case ActSend:
		w.sendSealed(f)
	case ActFinish:
		if f.up.broken {
			w.abort(f, stream.CodeAbort)
			break
		}
		f.session.post(w, stream.Command{Kind: stream.CmdFin, Flow: f.id})
		f.up.m.Finished()
	default:
		return 0, false
	}
	return n, true
}

// room returns how many sealed bytes the credit still allows.
func (u *sealing) room() int {
	used := u.sent + uint64(u.reserved)
	if u.limit <= used {
		return 0
	}
	return int(min(u.limit-used, card.MaxRecord))
}

// credit takes a new limit. The first one says how large the session's window
// is: a quarter of it, at most minRoom, is always worth a record, so a window
// that has been consumed always lets the flow go on, also one that has become
// as small as they may be meanwhile.
func (u *sealing) credit(limit uint64) {
	if u.least == 0 {
		u.least = uint16(min(max(limit/4, card.MinRecord), minRoom))
	}
	u.limit = max(u.limit, limit)
	u.m.Room(u.room() >= int(u.least))
}

// few is what fits the smallest slab, in bytes: whether there are fewer is not worth
// asking.
const few = buffer.Small - card.Overhead

// next is how many bytes to read next; record is how many one holds at most. The slab that
// they are read into is kept until the peer has consumed the record, so it should not be
// much larger than they are: after a block that was not full the party is asked how many
// there are.
func (u *sealing) next(conn party.Conn, record int) int {
	most := min(u.room()-card.Overhead, record)
	if h, ok := conn.(party.Holder); ok && !u.full && most > few {
		return max(min(most, h.Waiting()), few)
	}
	return most
}

// readPlain reads one block from the party into the place in a slab that the
// card wants, so that the record grows around it. Without data the slab goes
// straight back.
func (w *Worker) readPlain(f *flow) int {
	u := &f.up
	if u.counter == math.MaxUint32 {
		w.abort(f, stream.CodeResources) // a nonce is never used twice
		return 0
	}
	most := u.next(f.conn, f.session.tunnel.Record())
	slab := buffer.Get(most + card.Overhead)
	n, err := f.conn.Read(slab.Bytes()[card.HeaderLen : card.HeaderLen+most])
	u.full = n == most
	if n > 0 {
		w.stats.plainUp.Add(uint64(n))
		w.sealBlock(f, slab, n)
		return n
	}
	slab.Release()
	switch {
	case err == nil || errors.Is(err, party.ErrAgain):
		u.m.SourceDry()
	case errors.Is(err, io.EOF):
		u.m.SourceEnd()
	default: // what was read before it is sent before the reset
		u.broken = true
		u.m.SourceEnd()
	}
	return 0
}

// sealBlock puts n plain bytes into the card.
func (w *Worker) sealBlock(f *flow, slab *buffer.Buf, n int) {
	u := &f.up
	t := w.tasks.get(f)
	t.size = n + card.Overhead
	j := &t.job
	j.Op, j.Ring, j.Flow, j.Counter, j.Now = card.Seal, f.session.ring, f.id, u.counter, w.now
	j.Slab, j.N = slab, n
	j.Codec = compress.None
	if !w.o.Plain && n >= compress.Least && u.memory.Try() {
		w.chooser.Note(w.now, n)
		j.Codec = w.chooser.Codec()
	}
	u.counter++
	u.reserved += t.size
	u.m.Room(u.room() >= int(u.least))
	u.refused = t
	u.m.Block()
	w.put(f, &u.half)
}

// sendSealed hands the oldest record to the session, which has room for it.
func (w *Worker) sendSealed(f *flow) {
	u := &f.up
	t := u.done.pop()
	j := &t.job
	if j.Err != nil {
		w.o.Log.Error("card cannot seal", "peer", f.session.tunnel.Tag(), "id", uint64(f.id), "error", j.Err)
		w.tasks.drop(t)
		w.abort(f, stream.CodeResources)
		return
	}
	if j.Codec != compress.None {
		u.memory.Note(j.Used != compress.None)
	}
	n := j.Out.Len()
	u.sent += uint64(n)
	u.reserved -= t.size
	u.m.Sent()
	u.m.Room(u.room() >= int(u.least))
	w.stats.sealed.Add(1)
	w.stats.sealedUp.Add(uint64(n))
	f.session.post(w, stream.Command{Kind: stream.CmdSend, Flow: f.id, Seg: j.Out})
	w.tasks.put(t)
}
