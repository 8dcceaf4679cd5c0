package sock

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
)

const (
	// backlog is how many connections the kernel may complete ahead of us.
	backlog = 4096
	// acceptBatch bounds the connections of one event, so that a flood of
	// them does not starve those that stand.
	acceptBatch = 256
)

// Listener accepts TCP connections for one worker. Only the goroutine of its
// Poller may use it.
type Listener struct {
	poller *Poller
	fd     int
	addr   netip.AddrPort
	accept func(*Conn)

	brief int32 // of what is accepted: see spend
}

// Listen accepts connections to addr. Workers listen on the same address side
// by side (SO_REUSEPORT) and the kernel spreads connections over them. accept is
// called by Poller.Wait with each connection.
func Listen(p *Poller, addr netip.AddrPort, accept func(*Conn)) (*Listener, error) {
	return listenUnpaced(p, addr, nil, accept)
}

// ListenGreeted is Listen for clients that speak first: a connection is
// accepted when its first bytes are there (TCP_DEFER_ACCEPT).
func ListenGreeted(p *Poller, addr netip.AddrPort, accept func(*Conn)) (*Listener, error) {
	return listen(p, addr, []option{{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1}}, accept)
}

// ListenTransparent is Listen for connections to any address that a TPROXY rule
// sends to addr (IP_TRANSPARENT, which needs CAP_NET_ADMIN); addr need not be
// one of the host's. Conn.Local is the address that the client wanted. All
// packets of the connections carry mark (SO_MARK).
func ListenTransparent(p *Poller, addr netip.AddrPort, mark uint32, accept func(*Conn)) (*Listener, error) {
	transparent := option{unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1}
	if addr.Addr().Is6() {
		transparent = option{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1}
	}
	return listenUnpaced(p, addr, []option{transparent, {unix.SOL_SOCKET, unix.SO_MARK, int(mark)}}, accept)
}

// listenUnpaced is listen for clients, whose first bytes are not paced.
func listenUnpaced(p *Poller, addr netip.AddrPort, extra []option, accept func(*Conn)) (*Listener, error) {
	l, err := listen(p, addr, extra, accept)
	if err == nil {
		l.unpace()
	}
	return l, err
}

func listen(p *Poller, addr netip.AddrPort, extra []option, accept func(*Conn)) (*Listener, error) {
	addr, err := scoped(addr)
	if err != nil {
		return nil, fmt.Errorf("sock: listen on %v: %w", addr, err)
	}
	fd, err := socket(addr.Addr())
	if err != nil {
		return nil, fmt.Errorf("sock: listen on %v: %w", addr, err)
	}
	l := &Listener{poller: p, fd: fd, accept: accept}
	if err := l.start(addr, extra); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sock: listen on %v: %w", addr, err)
	}
	return l, nil
}

// start binds and listens. Connections inherit the options, so that accepting
// one needs no calls for them.
func (l *Listener) start(addr netip.AddrPort, extra []option) error {
	options := append([]option{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}, {unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}}, extra...)
	if err := setOptions(l.fd, options); err != nil {
		return err
	}
	if err := tune(l.fd, keepIdle, keepCount); err != nil {
		return err
	}
	if err := unix.Bind(l.fd, sockaddr(addr)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(l.fd, backlog); err != nil {
		return err
	}
	var err error
	if l.addr, err = nonblock.Local(l.fd); err != nil {
		return err
	}
	return l.poller.add(l.fd, l.handle)
}

// Addr returns the address that the kernel has given.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Close stops listening. Connections that were accepted live on.
func (l *Listener) Close() {
	if l.fd < 0 {
		return
	}
	l.poller.remove(l.fd)
	l.poller.stuck = slices.DeleteFunc(l.poller.stuck, func(other *Listener) bool { return other == l })
	unix.Close(l.fd)
	l.fd = -1
}

// handle accepts what waits.
func (l *Listener) handle(uint32) {
	for range acceptBatch {
		if l.fd < 0 { // accept has closed us
			return
		}
		fd, from, err := nonblock.Accept(l.fd)
		switch {
		case err == nil:
			l.take(fd, from)
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case errors.Is(err, unix.EAGAIN):
			return // none left
		default:
			// EMFILE and the like: the connections wait in the backlog, and raise no
			// further event.
			l.poller.retry(l, err)
			return
		}
	}
	// There may be more, and the edge is used up: raise it anew.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(l.fd), Pad: l.poller.watched[int32(l.fd)].round}
	_ = unix.EpollCtl(l.poller.epoll, unix.EPOLL_CTL_MOD, l.fd, &ev) // cannot fail: fd is registered
}

// take makes a connection of an accepted socket.
func (l *Listener) take(fd int, from netip.AddrPort) {
	c := &Conn{poller: l.poller, fd: fd, remote: from, brief: l.brief}
	if l.poller.add(fd, c.handle) != nil {
		c.release() // the kernel is out of memory
		return
	}
	l.accept(c)
}
