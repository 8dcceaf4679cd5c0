package sock

import (
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/party"
)

// Expect bounds how long the connection may stay as it is: unless Relax or
// Leave comes within the poller's Patience it fails with party.ErrUnreachable, and
// Hangup is reported.
func (c *Conn) Expect() {
	if c.waiting || c.fd < 0 {
		return
	}
	c.deadline, c.waiting = time.Now().Add(c.poller.Patience), true
	c.poller.dials.add(c)
}

// Relax ends Expect.
func (c *Conn) Relax() {
	if !c.connecting {
		c.waiting = false
	}
}

// expire ends what has taken too long.
func (c *Conn) expire() {
	if c.connecting {
		c.settled(party.ErrUnreachable)
		return
	}
	c.waiting, c.failure = false, party.ErrUnreachable
	c.report(party.Readable | party.Writable | party.Hangup)
}

// Leave takes the socket out of its poller and hands it to the caller, who
// closes it. The connection counts as closed from now on.
func (c *Conn) Leave() (fd int, err error) {
	if err := c.usable(); err != nil {
		return -1, err
	}
	if err := unix.EpollCtl(c.poller.epoll, unix.EPOLL_CTL_DEL, c.fd, nil); err != nil {
		return -1, c.failed(err)
	}
	c.poller.remove(c.fd)
	c.spend(int(c.brief)) // nobody counts any more
	fd, c.fd, c.waiting = c.fd, -1, false
	return fd, nil
}
