package scheduler

import "time"

// Quantum is what a flow, and a user of weight 1, may send in its turn, in
// bytes. No chunk is larger.
const Quantum = 16 << 10

// NewFlow is how much a flow may have sent and still count as new, in bytes:
// new flows of a user are served before its old ones, so that short exchanges
// do not queue behind bulk (the sparse-flow rule of FQ-CoDel, RFC 8290 section
// 4.1).
const NewFlow = 256 << 10

// freshTurns is how many turns those who are served first may take in a row
// before one of the others gets one, so that nobody starves.
const freshTurns = 8

// floorShare is what a class keeps however much the classes above it have to
// send.
const floorShare = 0.05

// DRR is connection order by deficit round robin (Shreedhar and Varghese,
// SIGCOMM'95) in three levels: strict classes with a floor for each lower one,
// users by weight, flows of a user evenly. Users that come out of idleness are
// served before those that send all the time, once per quantum.
//
// A user with a guarantee is in class privileged while its bucket has tokens,
// and below otherwise; one that is at its limit is out of line until its bucket
// has some again. All operations take constant time, whatever the number of
// flows and users; those of users with rates take the logarithm of the number
// of such users.
type DRR[F any] struct {
	users  map[User]*user[F]
	levels [classCount]level[F]
	timers timers[F] // users that wait for a bucket
	idle   list[*user[F]]
	total  bucket
	now    time.Time
	round  uint64
}

// level is one class.
type level[F any] struct {
	fresh, old list[*user[F]]
	aside      list[*user[F]] // have passed in this round with all their flows
	spent      bool           // nobody else is left to ask in this round
	turns      int            // of fresh users in a row
	flows      int            // in line, of users in these lists
	weight     int            // of users with flows in line
	passes     int            // in this round
	owed       float64        // bytes of the floor that were not served yet
}

// user is one user's flows. It may stand in a level's list without any in line:
// it keeps its place until its turn comes, so that it gains nothing by short
// silences.
type user[F any] struct {
	key        User
	terms      Terms
	refs       int // flows that have joined
	flows      int // flows in line
	fresh, old list[*Node[F]]
	aside      list[*Node[F]] // have passed in its round
	turns      int            // of fresh flows in a row
	deficit    int
	round      uint64 // in which it was asked last
	passes     int    // in that round
	newly      bool   // it came aside from the fresh ones
	level      Class  // in whose lists it stands, or would
	held       bool   // at its limit: in no list
	place      elem[*user[F]]
	guarantee  bucket
	limit      bucket
	timer      int       // index in the heap, from 1; 0: none
	due        time.Time // of the timer
}

// NewDRR returns an empty order; see NewOrder.
func NewDRR[F any](total float64) *DRR[F] {
	return &DRR[F]{users: map[User]*user[F]{}, total: newBucket(total, time.Time{})}
}

// Join implements Order.
func (d *DRR[F]) Join(n *Node[F], t Terms, now time.Time) {
	if n.Active() {
		defer d.Activate(n, now)
	}
	d.Leave(n, now)
	d.tick(now)
	d.forgetIdle()
	u := d.users[t.User]
	if u == nil {
		u = &user[F]{key: t.User}
		u.place.value = u
		d.users[t.User] = u
	}
	if u.refs == 0 {
		d.awaken(u)
	}
	u.refs++
	n.user, n.class, n.place.value = u, t.Class, n
	d.count(u, -1)
	u.terms = t
	d.count(u, 1)
	u.guarantee.setRate(t.Guarantee, now)
	u.guarantee.forgive()
	u.limit.setRate(t.Limit, now)
	d.settle(u)
}

// awaken takes a user off the idle ones.
func (d *DRR[F]) awaken(u *user[F]) {
	if u.place.list == &d.idle {
		u.place.unlink()
	}
}

// Leave implements Order. A user without flows is remembered until its buckets
// are full, or it would gain by beginning anew.
func (d *DRR[F]) Leave(n *Node[F], now time.Time) {
	u := n.user
	if u == nil {
		return
	}
	d.tick(now)
	d.Deactivate(n)
	n.user = nil
	if u.refs--; u.refs > 0 {
		return
	}
	u.place.unlink()
	d.timers.remove(u)
	u.held, u.deficit = false, 0
	if u.limit.rate == 0 && u.guarantee.rate == 0 {
		delete(d.users, u.key)
		return
	}
	d.idle.push(&u.place)
}

// forgetIdle drops some users that need not be remembered any more: two for
// each that may be added.
func (d *DRR[F]) forgetIdle() {
	for range 2 {
		if d.idle.head == nil {
			return
		}
		u := d.idle.head.value
		if u.limit.full().After(d.now) || u.guarantee.full().After(d.now) {
			u.place.moveTo(&d.idle)
			return
		}
		u.place.unlink()
		delete(d.users, u.key)
	}
}

// Activate implements Order.
func (d *DRR[F]) Activate(n *Node[F], now time.Time) {
	u := n.user
	if u == nil || n.Active() {
		return
	}
	d.tick(now)
	n.deficit = Quantum
	u.line(n).push(&n.place)
	d.count(u, -1)
	u.flows++
	d.count(u, 1)
	if u.flows == 1 {
		d.settle(u)
	}
	if u.place.list == nil && !u.held {
		u.deficit = u.quantum()
		d.levels[u.level].fresh.push(&u.place)
	}
}

// count adds a user to what its level counts, or takes it off (sign -1).
func (d *DRR[F]) count(u *user[F], sign int) {
	if u.held || u.flows == 0 {
		return
	}
	l := &d.levels[u.level]
	l.flows += sign * u.flows
	l.weight += sign * max(u.terms.Weight, 1)
}

// Deactivate implements Order.
func (d *DRR[F]) Deactivate(n *Node[F]) {
	if !n.Active() {
		return
	}
	n.place.unlink()
	d.count(n.user, -1)
	n.user.flows--
	d.count(n.user, 1)
}

// Begin implements Order.
func (d *DRR[F]) Begin(now time.Time) {
	d.tick(now)
	d.round++
	for i := range d.levels {
		d.levels[i].begin()
	}
}

// begin lets those who stood aside back to their places: in front, so that
// waiting costs them nothing. Where so many have passed that nobody else was asked,
// they go to the end, and others are asked now.
func (l *level[F]) begin() {
	l.aside.back(l.passes >= maxPasses, func(u *user[F]) *list[*user[F]] {
		if u.newly {
			return &l.fresh
		}
		return &l.old
	})
	l.passes, l.spent = 0, false
}

// tick moves the clock, and those users whose buckets are ready.
func (d *DRR[F]) tick(now time.Time) {
	d.now = now
	d.total.fill(now)
	for u := d.timers.expired(now); u != nil; u = d.timers.expired(now) {
		d.settle(u)
	}
}

// Next implements Order.
func (d *DRR[F]) Next() *Node[F] {
	if d.total.empty() {
		return nil
	}
	for {
		l := d.turn()
		if l == nil {
			return nil
		}
		u := l.turn()
		if u == nil {
			l.spent = true
			continue
		}
		u.begin(d.round)
		if n := u.next(); n != nil {
			return n
		}
		l.stepAside(u)
	}
}

// turn picks the class: a lower one when its floor is due, else the highest
// that has flows in line.
func (d *DRR[F]) turn() *level[F] {
	var best *level[F]
	for c := range d.levels {
		l := &d.levels[c]
		switch {
		case l.flows == 0 || l.spent || l.passes >= maxPasses:
		case best == nil:
			best = l
		case l.owed >= Quantum:
			return l
		}
	}
	return best
}

// turn picks the user. Users without flows in line lose their place when their
// turn comes: the fresh ones to the old, the old ones for good. It returns nil when
// all who are left stand aside.
func (l *level[F]) turn() *user[F] {
	for {
		first := &l.fresh
		if first.head == nil || l.turns >= freshTurns && l.old.head != nil {
			first = &l.old
		}
		if first.head == nil {
			return nil
		}
		u := first.head.value
		switch {
		case u.flows > 0:
			return u
		case first == &l.fresh:
			u.place.moveTo(&l.old)
		default:
			u.place.unlink()
		}
	}
}

// begin is level.begin for a user's flows.
func (u *user[F]) begin(round uint64) {
	if u.round == round {
		return
	}
	u.aside.back(u.passes >= maxPasses, u.line)
	u.round, u.passes = round, 0
}

// line is where a flow stands.
func (u *user[F]) line(n *Node[F]) *list[*Node[F]] {
	if n.sent < NewFlow {
		return &u.fresh
	}
	return &u.old
}

// next is the flow whose turn it is; nil: all that are in line stand aside.
func (u *user[F]) next() *Node[F] {
	switch {
	case u.fresh.head != nil && (u.old.head == nil || u.turns < freshTurns):
		return u.fresh.head.value
	case u.old.head != nil:
		return u.old.head.value
	}
	return nil
}

func (u *user[F]) quantum() int { return max(u.terms.Weight, 1) * Quantum }

// Charge implements Order.
func (d *DRR[F]) Charge(n *Node[F], bytes int) {
	u := n.user
	if u == nil {
		return
	}
	n.sent += bytes
	n.deficit -= bytes
	u.deficit -= bytes
	d.total.take(bytes)
	d.owe(u.level, bytes)
	if n.deficit <= 0 && n.Active() {
		u.rotate(n)
	}
	if u.deficit <= 0 && u.place.list != nil {
		d.rotate(u)
	}
	if u.limit.rate > 0 || u.guarantee.rate > 0 {
		u.limit.fill(d.now)
		u.guarantee.fill(d.now)
		u.limit.take(bytes)
		u.guarantee.take(bytes)
		u.guarantee.forgive()
		d.settle(u)
	}
}

// owe notes what a class has sent, for the floors of those below it.
func (d *DRR[F]) owe(sent Class, bytes int) {
	l := &d.levels[sent]
	l.owed = max(0, l.owed-float64(bytes))
	for c := sent + 1; c < classCount; c++ {
		if l := &d.levels[c]; l.flows > 0 {
			l.owed = min(l.owed+floorShare*float64(bytes), 4*Quantum)
		}
	}
}

// rotate ends a flow's turn: to the end of its user's line, or from new to old.
func (u *user[F]) rotate(n *Node[F]) {
	u.turned(n)
	n.deficit = max(n.deficit, -8*Quantum) + Quantum
	n.place.moveTo(u.line(n))
}

func (u *user[F]) turned(n *Node[F]) {
	if n.place.list == &u.fresh {
		u.turns++
	} else {
		u.turns = 0
	}
}

// rotate ends a user's turn.
func (d *DRR[F]) rotate(u *user[F]) {
	l := &d.levels[u.level]
	l.turned(u)
	u.deficit = max(u.deficit, -8*Quantum) + u.quantum()
	u.place.moveTo(&l.old)
}

func (l *level[F]) turned(u *user[F]) {
	if u.place.list == &l.fresh {
		l.turns++
	} else {
		l.turns = 0
	}
}

// Pass implements Order. Flow and user keep what they may send. The flow stands aside
// for the rest of the round, and so does the user when all its flows were asked, and
// both keep their places: at the end of the line, those who would rather wait for a
// faster link got less than their weight.
func (d *DRR[F]) Pass(n *Node[F]) {
	u := n.user
	l := &d.levels[u.level]
	l.passes++
	u.passes++
	u.turned(n)
	n.place.moveTo(&u.aside)
	if u.fresh.head == nil && u.old.head == nil {
		l.turned(u)
		l.stepAside(u)
	}
}

// stepAside takes a user out of line for the rest of the round.
func (l *level[F]) stepAside(u *user[F]) {
	u.newly = u.place.list == &l.fresh
	u.place.moveTo(&l.aside)
}

// Len implements Order.
func (d *DRR[F]) Len() int {
	if d.total.empty() {
		return 0
	}
	n := 0
	for i := range d.levels {
		n += d.levels[i].flows
	}
	return n
}

// Wake implements Order.
func (d *DRR[F]) Wake() time.Time {
	due := d.timers.first()
	if d.total.empty() && (due.IsZero() || d.total.ready().Before(due)) {
		due = d.total.ready()
	}
	return due
}

// Share implements Order: by weight among the users of its class, and evenly
// among the user's flows.
func (d *DRR[F]) Share(n *Node[F]) float64 {
	u := n.user
	if u == nil {
		return 1
	}
	all := d.levels[u.level].weight
	if u.held || u.flows == 0 {
		all += max(u.terms.Weight, 1)
	}
	return float64(max(u.terms.Weight, 1)) / float64(all*max(u.flows, 1))
}
