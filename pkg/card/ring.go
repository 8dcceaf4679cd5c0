package card

import "sync/atomic"

// ring is a bounded queue between one producer, one worker and the producer
// again: the producer puts a job, the worker does it where it stands, and the
// producer gets it. There is no lock and no second queue: three indices walk
// over the same places in the order got <= done <= put. Each is written by one
// side only; put and done lie on cache lines of their own.
type ring struct {
	slots []*Job // a power of two
	mask  uint64
	limit uint64 // most jobs inside

	_    [64]byte
	put  atomic.Uint64 // written by the producer
	got  uint64        // the producer's own
	_    [64]byte
	done atomic.Uint64 // written by the worker
	_    [64]byte
}

// size makes the ring hold at most limit jobs.
func (r *ring) size(limit int) {
	n := 1
	for n < limit {
		n *= 2
	}
	r.slots, r.mask, r.limit = make([]*Job, n), uint64(n-1), uint64(limit)
}

// push adds a job; false when the ring is full. Producer.
func (r *ring) push(j *Job) bool {
	put := r.put.Load()
	if put-r.got >= r.limit {
		return false
	}
	r.slots[put&r.mask] = j
	r.put.Store(put + 1)
	return true
}

// pop removes the oldest job that is done, or returns nil. Producer.
func (r *ring) pop() *Job {
	if !r.ready() {
		return nil
	}
	at := &r.slots[r.got&r.mask]
	j := *at
	*at = nil
	r.got++
	return j
}

// ready reports whether pop has something. Producer.
func (r *ring) ready() bool { return r.got != r.done.Load() }

// next returns the oldest job that is not done, or nil. Worker.
func (r *ring) next() *Job {
	done := r.done.Load()
	if done == r.put.Load() {
		return nil
	}
	return r.slots[done&r.mask]
}

// finish hands the job that next returned back. Worker.
func (r *ring) finish() { r.done.Store(r.done.Load() + 1) }

// drop releases all that is inside. Nobody else may use the ring any more.
func (r *ring) drop() {
	for ; r.got != r.put.Load(); r.got++ {
		at := &r.slots[r.got&r.mask]
		(*at).drop()
		*at = nil
	}
}
