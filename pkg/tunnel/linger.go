package tunnel

import (
	"time"

	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// Of a party that resets its connection the other end still gets what it sent just
// before, as it does without us: a server that refuses an upload answers, closes with
// bytes unread, and resets the connection by that. The RESET would overtake the answer.
const (
	lastWords  = 64 << 10        // bytes that a RESET waits for, at most: what two ends without us may have under way
	lingerTime = 5 * time.Second // how long it waits
)

// dying is a flow whose RESET waits for the peer to consume what was sent before it.
type dying struct {
	id stream.ID
	at time.Time // when it waits no longer
}

// linger keeps a flow that its worker has reset until the peer has consumed all; false:
// it is to be reset at once. A client that gives up before its server is there is gone.
func (s *Session) linger(f *flow) bool {
	if f.send.held == 0 || f.send.held > lastWords || s.cfg.Edge && !f.stands {
		return false
	}
	f.done, f.dying = true, true
	s.dying = append(s.dying, dying{f.id, s.now.Add(lingerTime)})
	return true
}

// endDying resets the flows that have waited long enough.
func (s *Session) endDying() {
	n := 0
	for ; n < len(s.dying) && !s.now.Before(s.dying[n].at); n++ {
		if f := s.flows[s.dying[n].id]; f != nil {
			s.sayReset(f, stream.CodeAbort)
		}
	}
	if s.dying = s.dying[n:]; len(s.dying) == 0 {
		s.dying = nil
	}
}

// sayReset tells the peer that a flow is over, and forgets it.
func (s *Session) sayReset(f *flow, code stream.Code) {
	s.addCtrl(func(b []byte) []byte { return wire.AppendReset(b, uint64(f.id), uint8(code)) })
	s.dropFlow(f)
}
