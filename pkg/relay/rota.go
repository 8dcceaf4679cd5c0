package relay

// rota is the order in which enlisted flows run: sessions take turns, and within a session
// its flows do. Otherwise an edge with a thousand flows would have a thousand times as much
// of a busy worker as an edge with one, and that one would wait for all of them. A session
// that had nothing to run for a while comes first (deficit round robin with the two rows
// of RFC 8290 section 4).
type rota struct {
	turn        int // what a session may move before others have theirs, bytes
	flows       int // that are enlisted
	fresh, seen row
}

// row is a FIFO of sessions that is threaded through them.
type row struct{ head, tail *session }

func (r *row) push(s *session) {
	s.after = nil
	if r.tail == nil {
		r.head = s
	} else {
		r.tail.after = s
	}
	r.tail = s
}

func (r *row) pop() {
	if r.head = r.head.after; r.head == nil {
		r.tail = nil
	}
}

// add puts a flow in the list of its session.
func (r *rota) add(f *flow) {
	s := f.session
	s.run.push(f)
	r.flows++
	if !s.listed {
		s.listed, s.share = true, r.turn
		r.fresh.push(s)
	}
}

// next takes the flow whose turn it is; nil: none is enlisted. What it moves must be taken
// off its session's share.
func (r *rota) next() *flow {
	for {
		from := &r.fresh
		if from.head == nil {
			from = &r.seen
		}
		s := from.head
		switch {
		case s == nil:
			return nil
		case s.share <= 0:
			s.share += r.turn
			from.pop()
			r.seen.push(s)
		case s.run.head != nil:
			r.flows--
			return s.run.pop()
		case from == &r.fresh && r.seen.head != nil:
			from.pop()
			r.seen.push(s) // it comes first again only when the others have had a turn
		default:
			from.pop()
			s.listed = false
		}
	}
}
