package scheduler

import "time"

// State is a link's state of health.
//
// Down: no connection stands.
//
// Probing: a connection stands, but nothing was heard for so long that another
// one must be made beside it. Nothing is sent but probes; whichever answers first
// makes the link Up again.
//
// Up: carries data. A fresh connection does so at once: its handshake was an answer.
//
// Suspect: something outstanding is overdue and nothing was acknowledged since.
// What comes from the other end is no proof: a path may be dead one way.
// It gets no new data, what it holds is sent again elsewhere, and anything
// heard makes it Up again at once.
type State uint8

// States of a link.
const (
	Down State = iota
	Probing
	Up
	Suspect
	StateCount // how many there are
)

// String returns the state's word for status and logs.
func (s State) String() string {
	return [StateCount]string{"down", "probing", "up", "suspect"}[s]
}

// Bounds of the silence that makes a link suspect and then only probed.
const (
	suspectMin = 60 * time.Millisecond
	suspectMax = 500 * time.Millisecond // but for lines that take longer for an answer
	lagMost    = 5 * time.Second        // that one may take
	lagPackets = 4
	muteMore   = 500 * time.Millisecond
	probingMin = time.Second
	probingMax = 3 * time.Second
	probeBusy  = 200 * time.Millisecond
	probeIdle  = time.Second
	probeRest  = 10 * time.Second
)

// Evidence is what a link's owner knows when it asks.
type Evidence struct {
	Connected bool
	Heard     time.Time // when something sent was last acknowledged, or anything came where that is all that is known; the handshake is the first
	Oldest    time.Time // when the oldest unanswered record that asks for an answer was sent; zero: none
	LastProbe time.Time // when something that asks for an answer was last sent
	Asking    bool      // what is unanswered are probes alone
	Resting   bool      // nobody would use the link now: every byte on it costs
	Arrived   bool      // the peer's end has all that was sent: it is slow, not the path
}

// Health is one link's state machine. Step is the only function that changes
// the state.
type Health struct {
	state State
	since time.Time
	Moves [StateCount]uint64 // times each state was entered
}

// State returns the current state.
func (h *Health) State() State { return h.state }

// Since returns when the state was entered.
func (h *Health) Since() time.Time { return h.since }

// Step judges the evidence at now. It returns whether the state changed.
func (h *Health) Step(now time.Time, ev Evidence, e *Estimator) bool {
	next := h.judge(now, ev, e)
	if next == h.state {
		return false
	}
	h.state, h.since = next, now
	h.Moves[next]++
	return true
}

func (h *Health) judge(now time.Time, ev Evidence, e *Estimator) State {
	if !ev.Connected {
		return Down
	}
	silence := Silence(now, ev)
	switch {
	case silence > ProbingAfter(e):
		return Probing
	case silence > SuspectAfter(e) && !ev.Arrived:
		if h.state == Probing {
			return Probing
		}
		return Suspect
	}
	return Up
}

// Silence is how long the other end has failed to say anything although it
// should have: since the later of the last byte heard and the oldest
// unanswered record.
func Silence(now time.Time, ev Evidence) time.Duration {
	if ev.Oldest.IsZero() {
		return 0
	}
	from := ev.Oldest
	if ev.Heard.After(from) {
		from = ev.Heard
	}
	return now.Sub(from)
}

// Falter is a silence that is longer than round trips explain, or 0.
func Falter(e *Estimator, silence time.Duration) time.Duration {
	if silence <= e.SRTT()+mendSilence {
		return 0
	}
	return silence
}

// SuspectAfter is the silence that makes a link suspect: one and a half probe
// time-outs. A wrong suspicion costs at most a window of copies, a late one
// costs everybody a stall.
func SuspectAfter(e *Estimator) time.Duration {
	return min(max(e.PTO()*3/2, suspectMin), max(suspectMax, e.lag()))
}

// lag is how long a line that is well may be silent: a round trip, and the time that it
// takes for some packets, as a transport acknowledges the second, and that may wait
// behind others. At 10 kbit/s that is 5 s: where two such lines were suspected after half a
// second, each was sent again what the other had, for ever.
func (e *Estimator) lag() time.Duration {
	lag := e.minRTT * 5 / 4
	if rate := max(e.rate, e.bw); rate > 0 {
		lag += Link{Rate: rate}.drain(lagPackets * packet)
	}
	return min(lag, lagMost)
}

// MuteAfter is for how long the peer's program may owe an answer before it counts
// as stopped. Behind a lost packet answers wait while the path is well, so that
// this is far beyond what makes a link suspect.
func MuteAfter(e *Estimator) time.Duration { return SuspectAfter(e) + muteMore }

// ProbingAfter is the silence after which another connection is made.
func ProbingAfter(e *Estimator) time.Duration {
	return min(max(3*e.PTO(), probingMin), max(probingMax, 2*e.lag()))
}

// ProbeDue reports whether a probe should be sent, and when to ask again.
//
// A probe is itself outstanding for a round trip: where that is longer than probeBusy
// each would call for the next, for ever.
func (h *Health) ProbeDue(now time.Time, ev Evidence, e *Estimator) (bool, time.Duration) {
	every := probeIdle
	switch {
	case h.state != Up || !ev.Oldest.IsZero() && !(ev.Asking && Silence(now, ev) < e.PTO()):
		every = probeBusy
	case ev.Resting:
		every = probeRest
	}
	since := now.Sub(ev.LastProbe)
	if since >= every {
		return true, every
	}
	return false, every - since
}
