package relay

import (
	"hawser/pkg/buffer"
	"hawser/pkg/card"
)

// spares bounds what each of a worker's free lists keeps, in items.
const spares = 1024

// node is one Seg of a queue, and the keys that there were when it came: it may wait for
// longer than they are kept for what comes later.
type node struct {
	seg  buffer.Seg
	keys *card.Keys
	next *node
}

// nodes is a worker's free list of nodes, so that a queue allocates nothing in
// steady state and an empty one holds nothing.
type nodes struct {
	free  *node
	count int
}

func (l *nodes) get() *node {
	n := l.free
	if n == nil {
		return &node{}
	}
	l.free = n.next
	l.count--
	n.next = nil
	return n
}

func (l *nodes) put(n *node) {
	n.seg, n.keys = buffer.Seg{}, nil
	if l.count >= spares {
		return
	}
	n.next = l.free
	l.free = n
	l.count++
}

// queue is the sealed stream that has arrived and is not yet opened.
type queue struct {
	head, tail *node
	bytes      int
}

// push appends s, which came while there were keys, and takes its reference.
func (q *queue) push(l *nodes, s buffer.Seg, keys *card.Keys) {
	if s.Len() == 0 {
		s.Release()
		return
	}
	n := l.get()
	n.seg, n.keys = s, keys
	if q.tail == nil {
		q.head = n
	} else {
		q.tail.next = n
	}
	q.tail = n
	q.bytes += s.Len()
}

// pop removes the first Seg and hands its reference to the caller.
func (q *queue) pop(l *nodes) buffer.Seg {
	n := q.head
	s := n.seg
	q.head = n.next
	if q.head == nil {
		q.tail = nil
	}
	q.bytes -= s.Len()
	l.put(n)
	return s
}

// drop releases all.
func (q *queue) drop(l *nodes) {
	for q.head != nil {
		q.pop(l).Release()
	}
}

// peek copies the first bytes to p and returns how many there were.
func (q *queue) peek(p []byte) int {
	n := 0
	for at := q.head; at != nil && n < len(p); at = at.next {
		n += copy(p[n:], at.seg.P)
	}
	return n
}

// take removes the first n bytes, n at least 1 and at most bytes. They come as
// a Seg when they lie in one, which costs no copy; else they are gathered into
// a slab.
func (q *queue) take(l *nodes, n int) (buffer.Seg, *buffer.Buf) {
	switch first := q.head.seg.Len(); {
	case first == n:
		return q.pop(l), nil
	case first > n:
		return q.cut(n), nil
	}
	slab := buffer.Get(n)
	p := slab.Bytes()[:n]
	for len(p) > 0 {
		var s buffer.Seg
		if q.head.seg.Len() <= len(p) {
			s = q.pop(l)
		} else {
			s = q.cut(len(p))
		}
		p = p[copy(p, s.P):]
		s.Release()
	}
	return buffer.Seg{}, slab
}

// cut removes the first n bytes of the first Seg, which is longer.
func (q *queue) cut(n int) buffer.Seg {
	s, rest := q.head.seg.Cut(n)
	q.head.seg = rest
	q.bytes -= n
	return s
}

// task is one block on its way through the card.
type task struct {
	job   card.Job
	flow  *flow
	round uint8 // of the opening direction when it was put; another round's result is stale
	size  int   // sealing: the credit reserved; opening: the sealed bytes of the record
	sent  int   // opening: plain bytes that the party has taken
	next  *task
}

// opening reports which direction t belongs to.
func (t *task) opening() bool { return t.job.Op == card.Open }

// tasks is a worker's free list of tasks.
type tasks struct {
	free  *task
	count int
}

func (l *tasks) get(f *flow) *task {
	t := l.free
	if t == nil {
		t = &task{}
	} else {
		l.free = t.next
		l.count--
	}
	t.flow, t.next = f, nil
	t.job.Owner = t
	return t
}

// put takes back a task that holds no buffer.
func (l *tasks) put(t *task) {
	if l.count >= spares {
		return
	}
	*t = task{next: l.free}
	l.free = t
	l.count++
}

// drop releases what t holds, given or resulted, and takes it back.
func (l *tasks) drop(t *task) {
	if t.job.Slab != nil {
		t.job.Slab.Release()
	}
	t.job.In.Release()
	t.job.Out.Release()
	l.put(t)
}

// results is a direction's finished tasks, oldest first.
type results struct{ head, tail *task }

func (r *results) push(t *task) {
	t.next = nil
	if r.tail == nil {
		r.head = t
	} else {
		r.tail.next = t
	}
	r.tail = t
}

func (r *results) pop() *task {
	t := r.head
	r.head = t.next
	if r.head == nil {
		r.tail = nil
	}
	t.next = nil
	return t
}
