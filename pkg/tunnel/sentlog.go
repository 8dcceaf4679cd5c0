package tunnel

import (
	"time"

	"hawser/scheduler"
)

// entry is what was sent in one record that asks for an answer.
type entry struct {
	seq        uint64 // the record's place in the order of sending, as both ends count it
	at         time.Time
	size       int
	end        uint64 // bytes of records that the connection was given until then
	piece      *piece // the chunk it carries, or nil
	turn       int    // of the piece when it was sent
	ctrl       []byte // control frames that must reach the peer, or nil
	pred       time.Duration
	moved      bool // its contents were queued again elsewhere
	appLimited bool
	probe      bool // it only asks for the answer
	twin       bool // a copy follows by the strand's twin

	delivered   uint64    // rateState at the time of sending
	deliveredAt time.Time //
	firstSent   time.Time //
}

// sentLog is the records of one strand that ask for an answer and have
// none yet, in order. Records that ask for none are only counted.
type sentLog struct {
	ring   []entry // a power of two long
	start  int
	n      int
	count  uint64 // records sent, of either kind
	bytes  int    // of those without an answer
	probes int    // of these
}

func (l *sentLog) at(i int) *entry { return &l.ring[(l.start+i)&(len(l.ring)-1)] }

func (l *sentLog) push(e entry) {
	if l.n == len(l.ring) {
		grown := make([]entry, max(16, 2*len(l.ring)))
		for i := range l.n {
			grown[i] = *l.at(i)
		}
		l.ring, l.start = grown, 0
	}
	l.n++
	l.bytes += e.size
	if e.probe {
		l.probes++
	}
	*l.at(l.n - 1) = e
}

// pop removes the oldest entry.
func (l *sentLog) pop() entry {
	e := *l.at(0)
	*l.at(0) = entry{}
	l.start = (l.start + 1) & (len(l.ring) - 1)
	l.n--
	l.bytes -= e.size
	if e.probe {
		l.probes--
	}
	return e
}

// oldest is when the oldest record without an answer was sent; zero: none.
func (l *sentLog) oldest() time.Time {
	if l.n == 0 {
		return time.Time{}
	}
	return l.at(0).at
}

// rateState measures the delivery rate
// (draft-cheng-iccrg-delivery-rate-estimation section 3).
type rateState struct {
	delivered   uint64
	deliveredAt time.Time
	firstSent   time.Time
	limitedTo   uint64    // samples are application-limited until this much was delivered
	roundEnd    uint64    // delivered at which the current round trip ends
	restAt      time.Time // when the last flight that began at rest did
	firstAcked  uint64    // delivered after the first acknowledgement of it
	firstAckAt  time.Time
}

// stamp notes the state of delivery in an entry at its sending.
func (r *rateState) stamp(e *entry, inFlight int) {
	if inFlight == 0 {
		r.firstSent, r.deliveredAt = e.at, e.at
	}
	e.delivered, e.deliveredAt, e.firstSent = r.delivered, r.deliveredAt, r.firstSent
	e.appLimited = r.limitedTo > r.delivered
}

// unanswered reports whether nothing was acknowledged since the last rest.
func (r *rateState) unanswered() bool { return r.firstSent.Equal(r.deliveredAt) }

// limited notes that there was nothing more to send.
func (r *rateState) limited(inFlight int) { r.limitedTo = r.delivered + uint64(inFlight) + 1 }

// sample makes a sample of the newest entry that an acknowledgement covers.
func (r *rateState) sample(now time.Time, e entry, delay time.Duration) scheduler.Sample {
	s := scheduler.Sample{AppLimited: e.appLimited, RTT: max(now.Sub(e.at)-delay, time.Microsecond)}
	s.Delivered = int(r.delivered - e.delivered)
	s.Interval = max(now.Sub(e.deliveredAt), e.at.Sub(e.firstSent))
	if s.FromRest = e.deliveredAt.Equal(e.firstSent); s.FromRest {
		if !r.restAt.Equal(e.firstSent) {
			r.restAt, r.firstAcked, r.firstAckAt = e.firstSent, r.delivered, now
		}
		s.First, s.Since = int(r.firstAcked-e.delivered), now.Sub(r.firstAckAt)
	}
	if e.delivered >= r.roundEnd {
		s.Round = true
		r.roundEnd = r.delivered
	}
	r.firstSent, r.deliveredAt = e.at, now
	return s
}
