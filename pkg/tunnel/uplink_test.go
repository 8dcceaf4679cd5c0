package tunnel

import (
	"time"

	"hawser/pkg/bbr"
	"hawser/pkg/simlink"
)

// simUplink is an uplink as the agents work it (edge/agent): when its connection is
// silent others are raced on it, and the first that stands replaces it, unless the
// old one speaks again soon.
type simUplink struct {
	sim     *sim
	id      int
	lines   [2]*simlink.Line // away from the edge, from the cloud
	v       variant
	silent  bool
	spoke   uint64    // what the link had carried when it spoke again in a race; 0: it has not
	since   time.Time // the race began then; zero: none is on
	turn    int       // of races; what belongs to earlier ones is over
	tcp     [2]*simlink.TCP
	recall  [2]bbr.Recall
	made    int            // connections
	led     int            // times that one of them was to be led
	volleys int            // the same: to be asked for volleys
	burst   int            // times that one of them was let burst
	urgent  *[2]*simUrgent // an urgent connection, and its twin
	ends    [2]*simConn
	again   uint64 // bytes that the cloud's earlier ones sent once more
	lost    int    // urgent connections, the next ones, that a NAT has forgotten: nothing passes
}

// Times and sizes of a race, as the agent has them.
const (
	simGrace     = 150 * time.Millisecond
	simFirm      = 150 * time.Millisecond // of a race that goes on
	simStill     = time.Second            // for which it does
	simEager     = 150 * time.Millisecond // from one attempt to the next, in the mean
	simSoon      = 5 * time.Second        // and after that
	simRace      = 400 * time.Millisecond //
	simHasty     = 2500 * time.Millisecond
	simMoved     = 64 << 10               // bytes
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
	case !silent && racing && !u.v.timid && u.sim.Now().Sub(u.since) > simFirm:
		mine := u.turn
		u.spoke = u.moves()
		u.sim.After(simStill, func() {
			if u.turn == mine && !u.silent {
				u.over()
			}
		})
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
	u.since, u.spoke = time.Time{}, 0
}

func (u *simUplink) race(mine int) {
	if u.turn != mine {
		return
	}
	if u.since.IsZero() {
		u.since = u.sim.Now()
	}
	u.exchange(mine, simExchanges, u.sim.Now().Add(simHasty))
	every := float64(simRace)
	if u.sim.Now().Sub(u.since) < simSoon {
		every = float64(simEager)
	}
	u.sim.After(time.Duration((0.5+u.sim.rnd.Float64())*every), func() { u.race(mine) })
}

// exchange sends something and goes on when the answer has come, until all have.
func (u *simUplink) exchange(mine, left int, until time.Time) {
	const size = 200
	if left == 0 {
		well := !u.silent && u.spoke > 0 && u.moves() >= u.spoke+simMoved
		u.over()
		if well {
			return
		}
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

// moves is how many bytes the link has carried, both ways.
func (u *simUplink) moves() uint64 {
	l := u.sim.edge.s.links[u.id]
	return l.sentBytes + l.gotBytes
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
		t.Resume(&u.recall[i])
		t.Unsent = max(t.Unsent, u.v.unsent)
		ends[i] = lineCarrier{simCarrier{rtt: l[0].Delay + l[1].Delay}, t, u.v.blind, &u.led, &u.burst, &u.volleys}
	}
	if !u.v.beside {
		m.connect(u.id, ends[0], ends[1], u.tcp[0], u.tcp[1])
		return
	}
	u.urgent = &[2]*simUrgent{{uplink: u}, {uplink: u, number: 1}}
	for i := range ends {
		ends[i] = besideCarrier{ends[i].(lineCarrier), u.urgent}
	}
	e, c := m.connect(u.id, ends[0], ends[1], u.tcp[0], u.tcp[1])
	u.beside(e, c, u.urgent[0])
	if !u.v.single {
		u.beside(e, c, u.urgent[1])
	}
}
