package guard

import "time"

// recents is how many answers a Recent remembers.
const recents = 512

// resend is when an answer is sent again: after the first and, counted from
// there, the second of these times (RFC 6298 section 2.1).
var resend = [...]time.Duration{time.Second, 2 * time.Second}

// Recent remembers the last SYN-ACKs for a while and says which of them to send
// again. Cookies need no memory, but a client whose ACK is lost, and whose
// server speaks first, says nothing more: only another SYN-ACK makes it repeat
// the ACK. And one whose first segments are lost, but not the next, is known by it.
// The memory is fixed; a flood overwrites it, and then only such clients suffer.
//
// It is not safe for concurrent use.
type Recent struct {
	ring  [recents]answer
	index map[Ends]int // places in ring
	next  int          // place to be overwritten
}

// answer is one SYN-ACK.
type answer struct {
	ends  Ends
	v6    bool
	used  bool
	tries int
	due   time.Time
	seg   Segment
}

// NewRecent returns an empty memory.
func NewRecent() *Recent { return &Recent{index: make(map[Ends]int, recents)} }

// Add notes that an answer was sent. One that is known keeps its times.
func (r *Recent) Add(e *Ends, v6 bool, s *Segment, now time.Time) {
	i, known := r.index[*e]
	if known && r.ring[i].seg.Ack == s.Ack {
		r.ring[i].seg = *s
		return
	}
	if !known {
		i = r.next
		r.next = (r.next + 1) % recents
		if r.ring[i].used {
			delete(r.index, r.ring[i].ends)
		}
		r.index[*e] = i
	}
	r.ring[i] = answer{ends: *e, v6: v6, used: true, due: now.Add(resend[0]), seg: *s}
}

// Settle forgets an answer: the client has sent a valid ACK.
func (r *Recent) Settle(e *Ends) {
	if i, ok := r.index[*e]; ok {
		delete(r.index, *e)
		r.ring[i] = answer{}
	}
}

// Awaits says whether an answer waits for its ACK, and ack acknowledges it. A segment that
// does is the client's, although it may not be the first that he has sent since.
func (r *Recent) Awaits(e *Ends, ack uint32) bool {
	i, ok := r.index[*e]
	return ok && r.ring[i].seg.Seq+1 == ack
}

// Each calls send for what is due now, and returns when to call again: ok is
// false if nothing is left.
func (r *Recent) Each(now time.Time, send func(e *Ends, v6 bool, s *Segment)) (next time.Time, ok bool) {
	if len(r.index) == 0 {
		return next, false
	}
	for i := range r.ring {
		a := &r.ring[i]
		if !a.used {
			continue
		}
		if !now.Before(a.due) {
			send(&a.ends, a.v6, &a.seg)
			if a.tries++; a.tries == len(resend) {
				delete(r.index, a.ends)
				*a = answer{}
				continue
			}
			a.due = now.Add(resend[a.tries])
		}
		if !ok || a.due.Before(next) {
			next, ok = a.due, true
		}
	}
	return next, ok
}
