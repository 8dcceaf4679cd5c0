package tunnel

import (
	"time"

	"hawser/scheduler"
)

// LinkStatus is one link as status shows it.
type LinkStatus struct {
	LinkInfo
	State       scheduler.State
	Since       time.Time
	MinRTT      time.Duration
	SRTT        time.Duration
	RTTVar      time.Duration
	Trips       uint64        // round trips measured since the session began
	TripTime    time.Duration // that they took, together
	Rate        float64       // predicted capacity away from here, bytes per second
	RateSent    float64       // bytes per second, lately
	RateGot     float64
	BytesSent   uint64 // on the link, headers included
	BytesGot    uint64
	BytesAgain  uint64 // payload that was sent on another link before
	PacketsLost uint64 // as scheduler.Sense has it, of all connections
	InFlight    int
	Cap         int
	Forged      uint64        // records that came so by it, or went so, as far as can be told
	Shunned     time.Duration // it gets nothing that others take for so long, because of them
	Connections uint64        // made since the session began
	LastError   string
	Moves       [scheduler.StateCount]uint64 // times each state was entered
}

// Status is a session as status shows it.
type Status struct {
	Peer   string
	Links  []LinkStatus
	Flows  int
	Counts Counters
}

// Status asks the loop; ok is false when the session has ended.
func (s *Session) Status() (st Status, ok bool) {
	ok = s.call(func() { st = s.snapshot() })
	return st, ok
}

func (s *Session) snapshot() Status {
	st := Status{Peer: s.cfg.Peer, Flows: len(s.flows), Counts: s.count}
	for _, l := range s.links {
		if l.attaches == 0 || l.terms.Removed && l.conn == nil {
			continue // nothing but terms, yet or by now
		}
		st.Links = append(st.Links, l.snapshot(s.now))
	}
	return st
}

func (l *link) snapshot(now time.Time) LinkStatus {
	info := l.info
	info.Terms = l.terms
	st := LinkStatus{
		LinkInfo: info, State: l.health.State(), Since: l.health.Since(),
		MinRTT: l.est.MinRTT(), SRTT: l.est.SRTT(), RTTVar: l.est.RTTVar(), Rate: l.est.Rate(),
		Trips: l.trips, TripTime: l.tripTime,
		RateSent: l.meterUp.rate(now, l.sentBytes), RateGot: l.meterDown.rate(now, l.gotBytes),
		BytesSent: l.sentBytes, BytesGot: l.gotBytes, BytesAgain: l.again, PacketsLost: l.packetsLost,
		Cap: l.est.Cap(), Connections: l.attaches, Moves: l.health.Moves,
	}
	if l.conn != nil {
		st.InFlight = l.conn.inFlight
	}
	st.Forged, st.Shunned = l.forged, max(l.distrust.Until().Sub(now), 0)
	if l.lastErr != nil {
		st.LastError = l.lastErr.Error()
	}
	return st
}

// meter turns a byte counter into a rate over the time between two looks.
type meter struct {
	at    time.Time
	bytes uint64
	last  float64
}

// rate returns bytes per second since the look before; looks closer together
// than a tenth of a second repeat the last answer.
func (m *meter) rate(now time.Time, bytes uint64) float64 {
	gone := now.Sub(m.at)
	switch {
	case m.at.IsZero():
		m.at, m.bytes = now, bytes
	case gone >= 100*time.Millisecond:
		m.last = float64(bytes-m.bytes) / gone.Seconds()
		m.at, m.bytes = now, bytes
	}
	return m.last
}
