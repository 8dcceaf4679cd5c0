package link

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"hawser/pkg/wire"
)

// Times and sizes of a race, as the edge has them (edge/agent).
const (
	raceGrace = 150 * time.Millisecond // of silence, before it begins
	raceFirm  = 150 * time.Millisecond // of a race that goes on although the old connection speaks
	raceStill = time.Second            // for which it does
	raceEager = 150 * time.Millisecond // from one attempt to the next, in the mean
	raceSoon  = 5 * time.Second        // and after that
	raceEvery = 400 * time.Millisecond //
	raceHasty = 2500 * time.Millisecond
	raceWide  = 16       // attempts under way
	raceMoved = 64 << 10 // bytes
)

// simRace is an uplink as the edge works it: when its connection is silent others are
// raced on it, and the first that stands replaces it, unless the old one speaks again.
type simRace struct {
	w      *simWorld
	i      int
	silent atomic.Bool
	kick   chan struct{} // one slot
	spoke  chan struct{} // one slot
	made   atomic.Int32  // connections that replaced others
	kept   atomic.Int32  // races that the old connection has won
}

func newSimRace(w *simWorld, i int) *simRace {
	return &simRace{w: w, i: i, kick: make(chan struct{}, 1), spoke: make(chan struct{}, 1)}
}

// tell is told of silence and of speech.
func (r *simRace) tell(silent bool) {
	r.silent.Store(silent)
	c := r.spoke
	if silent {
		c = r.kick
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// run races until the context ends.
func (r *simRace) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		}
		time.Sleep(raceGrace)
		if ctx.Err() != nil || !r.silent.Load() {
			continue
		}
		if c := r.once(ctx); c != nil {
			r.made.Add(1)
			r.w.serve(r.w.edge, r.i, c)
		} else {
			r.kept.Add(1)
		}
	}
}

// carried is how many bytes the link has carried, both ways.
func (r *simRace) carried() uint64 {
	st, _ := r.w.edge.Status()
	for _, l := range st.Links {
		if l.ID == r.i {
			return l.BytesSent + l.BytesGot
		}
	}
	return 0
}

// once is one race; nil: the old connection has won.
func (r *simRace) once(ctx context.Context) *Conn {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan *Conn)
	running := 0
	defer func() {
		cancel()
		for range running {
			if c := <-results; c != nil {
				c.Close(errLostRace)
			}
		}
	}()
	begin, next := time.Now(), time.NewTimer(0)
	defer next.Stop()
	var until <-chan time.Time
	var moved uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.spoke:
			switch {
			case r.silent.Load():
			case time.Since(begin) < raceFirm:
				return nil
			case until == nil:
				until, moved = time.After(raceStill), r.carried()
			}
		case <-until:
			if until = nil; !r.silent.Load() {
				return nil
			}
		case <-next.C:
			if running < raceWide {
				running++
				go r.attempt(ctx, results)
			}
			every := raceEvery
			if time.Since(begin) < raceSoon {
				every = raceEager
			}
			next.Reset(every/2 + rand.N(every))
		case c := <-results:
			running--
			if c == nil {
				continue
			}
			if until != nil && !r.silent.Load() && r.carried() >= moved+raceMoved {
				c.Close(errLostRace)
				return nil
			}
			return c
		}
	}
}

func (r *simRace) attempt(ctx context.Context, results chan<- *Conn) {
	ctx, cancel := context.WithTimeout(ctx, raceHasty)
	defer cancel()
	c, _, err := r.w.dialers[r.i].Dial(ctx, wire.Hello{VersionMin: 1, VersionMax: r.w.version, Session: [16]byte{9}, Resume: true})
	if err != nil {
		c = nil
	}
	results <- c
}
