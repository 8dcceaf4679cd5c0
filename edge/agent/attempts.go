package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"

	"hawser/pkg/link"
)

// attempts are the tries of one race to connect an uplink. It belongs to the
// goroutine that races; each attempt is a goroutine of its own, and end waits
// for them.
type attempts struct {
	uplink   *uplink
	parent   context.Context
	ctx      context.Context // of the attempts under way
	cancel   context.CancelFunc
	results  chan attempt
	running  int
	number   int // of the newest attempt
	patient  int // number of the attempt that may take its full time; 0 if none
	begin    time.Time
	interval time.Duration
	lost     bool // the uplink was connected until just now
}

func newAttempts(u *uplink, ctx context.Context, lost bool) *attempts {
	r := &attempts{uplink: u, parent: ctx, results: make(chan attempt), begin: time.Now(), interval: raceFirst, lost: lost}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// start begins one attempt. The oldest may take as long as a slow path needs,
// those beside it less: on a path that came back the newest is the quickest.
func (r *attempts) start() {
	if r.running >= raceWidth {
		return
	}
	r.running++
	r.number++
	hasty := r.patient != 0
	if !hasty {
		r.patient = r.number
	}
	go r.try(r.ctx, r.number, hasty)
}

// goesOn says that an attempt is on its way to stand. On a line of 10 kbit/s that takes
// seconds, and those beside it would take the line from it. Where an uplink was lost just
// now it may be lost again at once, and the newest attempt is the quickest.
func (r *attempts) goesOn() bool {
	if r.lost && time.Since(r.begin) < raceSoon {
		return false
	}
	return r.running > 0 && r.uplink.hears != nil && r.uplink.hears()
}

// try makes one attempt.
func (r *attempts) try(ctx context.Context, number int, hasty bool) {
	if hasty {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, raceHasty)
		defer cancel()
	}
	a := attempt{number: number}
	term, hello := r.uplink.tunnels.hello()
	a.term = term
	a.conn, a.welcome, a.err = r.uplink.dial(ctx, hello)
	r.results <- a
}

// ended takes the result of one attempt into account.
func (r *attempts) ended(a attempt) {
	r.running--
	if a.number == r.patient {
		r.patient = 0
	}
}

// failed slows down when the cloud answers and turns us away.
func (r *attempts) failed(err error) {
	var refusal *link.Refusal
	if errors.As(err, &refusal) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, link.ErrPeerKey) || errors.Is(err, link.ErrVersion) || link.Unheard(err) || foreign(err) {
		r.interval = min(r.interval*5/4, raceMost)
	}
}

// pause is the time to the next attempt, random so that many edges whose cloud
// came back do not dial in step.
func (r *attempts) pause() time.Duration {
	d := r.interval
	switch since := time.Since(r.begin); {
	case since > raceLong:
		d = max(d, raceSlow)
	case since < raceSoon && r.lost && d == raceFirst: // and nobody has turned us away
		d = raceEager
	}
	return d/2 + rand.N(d)
}

// restart gives up the attempts under way: what they were bound to has changed.
func (r *attempts) restart() {
	r.cancel()
	r.ctx, r.cancel = context.WithCancel(r.parent)
	r.patient, r.begin, r.interval = 0, time.Now(), raceFirst
}

// end waits for the attempts under way and closes what they connect.
func (r *attempts) end() {
	r.cancel()
	for range r.running {
		if a := <-r.results; a.conn != nil {
			a.conn.Close(errLostRace)
		}
	}
}
