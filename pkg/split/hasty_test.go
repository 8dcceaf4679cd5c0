package split

import (
	"sync"
	"sync/atomic"
	"testing"

	"hawser/pkg/guard"
)

// TestHastyResets: clients that reset their connections as soon as they have
// them meet every stage of the guard's handshake with the stack. Whichever it is,
// nobody keeps the connection: not the guard, not the stack, whose own handshake
// would wait for two minutes, not the owner.
func TestHastyResets(t *testing.T) {
	for _, mode := range []guard.Mode{guard.Fast, guard.ZeroWindow} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t, true)
			p := newPump(t)
			var told atomic.Int32
			s, _ := l.start(l.guarded(mode, guard.Limits{}), func(c *Conn) {
				p.echo(c, func(error) { told.Add(1) })
				c.Open(-1)
			})
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					for range 250 {
						c, err := l.dialErr(anywhere(false, 80))
						if err != nil {
							t.Error(err)
							return
						}
						_ = c.SetLinger(0)
						c.Close()
					}
				})
			}
			clients.Wait()
			waitFor(t, "all owners to be told", func() bool { return told.Load() == 1000 })
			waitFor(t, "the guard and the stack to forget all", func() bool {
				s.keeper.mu.Lock()
				flows := len(s.keeper.flows)
				s.keeper.mu.Unlock()
				return flows == 0 && s.door.empty() && len(s.net.Load().RegisteredEndpoints()) == 0 && s.keeper.opts.Gate.Status().Clients == 0
			})
			t.Logf("%+v", s.Stats().Guard)
		})
	}
}
