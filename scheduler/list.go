package scheduler

// elem is a value's place in a list. The zero elem is in none.
type elem[T any] struct {
	value      T
	next, prev *elem[T]
	list       *list[T]
}

// list is a doubly linked list.
type list[T any] struct {
	head, tail *elem[T]
}

func (l *list[T]) push(e *elem[T]) {
	e.list, e.prev, e.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = e
	} else {
		l.head = e
	}
	l.tail = e
}

func (l *list[T]) pushFront(e *elem[T]) {
	e.list, e.prev, e.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = e
	} else {
		l.tail = e
	}
	l.head = e
}

// unlink takes e out of its list, if it is in one.
func (e *elem[T]) unlink() {
	l := e.list
	if l == nil {
		return
	}
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		l.head = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		l.tail = e.prev
	}
	e.next, e.prev, e.list = nil, nil, nil
}

// moveTo puts e at the end of another list, or of the same one.
func (e *elem[T]) moveTo(l *list[T]) {
	e.unlink()
	l.push(e)
}

// back empties l: each goes to the front of the list that to names, so that all keep
// their order, or, with last, to its end.
func (l *list[T]) back(last bool, to func(T) *list[T]) {
	for l.head != nil {
		e := l.tail
		if last {
			e = l.head
		}
		into := to(e.value)
		e.unlink()
		if last {
			into.push(e)
		} else {
			into.pushFront(e)
		}
	}
}
