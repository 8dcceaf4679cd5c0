package split

import (
	"errors"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/party"
)

// TestForgottenWhileItComesUp: the guard forgets a flow - another client gets its
// place, or its own begins anew - while another goroutine finishes the stack's
// handshake. Whichever is first, nobody keeps the connection: the stack resets it,
// its owner hears of it, and it is counted no longer.
func TestForgottenWhileItComesUp(t *testing.T) {
	for name, upFirst := range map[string]bool{
		"it is up when the guard ends it":    true,
		"it comes up when that has ended it": false,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLockSeeker(t)
			k := l.s.keeper
			c := l.flow()
			ep := newSeekerEndpoint(l)
			k.mu.Lock()
			c.ward.flow.Join(1 << 10)
			k.remove(c.ward)
			k.mu.Unlock()
			// The two have seen each other's state of before: what follows is the
			// last thing that each does.
			if upFirst {
				k.establish(c.ward, ep, nil)
				c.fail()
			} else {
				c.fail()
				k.establish(c.ward, ep, nil)
			}
			if ep.state != tcp.StateError {
				t.Errorf("the stack's endpoint is %v", ep.state)
			}
			if !upFirst && !errors.Is(c.early(party.Readable), party.ErrReset) || !c.broken() {
				t.Error("the owner's connection is not broken")
			}
			if l.told["notify"] == 0 {
				t.Error("the owner was not told")
			}
			c.Abort()
			if n := l.s.growth.conns.Load(); n != 0 {
				t.Errorf("%d connections are counted", n)
			}
		})
	}
}
