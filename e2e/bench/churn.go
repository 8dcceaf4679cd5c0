package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// What one short connection carries, and how many are open at a time.
const (
	churnRequest = 1 << 10
	churnReply   = 10_000
	churnAtOnce  = 32
	churnGrace   = 3 * time.Second // for the last ones to end
	churnPort    = 81
	churnBacklog = 4096
)

// churnRow is what a load of short connections did.
type churnRow struct {
	Seconds float64   `json:"s"`
	Done    int       `json:"done"`
	Failed  int       `json:"failed"`
	Ms      []float64 `json:"ms"` // from connect to the end of the reply
	Edge    float64   `json:"edge_cpu_s"`
	Cloud   float64   `json:"cloud_cpu_s"`
}

func (r churnRow) perSecond() float64 { return float64(r.Done) / r.Seconds }

// perThousand turns processor seconds into milliseconds per connection.
func (r churnRow) each(cpu float64) float64 { return 1000 * cpu / float64(max(r.Done, 1)) }

// churn opens short connections one after the other, churnAtOnce at a time,
// for d. Client and server are one thread each with as few system calls as
// there can be, so that what is between them decides.
func (b *bench) churn(w *world, d time.Duration) (row churnRow, err error) {
	edge, cloud, err := w.carrier.cpu()
	if err != nil {
		return row, err
	}
	to := netip.AddrPortFrom(w.host(way{}), w.port+churnBeside)
	err = w.Do("client", func() error {
		c, err := newChurner(to)
		if err != nil {
			return err
		}
		defer c.close()
		row, err = c.run(d)
		return err
	})
	edge2, cloud2, err2 := w.carrier.cpu()
	row.Edge, row.Cloud = (edge2 - edge).Seconds(), (cloud2 - cloud).Seconds()
	return row, errors.Join(err, err2, b.ctx.Err())
}

// visit is one short connection of the client.
type visit struct {
	began time.Time
	asked bool
	got   int
}

// churner is the client. It belongs to the thread that made it.
type churner struct {
	poll    int
	to      unix.Sockaddr
	visits  map[int32]*visit
	free    []*visit
	request [churnRequest]byte
	buf     [16 << 10]byte
	until   time.Time // connections that end later do not count
	row     churnRow
}

func newChurner(to netip.AddrPort) (*churner, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	sa := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	c := &churner{poll: poll, to: sa, visits: map[int32]*visit{}}
	fillNoise(c.request[:])
	return c, nil
}

func (c *churner) close() {
	for fd := range c.visits {
		unix.Close(int(fd))
	}
	unix.Close(c.poll)
}

func (c *churner) run(d time.Duration) (churnRow, error) {
	began := time.Now()
	c.until, c.row.Seconds = began.Add(d), d.Seconds()
	for range churnAtOnce {
		if err := c.begin(); err != nil {
			return c.row, err
		}
	}
	var events [churnAtOnce]unix.EpollEvent
	for len(c.visits) > 0 {
		past := time.Since(began)
		if past > d+churnGrace {
			c.row.Failed += len(c.visits)
			break
		}
		n, err := unix.EpollWait(c.poll, events[:], 100)
		if err != nil && err != unix.EINTR {
			return c.row, err
		}
		for _, e := range events[:max(n, 0)] {
			over := c.step(e.Fd)
			if !over || time.Since(began) > d {
				continue
			}
			if err := c.begin(); err != nil {
				return c.row, err
			}
		}
	}
	return c.row, nil
}

// begin starts one connection.
func (c *churner) begin() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	v := &visit{}
	if n := len(c.free); n > 0 {
		v, c.free = c.free[n-1], c.free[:n-1]
	}
	*v = visit{began: time.Now()}
	c.visits[int32(fd)] = v
	if err := unix.Connect(fd, c.to); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(fd)}
	return unix.EpollCtl(c.poll, unix.EPOLL_CTL_ADD, fd, &e)
}

// step goes on with one connection and reports whether it has ended.
func (c *churner) step(fd int32) bool {
	v := c.visits[fd]
	if !v.asked {
		n, err := unix.Write(int(fd), c.request[:])
		if err == unix.EAGAIN {
			return false
		}
		if err != nil || n < len(c.request) {
			return c.end(fd, false)
		}
		v.asked = true
		return false // an edge comes with the reply
	}
	for {
		n, err := unix.Read(int(fd), c.buf[:])
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			return c.end(fd, false)
		case n == 0:
			return c.end(fd, v.got == churnReply)
		}
		v.got += n
	}
}

func (c *churner) end(fd int32, well bool) bool {
	v := c.visits[fd]
	switch {
	case well && time.Now().After(c.until): // out of competition
	case well:
		c.row.Done++
		c.row.Ms = append(c.row.Ms, millis(time.Since(v.began)))
	default:
		c.row.Failed++
	}
	delete(c.visits, fd)
	c.free = append(c.free, v)
	unix.Close(int(fd))
	return true
}
