package scheduler

// Quantum is what a flow may send in its turn, in bytes.
const Quantum = 16 << 10

// NewFlow is how much a flow may have sent and still count as new, in bytes:
// new flows are served before old ones, so that short exchanges do not queue
// behind bulk (the sparse-flow rule of FQ-CoDel, RFC 8290 section 4.1).
const NewFlow = 256 << 10

// Node is a flow's place in a DRR. The zero Node is idle. It belongs to its DRR.
type Node[F any] struct {
	Flow       F
	deficit    int
	sent       int
	next, prev *Node[F]
	list       *ring[F]
}

// DRR is connection order by deficit round robin (Shreedhar and Varghese,
// SIGCOMM'95) over the flows that have something to send, in two lists: new
// flows, then old ones. All operations take constant time, whatever the number
// of idle flows.
type DRR[F any] struct {
	fresh, old ring[F]
	turns      int // fresh turns in a row; old flows keep a share
}

// freshTurns is how many turns new flows may take before an old one gets one,
// so that a stream of new flows cannot starve the others.
const freshTurns = 8

// Activate puts a flow in line. It does nothing when it already is.
func (d *DRR[F]) Activate(n *Node[F]) {
	if n.list != nil {
		return
	}
	n.deficit = Quantum
	if n.sent < NewFlow {
		d.fresh.push(n)
	} else {
		d.old.push(n)
	}
}

// Remove takes a flow out of line: it has nothing to send or is gone.
func (d *DRR[F]) Remove(n *Node[F]) {
	if n.list != nil {
		n.list.remove(n)
	}
}

// Next returns the flow whose turn it is, or nil. It stays in line.
func (d *DRR[F]) Next() *Node[F] {
	if d.fresh.head != nil && (d.old.head == nil || d.turns < freshTurns) {
		return d.fresh.head
	}
	return d.old.head
}

// Charge takes n sent bytes off the flow's deficit; a flow that has spent it
// goes to the end of the line, or from new to old.
func (d *DRR[F]) Charge(node *Node[F], n int) {
	node.sent += n
	node.deficit -= n
	if node.deficit <= 0 {
		d.Rotate(node)
	}
}

// Rotate ends the flow's turn.
func (d *DRR[F]) Rotate(node *Node[F]) {
	if node.list == &d.fresh {
		d.turns++
	} else {
		d.turns = 0
	}
	if node.list != nil {
		node.list.remove(node)
	}
	node.deficit = max(node.deficit, -8*Quantum) + Quantum
	if node.sent < NewFlow {
		d.fresh.push(node)
	} else {
		d.old.push(node)
	}
}

// Len returns the number of flows in line.
func (d *DRR[F]) Len() int { return d.fresh.n + d.old.n }

// ring is a doubly linked list.
type ring[F any] struct {
	head, tail *Node[F]
	n          int
}

func (r *ring[F]) push(n *Node[F]) {
	n.list, n.prev, n.next = r, r.tail, nil
	if r.tail != nil {
		r.tail.next = n
	} else {
		r.head = n
	}
	r.tail = n
	r.n++
}

func (r *ring[F]) remove(n *Node[F]) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		r.head = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		r.tail = n.prev
	}
	n.list, n.prev, n.next = nil, nil, nil
	r.n--
}
