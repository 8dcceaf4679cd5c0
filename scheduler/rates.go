package scheduler

import "time"

// settle puts a user where its buckets say: out of line at its limit, in class
// privileged within its guarantee, else in its own class.
func (d *DRR[F]) settle(u *user[F]) {
	u.limit.fill(d.now)
	u.guarantee.fill(d.now)
	held := u.held
	if u.limit.rate == 0 {
		held = false
	} else if u.limit.tokens <= 0 {
		held = true
	} else if u.limit.tokens >= enough {
		held = false
	}
	if to := u.class(); to != u.level || held != u.held {
		d.move(u, to, held)
	}
	d.timers.set(u, u.wakes())
}

// enough tokens let a user back in: those of a chunk, but for what is lost in
// rounding times to nanoseconds.
const enough = Quantum - 64

// class is where the user belongs now.
func (u *user[F]) class() Class {
	c := u.terms.Class
	if u.guarantee.rate == 0 {
		return c
	}
	if u.guarantee.tokens >= enough || u.guarantee.tokens > 0 && u.level == Privileged {
		return Privileged
	}
	return max(c, Normal)
}

// move takes a user to another level, or out of line and back.
func (d *DRR[F]) move(u *user[F], to Class, held bool) {
	listed := u.place.list != nil || u.held
	d.count(u, -1)
	u.place.unlink()
	u.level, u.held = to, held
	d.count(u, 1)
	if held {
		return
	}
	if listed && u.flows > 0 {
		u.deficit = min(max(u.deficit, 1), u.quantum())
		d.levels[to].old.push(&u.place)
	}
}

// wakes is when the user's buckets change where it belongs; zero: they do not.
// Only users with flows in line need be woken.
func (u *user[F]) wakes() time.Time {
	switch {
	case u.flows == 0:
		return time.Time{}
	case u.held:
		return u.limit.ready()
	case u.guarantee.rate > 0 && u.level != Privileged:
		return u.guarantee.ready()
	}
	return time.Time{}
}

// timers is a heap of users by the time at which they are due.
type timers[F any] struct{ heap []*user[F] }

// first is when the first user is due; zero: none is.
func (t *timers[F]) first() time.Time {
	if len(t.heap) == 0 {
		return time.Time{}
	}
	return t.heap[0].due
}

// expired removes and returns a user that is due.
func (t *timers[F]) expired(now time.Time) *user[F] {
	if len(t.heap) == 0 || t.heap[0].due.After(now) {
		return nil
	}
	u := t.heap[0]
	t.remove(u)
	return u
}

// set makes a user due at a time; zero: never.
func (t *timers[F]) set(u *user[F], due time.Time) {
	switch {
	case due.IsZero():
		t.remove(u)
		return
	case u.timer == 0:
		t.heap = append(t.heap, u)
		u.timer = len(t.heap)
	}
	u.due = due
	t.down(t.up(u.timer - 1))
}

func (t *timers[F]) remove(u *user[F]) {
	if u.timer == 0 {
		return
	}
	i, last := u.timer-1, len(t.heap)-1
	t.swap(i, last)
	t.heap[last] = nil
	t.heap = t.heap[:last]
	u.timer = 0
	if i < last {
		t.down(t.up(i))
	}
}

func (t *timers[F]) swap(i, j int) {
	t.heap[i], t.heap[j] = t.heap[j], t.heap[i]
	t.heap[i].timer, t.heap[j].timer = i+1, j+1
}

func (t *timers[F]) up(i int) int {
	for i > 0 && t.heap[i].due.Before(t.heap[(i-1)/2].due) {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	return i
}

func (t *timers[F]) down(i int) {
	for {
		child := 2*i + 1
		if child+1 < len(t.heap) && t.heap[child+1].due.Before(t.heap[child].due) {
			child++
		}
		if child >= len(t.heap) || !t.heap[child].due.Before(t.heap[i].due) {
			return
		}
		t.swap(i, child)
		i = child
	}
}
