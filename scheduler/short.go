package scheduler

import "time"

// Constants of short.
const (
	shortRounds = 3                      // in a row in which the transport holds a link without a queue
	shortFor    = 250 * time.Millisecond // of that, at least: a busy machine looks the same for a moment
	shortRest   = 4                      // rounds after it was asked for more, before it is asked again
	shortMost   = 256                    // the same where that has brought nothing again and again
)

// short notices that a transport's congestion control holds back a link that has
// no queue: bytes wait at the transport though the path would take them. Where
// the transport was asked for more and has not found any, it is asked again only
// after twice as many rounds.
type short struct {
	looks, waits int // in this round
	rounds       int // in a row; below 0: rest
	rest         int
	bw           float64 // when it was asked last
	since        time.Time
	held         time.Duration // since the first of the rounds
}

func (s *short) look(v View) {
	s.looks++
	if v.waiting() > max(waitMost, v.Flying/8) {
		s.waits++
	}
}

// close ends a round.
func (s *short) close(now time.Time, idle bool, bw float64) {
	held := s.waits*2 > s.looks && idle
	s.looks, s.waits = 0, 0
	switch {
	case s.rounds < 0:
		if s.rounds++; s.rounds == 0 && bw > fullGrowth*s.bw {
			s.rest = 0
		}
	case held:
		if s.rounds++; s.rounds == 1 {
			s.since = now
		}
		s.held = now.Sub(s.since)
		s.bw = bw
	default:
		s.rounds = 0
	}
}

// urge reports whether the transport should be asked.
func (s *short) urge() bool {
	if s.rounds < shortRounds || s.held < shortFor {
		return false
	}
	s.rest = min(max(2*s.rest, shortRest), shortMost)
	s.rounds = -s.rest
	return true
}
