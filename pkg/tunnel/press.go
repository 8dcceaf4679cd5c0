package tunnel

import "hawser/scheduler"

// Where no link has room nothing is sent in connection order. What presses is little and
// goes all the same, by links that have another strand for it: where the rate of a link
// has fallen, more is under way than it may have for as long as it takes to drain, and
// people would wait that long.

const (
	pressMost  = 8 << 10 // unanswered bytes that a link's urgent strand may have for that
	pressFlows = 64      // that are looked at; others go in their turn
)

// notePressing is told of flows that have got something to send.
func (s *Session) notePressing(f *flow) {
	if !f.listed && len(s.pressing) < pressFlows && f.send.first != nil && f.send.first.presses() {
		f.listed = true
		s.pressing = append(s.pressing, f)
	}
}

// sendPressing sends what presses and was left by sendChunks for want of room.
func (s *Session) sendPressing() {
	left := s.pressing[:0]
	for _, f := range s.pressing {
		p := f.send.first
		if p == nil || f.done || len(f.send.resend) > 0 || !p.presses() || !f.node.Free() || s.order.Len() == 0 {
			f.listed = false
			continue
		}
		i := s.squeeze(p)
		if i < 0 {
			left = append(left, f)
			continue
		}
		f.listed = false
		s.order.Charge(&f.node, s.sendPiece(s.links[i].conn.strandFor(p, s.now), &s.views[i], p))
		s.sendTwice(i, p)
		s.askWorker(f)
		s.recount(f)
	}
	clear(s.pressing[len(left):])
	s.pressing = left
}

// squeeze is the link on which p arrives first of those whose urgent strand takes it
// though the link may have no room; -1: none.
func (s *Session) squeeze(p *piece) int {
	best, n := -1, min(p.seg.Len(), scheduler.UrgentHead)
	chunk := p.chunk()
	chunk.Size = n
	for i, v := range s.admitted(chunk) {
		c := s.links[i].conn
		if v.State != scheduler.Up || c == nil {
			continue
		}
		if st := c.strandFor(p, s.now); st == nil || st == c.bulk || st.log.bytes+n > pressMost {
			continue
		}
		if best < 0 || v.ETA(n) < s.views[best].ETA(n) {
			best = i
		}
	}
	return best
}
