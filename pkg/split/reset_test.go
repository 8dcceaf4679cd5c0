package split

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// resetting is a way to reset while the server is being asked.
type resetting struct {
	name   string
	mode   guard.Mode
	policy func(dst, src netip.AddrPort) guard.Mode
	limits guard.Limits
	sends  int // bytes before it resets
	pause  time.Duration
}

// TestResetsAreHeard: clients that reset while their server is being asked, with
// or without having sent something, taken or not, leave nothing behind, although
// their reset carries the number after all that they have sent.
func TestResetsAreHeard(t *testing.T) {
	const soon = 50 * time.Millisecond
	for _, c := range []resetting{
		{name: "zero-window", mode: guard.ZeroWindow, sends: 1000, pause: soon},
		{name: "fast, at once", mode: guard.Fast, sends: 1000},
		{name: "fast, later", mode: guard.Fast, sends: 1000, pause: soon},
		{name: "fast, more than is taken", mode: guard.Fast, limits: guard.Limits{FirstFlight: 4096, FirstFlights: 8192}, sends: 64 << 10, pause: soon},
		{name: "window shut at once", policy: shutAtOnce(), sends: 100},
		{name: "window shut, later", policy: shutAtOnce(), sends: 100, pause: soon},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

// shutAtOnce is a policy that lets the SYN-ACK open a window, and shuts it at the
// client's first segment, as auto does when it turns to zero-window between.
func shutAtOnce() func(_, src netip.AddrPort) guard.Mode {
	var seen sync.Map
	return func(_, src netip.AddrPort) guard.Mode {
		if _, again := seen.LoadOrStore(src, true); again {
			return guard.ZeroWindow
		}
		return guard.Fast
	}
}

func (r *resetting) run(t *testing.T) {
	const clients = 60
	l := newLab(t, true)
	var asked, told atomic.Int32
	o := l.guarded(r.mode, r.limits)
	o.Guard.Mode = r.policy
	s, _ := l.start(o, func(c *Conn) { // no server ever answers
		asked.Add(1)
		silent(c, func() { told.Add(1) })
	})
	var closed sync.WaitGroup
	for range clients {
		c := l.dial(anywhere(false, 80))
		_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond)) // what does not fit is not waited for
		_, _ = c.Write(make([]byte, r.sends))
		_ = c.SetLinger(0)
		closed.Add(1)
		time.AfterFunc(r.pause, func() {
			defer closed.Done()
			c.Close()
		})
	}
	closed.Wait()
	waitFor(t, "all to come, their owners to be told, and the guard and the stack to forget all", func() bool {
		s.keeper.mu.Lock()
		defer s.keeper.mu.Unlock()
		g := s.keeper.opts.Gate.Status()
		// Who resets while others are asked for at the same server has no owner yet.
		came := asked.Load()+int32(s.Stats().Guard.Waited) >= clients
		return came && told.Load() == asked.Load() && len(s.keeper.flows) == 0 && g.Pending == 0 && g.Bytes == 0 && g.Clients == 0
	})
	t.Logf("%d had an owner: %+v", asked.Load(), s.Stats().Guard)
}

// silent reads what a client sends and says nothing: whoever answered would be
// told again that the client has gone.
func silent(c *Conn, ended func()) {
	wake := make(chan struct{}, 1)
	c.Watch(func(party.Ready) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	go func() {
		p := make([]byte, 4096)
		for range wake {
			err := error(nil)
			for err == nil {
				_, err = c.Read(p)
			}
			if !errors.Is(err, party.ErrAgain) {
				c.Abort()
				ended()
				return
			}
		}
	}()
}
