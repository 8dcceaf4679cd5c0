package crowd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Clients are connections to servers, and what their owners do with them.
type Clients struct {
	To      []netip.AddrPort // servers, in turn
	Conns   int
	Pending int // handshakes and hellos under way at a time; 0: 64
	Buffer  int // SO_RCVBUF in bytes; 0: the kernel's choice

	poll  *poll
	conns map[int32]stage
	fds   []int // those with an echo, in the order of its coming
}

// stage is how far a connection has come.
type stage uint8

const (
	connecting stage = iota
	greeted          // hello was said
	open             // and came back
)

// Open connects all and returns when every one has had its hello echoed, or an
// error when one fails or limit is over. Close must follow in either case.
func (c *Clients) Open(limit time.Duration) error {
	if c.Pending == 0 {
		c.Pending = 64
	}
	var err error
	if c.poll, err = newPoll(); err != nil {
		return err
	}
	c.conns = make(map[int32]stage, c.Conns)
	deadline := time.Now().Add(limit)
	for begun := 0; len(c.fds) < c.Conns; {
		for ; begun < c.Conns && begun-len(c.fds) < c.Pending; begun++ {
			if err := c.connect(c.To[begun%len(c.To)]); err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("crowd: %d of %d connections stand after %v", len(c.fds), c.Conns, limit)
		}
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Clients) connect(to netip.AddrPort) error {
	fd, err := socket(to.Addr(), option{unix.SOL_SOCKET, unix.SO_RCVBUF, c.Buffer})
	if err != nil {
		return err
	}
	c.conns[int32(fd)] = connecting
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("crowd: connect to %v: %w", to, err)
	}
	return c.poll.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
}

// step says hello on connections that stand, and takes echoes.
func (c *Clients) step() error {
	events, err := c.poll.wait(time.Second)
	if err != nil {
		return err
	}
	for _, ev := range events {
		fd := int(ev.Fd)
		if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			errno, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			return fmt.Errorf("crowd: connection %d of %d: %w", len(c.fds), c.Conns, unix.Errno(errno))
		}
		if err := c.greet(ev); err != nil {
			return err
		}
	}
	return nil
}

// greet says hello once and takes the echo.
func (c *Clients) greet(ev unix.EpollEvent) error {
	fd := int(ev.Fd)
	switch at := c.conns[ev.Fd]; {
	case at == connecting && ev.Events&unix.EPOLLOUT != 0:
		if _, err := unix.Write(fd, []byte(hello)); err != nil {
			return fmt.Errorf("crowd: hello: %w", err)
		}
		c.conns[ev.Fd] = greeted
	case at == greeted && ev.Events&unix.EPOLLIN != 0:
		var b [len(hello)]byte
		n, err := unix.Read(fd, b[:])
		if err != nil {
			return fmt.Errorf("crowd: echo: %w", err)
		}
		if string(b[:n]) != hello {
			return fmt.Errorf("crowd: %q came back", b[:n])
		}
		c.conns[ev.Fd] = open
		c.fds = append(c.fds, fd)
	}
	return nil
}

// Read reads up to rate bytes per second from each connection until stop is
// closed, and returns how many bytes came and how many connections had ended.
func (c *Clients) Read(rate int, stop <-chan struct{}) (bytes int64, ended int) {
	const parts = 20 // of a second: everybody has a turn once per second
	tick := time.NewTicker(time.Second / parts)
	defer tick.Stop()
	b := make([]byte, rate)
	for part := 0; ; part = (part + 1) % parts {
		select {
		case <-stop:
			return bytes, ended
		case <-tick.C:
		}
		for i := part; i < len(c.fds); i += parts {
			n, err := unix.Read(c.fds[i], b)
			bytes += int64(max(n, 0))
			if err == nil && n == 0 || err != nil && !errors.Is(err, unix.EAGAIN) {
				ended++
			}
		}
	}
}

// Close ends all connections: with a FIN, or a RST where data was not read.
func (c *Clients) Close() {
	for fd := range c.conns {
		unix.Close(int(fd))
	}
	c.conns, c.fds = nil, nil
	if c.poll != nil {
		c.poll.close()
		c.poll = nil
	}
}
