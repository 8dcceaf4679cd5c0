package scheduler

import (
	"testing"
	"time"
)

// patient is a link under observation.
type patient struct {
	t   *testing.T
	h   Health
	e   Estimator
	now time.Time
	ev  Evidence
}

func newPatient(t *testing.T, rtt time.Duration) *patient {
	p := &patient{t: t, now: time.Unix(1000, 0)}
	for range 20 {
		p.e.Ack(p.now, Sample{RTT: rtt})
	}
	return p
}

func (p *patient) connect() { p.ev = Evidence{Connected: true, Heard: p.now}; p.step() }
func (p *patient) send() {
	if p.ev.Oldest.IsZero() {
		p.ev.Oldest = p.now
	}
	p.ev.LastProbe = p.now
	p.step()
}
func (p *patient) hear() { p.ev.Heard, p.ev.Oldest = p.now, time.Time{}; p.step() }
func (p *patient) pass(d time.Duration) {
	p.now = p.now.Add(d)
	p.step()
}
func (p *patient) step() { p.h.Step(p.now, p.ev, &p.e) }
func (p *patient) want(s State) {
	p.t.Helper()
	if p.h.State() != s {
		p.t.Fatalf("%v, want %v", p.h.State(), s)
	}
}

func TestHealth(t *testing.T) {
	p := newPatient(t, 20*ms)
	p.want(Down)
	p.connect()
	p.want(Up)
	p.pass(time.Hour) // nothing is outstanding: silence is no news
	p.want(Up)
	p.send()
	p.pass(55 * ms)
	p.want(Up)
	p.pass(10 * ms)
	p.want(Suspect)
	p.hear()
	p.want(Up)
	p.send()
	p.pass(500 * ms)
	p.want(Suspect)
	p.pass(600 * ms)
	p.want(Probing)
	p.pass(time.Hour)
	p.want(Probing)
	p.hear()
	p.want(Up)
	p.ev.Connected = false
	p.step()
	p.want(Down)
	p.connect()
	p.want(Up)
	p.send()
	p.pass(2 * time.Second)
	p.want(Probing)
	p.ev.Connected = false
	p.step()
	p.want(Down)
	if p.h.Moves[Suspect] != 2 || p.h.Moves[Up] != 4 {
		t.Errorf("moves %v", p.h.Moves)
	}
}

// TestHealthBounds: quick links are not suspected in a blink, slow ones not
// left for seconds.
func TestHealthBounds(t *testing.T) {
	for _, c := range []struct{ rtt, suspect, probing time.Duration }{
		{ms, suspectMin, probingMin},
		{20 * ms, 60 * ms, probingMin},
		{100 * ms, 165 * ms, probingMin},
		{300 * ms, 465 * ms, probingMin},
		{400 * ms, suspectMax, 1230 * ms},
		{600 * ms, 750 * ms, 1830 * ms}, // an answer takes longer than suspectMax
		{3 * time.Second, 3750 * ms, 7500 * ms},
		{10 * time.Second, lagMost, 2 * lagMost},
	} {
		p := newPatient(t, c.rtt)
		if s, d := SuspectAfter(&p.e), ProbingAfter(&p.e); (s-c.suspect).Abs() > 5*ms || (d-c.probing).Abs() > 10*ms {
			t.Errorf("rtt %v: suspect after %v, probing after %v; want %v, %v", c.rtt, s, d, c.suspect, c.probing)
		}
	}
}

// TestHealthOfSlowLines: a line is not suspected for what it takes for some packets, once
// that is known, however few answers there are; usual lines are as soon as ever.
func TestHealthOfSlowLines(t *testing.T) {
	for _, c := range []struct {
		kbit        float64
		least, most time.Duration
	}{
		{8, lagMost, lagMost}, {10, 4 * time.Second, lagMost}, {16, 2900 * ms, lagMost}, {64, 720 * ms, 1500 * ms},
		{160, suspectMax, suspectMax}, {1000, suspectMax, suspectMax},
	} {
		p := newPatient(t, 80*ms)
		rate := c.kbit * 125
		took := time.Duration(packet / rate * float64(time.Second))
		for range 20 {
			p.now = p.now.Add(took)
			p.e.Ack(p.now, Sample{RTT: 80*ms + 3*took, Delivered: packet, Interval: took})
		}
		if c.kbit > 64 { // or the variation is what bounds it
			for range 2 {
				p.e.Ack(p.now, Sample{RTT: time.Second})
			}
		}
		if got := SuspectAfter(&p.e); got < c.least || got > c.most {
			t.Errorf("%v kbit/s: suspect after %v, wanted %v to %v", c.kbit, got, c.least, c.most)
		}
		if after := ProbingAfter(&p.e); after < SuspectAfter(&p.e)*3/2 {
			t.Errorf("%v kbit/s: probing after %v", c.kbit, after)
		}
	}
}

func TestProbes(t *testing.T) {
	p := newPatient(t, 20*ms)
	p.connect()
	if due, _ := p.h.ProbeDue(p.now, p.ev, &p.e); !due {
		t.Error("a fresh connection is not probed")
	}
	p.send()
	if due, next := p.h.ProbeDue(p.now, p.ev, &p.e); due || next != probeBusy {
		t.Errorf("while something is outstanding: due %v, next %v", due, next)
	}
	p.hear()
	if _, next := p.h.ProbeDue(p.now, p.ev, &p.e); next != probeIdle {
		t.Errorf("idle: next %v", next)
	}
	p.ev.Resting = true
	if due, next := p.h.ProbeDue(p.now.Add(2*time.Second), p.ev, &p.e); due || next < 7*time.Second || next > probeRest {
		t.Errorf("resting: due %v, next %v", due, next)
	}
	p.ev.Resting = false
}

// TestFalter: the wait for an answer is a round trip, and no silence.
func TestFalter(t *testing.T) {
	p := newPath()
	p.deliver(125_000, 20*ms, 20*ms, false)
	for silence, want := range map[time.Duration]time.Duration{0: 0, 20 * ms: 0, 29 * ms: 0, 31 * ms: 31 * ms, time.Second: time.Second} {
		if got := Falter(&p.e, silence); got != want {
			t.Errorf("%v: %v, want %v", silence, got, want)
		}
	}
}
