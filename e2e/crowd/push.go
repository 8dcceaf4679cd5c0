package crowd

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Pushers are clients that send as much as they are let, from an address each.
type Pushers struct {
	To     []netip.AddrPort // servers, in turn
	From   netip.Prefix     // their addresses, which must be local to the thread's namespace
	Conns  int
	Rate   int // connections begun per second; 0: 4000
	Buffer int // SO_SNDBUF in bytes; 0: the kernel's choice

	poll   *poll
	conns  map[int32]bool // connected
	next   netip.Addr
	pushed Pushed
}

// Pushed is what has become of Pushers.
type Pushed struct {
	Begun     int
	Connected int    // of them, those that were accepted
	Ended     int    // reset, or timed out
	Acked     uint64 // bytes that the other ends have acknowledged
	Most      uint64 // the most of them on one connection
}

// piece is what one write offers.
var piece [8 << 10]byte

// Push connects all and sends until stop is closed; then it closes all.
func (p *Pushers) Push(stop <-chan struct{}) (Pushed, error) {
	var err error
	if p.poll, err = newPoll(); err != nil {
		return p.pushed, err
	}
	defer p.poll.close()
	if p.Rate == 0 {
		p.Rate = 4000
	}
	p.conns, p.next = map[int32]bool{}, p.From.Addr()
	began := time.Now()
	for {
		select {
		case <-stop:
			for fd := range p.conns {
				p.leave(fd)
			}
			return p.pushed, nil
		default:
		}
		due := min(int(time.Since(began).Seconds()*float64(p.Rate)), p.Conns)
		for p.pushed.Begun < due {
			if err := p.connect(); err != nil {
				return p.pushed, err
			}
		}
		events, err := p.poll.wait(20 * time.Millisecond)
		if err != nil {
			return p.pushed, err
		}
		for _, ev := range events {
			p.event(ev)
		}
	}
}

func (p *Pushers) connect() error {
	to := p.To[p.pushed.Begun%len(p.To)]
	fd, err := socket(to.Addr(), option{unix.SOL_SOCKET, unix.SO_SNDBUF, p.Buffer})
	if err != nil {
		return err
	}
	if p.next = p.next.Next(); !p.From.Contains(p.next) {
		p.next = p.From.Addr().Next()
	}
	p.pushed.Begun++
	p.conns[int32(fd)] = false
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(p.next, 0))); err != nil {
		return fmt.Errorf("crowd: bind to %v: %w", p.next, err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("crowd: connect to %v: %w", to, err)
	}
	return p.poll.add(fd, unix.EPOLLOUT|unix.EPOLLET)
}

// event sends on a connection that takes more, and forgets one that has ended.
func (p *Pushers) event(ev unix.EpollEvent) {
	if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		p.pushed.Ended++
		p.leave(ev.Fd)
		return
	}
	if !p.conns[ev.Fd] {
		p.conns[ev.Fd] = true
		p.pushed.Connected++
	}
	for {
		if n, err := unix.Write(int(ev.Fd), piece[:]); err != nil || n < len(piece) {
			return
		}
	}
}

// leave counts what a connection has sent and resets it.
func (p *Pushers) leave(fd int32) {
	if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.Bytes_acked > 1 {
		acked := info.Bytes_acked - 1 // the SYN's
		p.pushed.Acked += acked
		p.pushed.Most = max(p.pushed.Most, acked)
	}
	_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(int(fd))
	delete(p.conns, fd)
}
