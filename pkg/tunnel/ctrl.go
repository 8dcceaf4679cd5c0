package tunnel

// ctrlQueue is the control frames that wait for a link, oldest first, in pieces that are not
// parted: one frame each, or what one record had that is sent again. To take some from the
// front costs what they are, however many wait.
type ctrlQueue struct {
	bytes []byte   // of pieces, those that have gone first
	sizes []uint16 // of each of them
	gone  place    // what has
	tried place    // what waits from there on was not tried where no link is up (tryCtrl)
	asked int      // bytes that were sent and have no answer
}

// place is one in the queue: so many pieces, and their bytes, are before it.
type place struct{ pieces, bytes int }

// wait is how many bytes wait.
func (q *ctrlQueue) wait() int { return len(q.bytes) - q.gone.bytes }

// none says that nothing waits.
func (q *ctrlQueue) none() bool { return q.gone.pieces == len(q.sizes) }

// end is behind all that waits.
func (q *ctrlQueue) end() place { return place{len(q.sizes), len(q.bytes)} }

// add queues what frame appends.
func (q *ctrlQueue) add(frame func([]byte) []byte) {
	n := len(q.bytes)
	q.bytes = frame(q.bytes)
	q.sizes = append(q.sizes, uint16(len(q.bytes)-n))
}

// append appends to a record the pieces from a place on that it has space for. It returns the
// place behind them.
func (q *ctrlQueue) append(blk []byte, from place) ([]byte, place) {
	to := from
	for to.pieces < len(q.sizes) {
		n := int(q.sizes[to.pieces])
		if len(blk)+to.bytes-from.bytes+n > ctrlMax {
			break
		}
		to = place{to.pieces + 1, to.bytes + n}
	}
	return append(blk, q.bytes[from.bytes:to.bytes]...), to
}

// drop takes what is before a place off the queue.
func (q *ctrlQueue) drop(to place) {
	if q.gone = to; q.tried.pieces < to.pieces {
		q.tried = to
	}
	if 2*to.bytes < len(q.bytes) {
		return
	}
	q.bytes = q.bytes[:copy(q.bytes, q.bytes[to.bytes:])]
	q.sizes = q.sizes[:copy(q.sizes, q.sizes[to.pieces:])]
	q.tried = place{q.tried.pieces - to.pieces, q.tried.bytes - to.bytes}
	q.gone = place{}
}

// rest gives the memory back, if nothing waits.
func (q *ctrlQueue) rest() {
	if q.none() {
		*q = ctrlQueue{asked: q.asked}
	}
}

// ctrlMax bounds a record of control frames, in bytes: it fits one packet.
const ctrlMax = 1200
