package tunnel

import (
	"time"

	"hawser/pkg/simlink"
)

// simUplink is an uplink as the agents work it (edge/agent): when its connection is
// silent others are raced on it, and the first that stands replaces it, unless the
// old one speaks again before.
type simUplink struct {
	sim    *sim
	id     int
	lines  [2]*simlink.Line // away from the edge, from the cloud
	v      variant
	silent bool
	since  time.Time // the race began then; zero: none is on
	turn   int       // of races; what belongs to earlier ones is over
	tcp    [2]*simlink.TCP
	made   int    // connections
	again  uint64 // bytes that the cloud's earlier ones sent once more
}

// Times and sizes of a race, as the agent has them.
const (
	simGrace     = 200 * time.Millisecond
	simFirm      = 100 * time.Millisecond // of a race that goes on, if the variant has it
	simRace      = 400 * time.Millisecond // from one attempt to the next, in the mean
	simHasty     = 2500 * time.Millisecond
	simSYN       = time.Second            // until the kernel sends another
	simAnswer    = 300 * time.Millisecond // the same later
	simExchanges = 3                      // TCP, TLS, and the pair's own
)

// tell is told of silence and of speech.
func (u *simUplink) tell(silent bool) {
	if silent == u.silent {
		return
	}
	u.silent = silent
	racing := !u.since.IsZero()
	switch {
	case silent && racing:
		return
	case !silent && racing && u.v.anew && u.sim.Now().Sub(u.since) > simFirm:
		return
	}
	u.over()
	if mine := u.turn; silent {
		u.sim.After(simGrace, func() { u.race(mine) })
	}
}

// over ends a race.
func (u *simUplink) over() {
	u.turn++
	u.since = time.Time{}
}

func (u *simUplink) race(mine int) {
	if u.turn != mine {
		return
	}
	if u.since.IsZero() {
		u.since = u.sim.Now()
	}
	u.exchange(mine, simExchanges, u.sim.Now().Add(simHasty))
	u.sim.After(simRace/2+time.Duration(u.sim.rnd.Float64()*float64(simRace)), func() { u.race(mine) })
}

// exchange sends something and goes on when the answer has come, until all have.
func (u *simUplink) exchange(mine, left int, until time.Time) {
	const size = 200
	if left == 0 {
		u.over()
		u.silent = false
		u.connect()
		return
	}
	over := false
	u.lines[0].Send(size, func() {
		u.lines[1].Send(size, func() {
			if !over && u.turn == mine {
				over = true
				u.exchange(mine, left-1, until)
			}
		})
	})
	wait := simAnswer
	if left == simExchanges {
		wait = simSYN
	}
	u.sim.After(wait, func() {
		if !over && u.turn == mine && u.sim.Now().Before(until) {
			over = true
			u.exchange(mine, left, until)
		}
	})
}

// connect gives the uplink a fresh connection.
func (u *simUplink) connect() {
	m, l := u.sim, u.lines
	u.made++
	if u.tcp[1] != nil {
		u.again += u.tcp[1].Again
	}
	u.tcp = [2]*simlink.TCP{m.NewTCP(l[0], l[1]), m.NewTCP(l[1], l[0])}
	var ends [2]Carrier
	for i, t := range u.tcp {
		t.Unsent = max(t.Unsent, u.v.unsent)
		ends[i] = lineCarrier{simCarrier{rtt: l[0].Delay + l[1].Delay}, t, u.v.blind}
	}
	m.connect(u.id, ends[0], ends[1], u.tcp[0], u.tcp[1])
}
