package scheduler

import "time"

// plain is what the simple connection orders have in common: lines of flows,
// served from the first line on, without users, weights, floors or users'
// rates. They are there to compare with.
type plain[F any] struct {
	lines  []line[F]
	lineOf func(*Node[F]) int
	turns  bool // a flow's turn ends with its quantum
	n      int  // flows in line
	total  bucket
}

type line[F any] struct {
	list[*Node[F]]
	aside     list[*Node[F]] // have passed in this round
	n, passes int
}

// NewRoundRobin returns connection order by turns of one quantum per flow,
// whosever they are. See NewOrder.
func NewRoundRobin[F any](total float64) Order[F] {
	return &plain[F]{
		lines: make([]line[F], 1), turns: true, total: newBucket(total, time.Time{}),
		lineOf: func(*Node[F]) int { return 0 },
	}
}

// NewStrict returns connection order by class, without floors, and in a class
// by arrival: a flow sends until it has nothing left. See NewOrder.
func NewStrict[F any](total float64) Order[F] {
	return &plain[F]{
		lines: make([]line[F], classCount), total: newBucket(total, time.Time{}),
		lineOf: func(n *Node[F]) int { return int(n.class) },
	}
}

func (p *plain[F]) Join(n *Node[F], t Terms, _ time.Time) {
	in := n.Active()
	p.Deactivate(n)
	n.class, n.place.value = t.Class, n
	if in {
		p.Activate(n, time.Time{})
	}
}

func (p *plain[F]) Leave(n *Node[F], _ time.Time) { p.Deactivate(n) }

func (p *plain[F]) Activate(n *Node[F], _ time.Time) {
	if n.Active() || n.place.value == nil {
		return
	}
	n.deficit = Quantum
	l := &p.lines[p.lineOf(n)]
	l.push(&n.place)
	l.n++
	p.n++
}

func (p *plain[F]) Deactivate(n *Node[F]) {
	if n.Active() {
		n.place.unlink()
		p.lines[p.lineOf(n)].n--
		p.n--
	}
}

func (p *plain[F]) Begin(now time.Time) {
	for i := range p.lines {
		p.lines[i].begin()
	}
	p.total.fill(now)
}

// begin is as level's.
func (l *line[F]) begin() {
	l.aside.back(l.passes >= maxPasses, func(*Node[F]) *list[*Node[F]] { return &l.list })
	l.passes = 0
}

func (p *plain[F]) Next() *Node[F] {
	if p.total.empty() {
		return nil
	}
	for i := range p.lines {
		if l := &p.lines[i]; l.head != nil && l.passes < maxPasses {
			return l.head.value
		}
	}
	return nil
}

func (p *plain[F]) Charge(n *Node[F], bytes int) {
	n.sent += bytes
	n.deficit -= bytes
	p.total.take(bytes)
	if p.turns && n.deficit <= 0 && n.Active() {
		n.deficit = Quantum
		n.place.moveTo(&p.lines[p.lineOf(n)].list)
	}
}

// Pass implements Order. The flow keeps its place for the next round.
func (p *plain[F]) Pass(n *Node[F]) {
	l := &p.lines[p.lineOf(n)]
	l.passes++
	n.place.moveTo(&l.aside)
}

func (p *plain[F]) Len() int {
	if p.total.empty() {
		return 0
	}
	return p.n
}

func (p *plain[F]) Wake() time.Time {
	if p.total.empty() {
		return p.total.ready()
	}
	return time.Time{}
}

func (p *plain[F]) Share(*Node[F]) float64 { return 1 / float64(max(p.n, 1)) }
