package bbr

import "time"

// sent is what is remembered of a packet in flight, section 4.1.2.2.
type sent struct {
	at          time.Duration
	firstAt     time.Duration // when the newest acknowledged packet had been sent
	deliveredAt time.Duration // when delivered had its value
	delivered   int64
	lost        int64
	size        int32 // 0: the slot is free
	inFlight    int32 // this packet included
	limited     bool
	volley      int32 // 0: none
}

// maxLog bounds the packets that are remembered; more than the QUIC library
// keeps in flight.
const maxLog = 1 << 16

// sentLog finds packets by their number, in a ring over the numbers from
// first to next.
type sentLog struct {
	ring        []sent // length is a power of two
	first, next int64
}

func (l *sentLog) slot(number int64) *sent { return &l.ring[number&int64(len(l.ring)-1)] }

// put remembers a packet. Numbers that do not rise belong to another number
// space and are left out.
func (l *sentLog) put(number int64, p sent) {
	if number < l.next {
		return
	}
	if l.first == l.next || number-l.first >= maxLog {
		l.skip(number)
	}
	for number-l.first >= int64(len(l.ring)) {
		l.grow()
	}
	for ; l.next < number; l.next++ {
		*l.slot(l.next) = sent{}
	}
	*l.slot(number) = p
	l.next = number + 1
}

// skip makes room for number at the cost of the oldest.
func (l *sentLog) skip(number int64) {
	l.first = max(l.first, number-maxLog+1)
	if l.first >= l.next {
		l.first, l.next = number, number
	}
	l.trim()
}

func (l *sentLog) grow() {
	bigger := sentLog{ring: make([]sent, max(64, 2*len(l.ring))), first: l.first, next: l.next}
	for n := l.first; n < l.next; n++ {
		*bigger.slot(n) = *l.slot(n)
	}
	*l = bigger
}

// take returns a packet and forgets it.
func (l *sentLog) take(number int64) (sent, bool) {
	if number < l.first || number >= l.next {
		return sent{}, false
	}
	s := l.slot(number)
	p := *s
	*s = sent{}
	l.trim()
	return p, p.size != 0
}

func (l *sentLog) trim() {
	for l.first < l.next && l.slot(l.first).size == 0 {
		l.first++
	}
}

// sample is what one event says, section 2.3.
type sample struct {
	has            bool          // something was acknowledged
	rate           float64       // delivery rate; 0 if it could not be told
	rtt            time.Duration // of the newest packet acknowledged
	delivered      int           // since that packet was sent
	priorDelivered int64         // before that
	inFlight       int           // when it was sent
	lost           int           // since then
	limited        bool          // it was sent while data was short
	acked          int           // by this event
}

// sampler measures the delivery rate, section 4.1: what was delivered between
// the sending of a packet and its acknowledgement, by the longer of the times
// that the sending and the acknowledging of it took.
type sampler struct {
	log          sentLog
	delivered    int64
	deliveredAt  time.Duration
	firstAt      time.Duration
	lostBytes    int64
	limitedUntil int64 // delivered must exceed it before data counts as plenty; 0: it does

	volleys volleys

	newest       sent // of the present event
	newestNumber int64
	ackedBytes   int

	rate        float64 // the last that could be told
	rateLimited bool
}

func (s *sampler) sent(now time.Duration, number int64, size, inFlight int) {
	if inFlight <= size {
		s.firstAt, s.deliveredAt = now, now
	}
	s.log.put(number, sent{
		at: now, firstAt: s.firstAt, deliveredAt: s.deliveredAt, delivered: s.delivered, lost: s.lostBytes,
		size: int32(size), inFlight: int32(inFlight), limited: s.limitedUntil != 0,
		volley: s.volleys.sent(now),
	})
}

// limit marks all that is in flight, and what is sent until it has been
// delivered, as sent while data was short.
func (s *sampler) limit(inFlight int) { s.limitedUntil = max(s.delivered+int64(inFlight), 1) }

func (s *sampler) acked(now time.Duration, number int64) {
	p, ok := s.log.take(number)
	if !ok {
		return
	}
	s.delivered += int64(p.size)
	s.deliveredAt = now
	s.volleys.acked(p.volley, number, int(p.size))
	s.ackedBytes += int(p.size)
	if s.newest.size == 0 || p.at > s.newest.at || p.at == s.newest.at && number > s.newestNumber {
		s.newest, s.newestNumber = p, number
	}
}

func (s *sampler) lost(number int64) (sent, bool) {
	p, ok := s.log.take(number)
	s.lostBytes += int64(p.size)
	return p, ok
}

// finish closes an event, section 4.1.2.3. A sample that took less than the
// path's own round trip measured a burst of acknowledgements.
func (s *sampler) finish(now, minRTT time.Duration) sample {
	if s.limitedUntil != 0 && s.delivered > s.limitedUntil {
		s.limitedUntil = 0
	}
	s.volleys.settle(now)
	p := s.newest
	if p.size == 0 {
		return sample{}
	}
	rs := sample{
		has: true, rtt: max(now-p.at, time.Microsecond), delivered: int(s.delivered - p.delivered), priorDelivered: p.delivered,
		inFlight: int(p.inFlight), lost: int(s.lostBytes - p.lost), limited: p.limited, acked: s.ackedBytes,
	}
	interval := max(p.at-p.firstAt, s.deliveredAt-p.deliveredAt)
	s.firstAt = max(s.firstAt, p.at)
	s.newest, s.ackedBytes = sent{}, 0
	if interval > 0 && interval >= minRTT {
		rs.rate = float64(rs.delivered) / interval.Seconds()
		s.rate, s.rateLimited = rs.rate, rs.limited
	}
	return rs
}
