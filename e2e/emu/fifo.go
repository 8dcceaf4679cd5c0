package emu

import "time"

// Packet is one frame in the emulator.
type Packet struct {
	// Frame is the Ethernet frame. The model only keeps it.
	Frame []byte
	// Size is what the packet counts for, in IP bytes.
	Size int
}

// item is a packet with a time: of arrival in the queue, of departure in the delay line.
type item struct {
	Packet
	at time.Duration
}

// fifo is a queue of items in a ring that doubles when it is full, so that a link
// in steady state allocates nothing.
type fifo struct {
	ring []item // length is a power of two
	head int
	n    int
}

func (q *fifo) len() int         { return q.n }
func (q *fifo) front() *item     { return q.slot(0) }
func (q *fifo) slot(i int) *item { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

func (q *fifo) push(it item) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.n++
	*q.slot(q.n - 1) = it
}

// insert places it by its time, after the items with the same time. It costs one
// step for each item that it overtakes, so nothing without reordering.
func (q *fifo) insert(it item) {
	q.push(it)
	for i := q.n - 1; i > 0 && q.slot(i-1).at > it.at; i-- {
		*q.slot(i), *q.slot(i - 1) = *q.slot(i - 1), *q.slot(i)
	}
}

func (q *fifo) pop() item {
	it := *q.front()
	*q.front() = item{} // let the frame go
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	return it
}

func (q *fifo) grow() {
	bigger := make([]item, max(64, 2*len(q.ring)))
	for i := range q.n {
		bigger[i] = *q.slot(i)
	}
	q.ring, q.head = bigger, 0
}
