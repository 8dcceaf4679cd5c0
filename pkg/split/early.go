package split

import (
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/party"
)

// A client's connection that the guard keeps is handed out before netstack has
// it: these are a Conn's ways until then.

// Open implements party.Opener.
func (c *Conn) Open(window int) {
	if c.ward != nil {
		c.stack.keeper.serve(c.ward, window)
	}
}

// Refuse implements party.Opener.
func (c *Conn) Refuse(silent bool) {
	if c.ward != nil {
		c.stack.keeper.refuse(c.ward, silent)
	}
}

// await returns true if c is up; else establish or fail will report. Called
// by Watch.
func (c *Conn) await() bool {
	k := c.stack.keeper
	k.mu.Lock()
	c.set(isWanted)
	up, failed := c.is(isUp), c.is(isFailing)
	k.mu.Unlock()
	if !up && failed {
		c.report(party.Hangup | party.Readable | party.Writable)
	}
	return up
}

// early is what Read and Write return before c is up.
func (c *Conn) early(party.Ready) error {
	if c.is(isFailing) {
		return party.ErrReset
	}
	return party.ErrAgain
}

// fail ends c: one that is not up will never be. Which it is is asked under the lock
// that establish takes, so that a connection comes up before or never.
func (c *Conn) fail() {
	k := c.stack.keeper
	k.mu.Lock()
	up, wanted := c.is(isUp), c.is(isWanted)
	if !up {
		c.set(isFailing)
	}
	k.mu.Unlock()
	switch {
	case up:
		c.ep.Abort()
	case wanted:
		c.report(party.Hangup | party.Readable | party.Writable)
	}
}

// finish notes that a FIN is to be sent once c is up; true if it is.
func (c *Conn) finish() bool {
	k := c.stack.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	c.set(isFinSent)
	return c.is(isUp)
}

// release lets go of the guard's part; true if netstack has c.
func (c *Conn) release(reset bool) bool {
	c.stack.keeper.leave(c.ward, reset)
	return c.is(isUp)
}

// finished says that netstack has nothing more to send for c.
func (c *Conn) finished() bool {
	if !c.is(isUp) {
		return c.is(isFailing)
	}
	s := tcp.EndpointState(c.ep.State())
	return s == tcp.StateClose || s == tcp.StateError
}

var _ party.Opener = (*Conn)(nil)
