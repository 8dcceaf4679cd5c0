// Package quota keeps account of what a link may carry in a month: how much it
// has, whether that is more than its share of the time gone, and when the next
// month begins. It counts by the counters of the link's interface, which go on
// while the program does not run, so that a crash loses nothing.
//
// The package starts no goroutines.
package quota

import "time"

// Plan is what was agreed with who sells the link.
type Plan struct {
	Bytes uint64 // per month, both directions together
	Day   int    // of the month on which it begins, 1 to 31; a shorter month begins it on its last day
}

// State is what must survive a restart. The zero value is a link that was never
// counted.
type State struct {
	Begun     time.Time `json:"begun"`         // when the month began
	Used      uint64    `json:"used"`          // bytes since then
	Interface string    `json:"interface"`     // on which Total was read
	Index     int       `json:"index"`         // the kernel's number of it
	Boot      string    `json:"boot,omitzero"` // the start of the kernel that has counted; "" of older versions
	Total     uint64    `json:"total"`         // bytes that the kernel had counted on it
	Sent      uint64    `json:"sent,omitzero"` // of them, if Boot is known
	Left      Month     `json:"left,omitzero"` // the other month, where the clock has leapt over whole months
}

// Reading is what the kernel has counted on a link's interface since that was made.
type Reading struct {
	Interface string
	Index     int    // the kernel's number of it: another one, and it was made anew
	Boot      string // tells this start of the kernel from others; "" if that is not known
	Sent      uint64 // bytes
	Received  uint64
}

// Month is one that a clock which leaps has left.
type Month struct {
	Begun time.Time `json:"begun"`
	Used  uint64    `json:"used"` // bytes in the earlier of the two before the leap
}

// Verdict says how a link may be used.
type Verdict uint8

// Verdicts.
const (
	Within Verdict = iota // as configured
	Ahead                 // it has carried more than its share of the time gone: spare it
	Spent                 // the month's quota is used up: only when nothing else is left
)

// String returns the verdict's word for status and logs.
func (v Verdict) String() string { return [...]string{"within", "ahead", "spent"}[v] }

// burstShare is what may be used before its time: a day's share of a month.
const burstShare = 30

// againShare is how much a link that was ahead must have regained before it is
// used again, as a share of the burst, so that it does not come and go.
const againShare = 8

// shortest is less than any month, and more than time zones and clocks differ by.
const shortest = 20 * 24 * time.Hour

// leap is more than from the beginning of a month to that of the next: the box was off in
// between, or its clock is wrong.
const leap = 40 * 24 * time.Hour

// Meter counts one link's bytes against its plan. One goroutine owns it.
type Meter struct {
	plan    Plan
	state   State
	verdict Verdict
}

// New returns a meter that goes on from a state.
func New(p Plan, s State) *Meter { return &Meter{plan: p, state: s} }

// State returns what must be kept.
func (m *Meter) State() State { return m.state }

// Count takes in what the kernel has counted on the link's interface and returns the
// verdict.
func (m *Meter) Count(now time.Time, r Reading) Verdict {
	m.turn(now)
	s := &m.state
	s.Used += s.news(r)
	s.Interface, s.Index, s.Boot, s.Total, s.Sent = r.Interface, r.Index, r.Boot, r.Sent+r.Received, r.Sent
	return m.Judge(now)
}

// news is how much of a reading came since the one in s. After a start of the kernel, whose
// numbers of interfaces are often the same again, and where the interface was made anew,
// that is all of it.
func (s *State) news(r Reading) uint64 {
	total := r.Sent + r.Received
	switch {
	case s.Interface != r.Interface:
		return 0 // never counted, or configured anew
	case s.Index != r.Index:
		return total
	case s.Boot == "" || r.Boot == "":
		return grown(total, s.Total)
	case s.Boot != r.Boot:
		return total
	}
	return grown(r.Sent, s.Sent) + grown(r.Received, s.Total-s.Sent)
}

// grown is by how much a counter has. One that is less than before began anew, such as one of
// 32 bits that was full: each direction's does for itself.
func grown(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// Judge says how the link may be used at now, while its interface is missing too.
func (m *Meter) Judge(now time.Time) Verdict {
	m.turn(now)
	allowed := m.Allowed(now)
	again := m.plan.Bytes / burstShare / againShare
	switch used := m.state.Used; {
	case used >= m.plan.Bytes:
		m.verdict = Spent
	case used >= allowed, m.verdict == Ahead && used+again > allowed:
		m.verdict = Ahead
	default:
		m.verdict = Within
	}
	return m.verdict
}

// Allowed is what the link may have carried by now: the share of the month that
// has gone, and a burst. What was not used stays allowed.
func (m *Meter) Allowed(now time.Time) uint64 {
	begin, end := m.Month()
	gone := max(now.Sub(begin).Seconds(), 0) / end.Sub(begin).Seconds()
	return min(uint64(gone*float64(m.plan.Bytes))+m.plan.Bytes/burstShare, m.plan.Bytes)
}

// Month returns when the month that is counted began and when it ends.
func (m *Meter) Month() (begin, end time.Time) {
	begin = m.state.Begun
	well := begin.Add(shortest)
	year, month, _ := well.Date()
	if end = m.begins(year, month, begin.Location()); !end.After(well) {
		end = m.begins(year, month+1, begin.Location())
	}
	return begin, end
}

// turn begins a new month when one has begun. A clock that stands before the
// month that is counted is wrong, as that of a box without a battery is until
// it has asked for the time: it begins nothing, unless it was wrong before. Nor does a
// step that is too short for a month: the box has travelled to another time zone, or its
// configuration names another day.
func (m *Meter) turn(now time.Time) {
	s, begin := &m.state, m.monthOf(now)
	switch ahead := begin.Sub(s.Begun); {
	case ahead > shortest && m.left(begin):
		s.Used -= min(s.Left.Used, s.Used)
		s.Begun, s.Left.Begun = begin, s.Begun
	case ahead > leap && !s.Begun.IsZero():
		s.Left = Month{s.Begun, s.Used}
		s.Begun, s.Used = begin, 0
	case ahead > shortest:
		if s.Left.Begun.After(s.Begun) {
			s.Left = Month{} // a part of the month before
		}
		s.Begun, s.Used = begin, 0
	case ahead < -shortest && m.left(begin):
		s.Used += s.Left.Used
		s.Begun, s.Left.Begun = begin, s.Begun
	case ahead < -shortest && !s.Left.Begun.IsZero() && begin.After(s.Left.Begun):
		s.Begun, s.Left = begin, Month{} // it leapt, and a month has begun meanwhile
	default:
		s.Begun = s.Begun.In(now.Location())
	}
}

// left reports whether the month that begins then is the one that the clock has leapt from.
// A clock that says 2036 until the box has asked for the time leaps back for good, or the
// month that it leapt to would be counted for years; one that says 1970 after each start
// does so again and again. Which of them is right is not known, so that what is carried
// meanwhile counts for the month to which the clock comes back, in either direction.
func (m *Meter) left(begin time.Time) bool {
	was := m.state.Left.Begun
	return !was.IsZero() && begin.Sub(was).Abs() < shortest
}

// monthOf returns when the month in which now lies began.
func (m *Meter) monthOf(now time.Time) time.Time {
	year, month, _ := now.Date()
	begin := m.begins(year, month, now.Location())
	if begin.After(now) {
		begin = m.begins(year, month-1, now.Location())
	}
	return begin
}

// begins returns the plan's day in a month; month may be 0 or 13.
func (m *Meter) begins(year int, month time.Month, in *time.Location) time.Time {
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, in).Day()
	return time.Date(year, month, min(m.plan.Day, last), 0, 0, 0, 0, in)
}
