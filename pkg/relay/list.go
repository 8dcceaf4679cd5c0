package relay

// list is a FIFO of flows that is threaded through them.
type list struct{ head, tail *flow }

func (l *list) push(f *flow) {
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *list) pop() *flow {
	f := l.head
	if l.head = f.next; l.head == nil {
		l.tail = nil
	}
	f.next = nil
	return f
}

// enlist puts a flow among those to run, unless it is there or runs now.
func (w *Worker) enlist(f *flow) {
	if f.listed || f == w.current {
		return
	}
	f.listed = true
	w.rota.add(f)
}

// park puts a flow among those that wait for a place in the card.
func (w *Worker) park(f *flow) {
	if f.parked {
		return
	}
	f.parked = true
	if w.waiting.tail == nil {
		w.waiting.head = f
	} else {
		w.waiting.tail.behind = f
	}
	w.waiting.tail = f
}

// unpark lets the flow that has waited longest for the card try again. It is
// called per result, and per block that is given up instead of put. A flow
// waits only while the card holds blocks, whose results call again; and each
// block that is put at such a call keeps the chain going.
func (w *Worker) unpark() {
	for f := w.waiting.head; f != nil; f = w.waiting.head {
		w.waiting.head = f.behind
		if w.waiting.head == nil {
			w.waiting.tail = nil
		}
		f.behind, f.parked = nil, false
		if f.state == over {
			continue
		}
		f.up.m.CardReady()
		f.down.m.CardReady()
		w.enlist(f)
		return
	}
}
