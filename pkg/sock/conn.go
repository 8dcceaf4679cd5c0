package sock

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
	"hawser/pkg/party"
)

// DialTimeout bounds the time that a server may take to answer, unless its poller says otherwise.
const DialTimeout = 10 * time.Second

// Probes of a silent party: one that has connected after keepIdle seconds, then keepCount
// times every keepInterval seconds.
const (
	keepIdle     = 600
	keepInterval = 25
	keepCount    = 24
)

// DialIdle is keepIdle of connections that are dialled, unless their poller says otherwise. On
// the way to a server firewalls, NATs and balancers of public clouds forget after 350 s or 10 min, and
// a client's own probes end at the relay. It is given up as late as others are.
const DialIdle = 300 * time.Second

// Conn is a TCP connection of the kernel's. See party.Conn for its methods;
// only the goroutine of its Poller may call them. Watch functions are called
// by Poller.Wait, and once by Watch.
type Conn struct {
	poller   *Poller
	fd       int // -1 after Close or Abort
	notify   func(party.Ready)
	reported party.Ready // and not yet taken back by ErrAgain
	early    party.Ready // came before Watch
	dry      bool        // the last read was small and took all there was; nothing has come since
	whole    bool        // no read must count as one that took all: see arrived
	brief    int32       // bytes that may still be sent unpaced; 0: see spend
	offered  int32       // the server's first window; 0: not known
	half     bool        // one end has sent its FIN

	connecting    bool
	waiting       bool      // until deadline
	listed        bool      // in the poller's queue of deadlines
	deadline      time.Time // of a dial, or of Expect
	broken        error     // why the kernel hung up; what has arrived is read first
	failure       error     // what every operation returns from now on
	local, remote netip.AddrPort
}

var _ party.Offerer = (*Conn)(nil)

// Dial starts a connection to dst and returns at once. Conn.Watch reports
// Writable when the outcome is known, Conn.Connected says what it is. A mark
// other than 0 is set on the socket (SO_MARK); a device other than "" binds it
// (SO_BINDTODEVICE). An error that a route or a policy causes at once wraps
// party.ErrUnreachable.
func Dial(p *Poller, dst netip.AddrPort, mark uint32, device string) (*Conn, error) {
	dst, err := scoped(netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()))
	if err != nil {
		return nil, fmt.Errorf("sock: dial %v: %w (%w)", dst, party.ErrUnreachable, err)
	}
	fd, err := socket(dst.Addr())
	if err != nil {
		return nil, fmt.Errorf("sock: dial %v: %w", dst, err)
	}
	c := &Conn{poller: p, fd: fd, remote: dst, connecting: true, waiting: true, deadline: time.Now().Add(p.Patience)}
	if err := c.start(mark, device); err != nil {
		c.release()
		return nil, fmt.Errorf("sock: dial %v: %w", dst, err)
	}
	p.dials.add(c)
	return c, nil
}

// socket opens a TCP socket of a's family.
func socket(a netip.Addr) (int, error) {
	family := unix.AF_INET6
	if a.Is4() {
		family = unix.AF_INET
	}
	fd, err := nonblock.Socket(family)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	return fd, nil
}

// start sets the dial's options and sends the SYN.
func (c *Conn) start(mark uint32, device string) error {
	if mark != 0 {
		if err := nonblock.SetInt(c.fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			return fmt.Errorf("set mark %#x (needs CAP_NET_ADMIN): %w", mark, err)
		}
	}
	if device != "" {
		if err := unix.SetsockoptString(c.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
			return fmt.Errorf("bind to device %s: %w", device, err)
		}
	}
	idle := int(c.poller.Idle.Seconds())
	if err := tune(c.fd, idle, keepCount+max(0, keepIdle-idle)/keepInterval); err != nil {
		return err
	}
	if err := nonblock.Connect(c.fd, c.remote); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("%w (%w)", partyError(err), err)
	}
	return c.poller.add(c.fd, c.handle)
}

// tune sets what all connections need: no waiting for full segments, probes of
// a party that may have vanished, after idle seconds, urgent bytes in their place among the others (RFC 6093
// section 4; else they are lost: telnet's Ctrl-C, the ABOR of FTP), and a reset when the socket goes without
// Close: a party must not take the end of a killed process for the end of the
// data. Connections inherit all of it from their listener.
func tune(fd, idle, count int) error {
	err := setOptions(fd, []option{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
	})
	if err != nil {
		return err
	}
	return nonblock.SetLinger(fd, unix.Linger{Onoff: 1})
}

// option is a socket option whose value is a number.
type option struct{ level, name, value int }

func setOptions(fd int, options []option) error {
	for _, o := range options {
		if err := nonblock.SetInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set socket option %d/%d to %d: %w", o.level, o.name, o.value, err)
		}
	}
	return nil
}

// handle takes an epoll event.
func (c *Conn) handle(events uint32) {
	if c.connecting {
		// Any event ends it: the kernel raises EPOLLOUT, with EPOLLERR on
		// failure. A server that speaks first may have raised EPOLLIN with it.
		c.settled(c.outcome(events))
		if c.connecting || c.failure != nil {
			return
		}
	}
	c.arrived(events)
	var bits party.Ready
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		bits |= party.Readable
	}
	if events&unix.EPOLLOUT != 0 {
		bits |= party.Writable
	}
	// EPOLLHUP alone means that both sides have closed well.
	if events&unix.EPOLLERR != 0 {
		bits |= party.Hangup | party.Readable | party.Writable
		c.hangup()
	}
	c.report(bits)
}

// short is how many bytes a read may bring, at most, to count as one that took
// all there was. After a larger one more is likely to have come by now: the read
// itself lets the other end send.
const short = 2 << 10

// arrived notes that there may be something to read. A small read that gets less
// than it asks for has taken all there was, which saves the one that would say so;
// but not where an end or urgent data is next, which stop a read short as well and
// raise no event of their own afterwards.
func (c *Conn) arrived(events uint32) {
	if events&^unix.EPOLLOUT != 0 {
		c.dry = false
	}
	if events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0 {
		c.whole = true
	}
}

// hangup takes the reason. The kernel gives it once, and after a FIN not by
// read at all.
func (c *Conn) hangup() {
	c.broken = party.ErrReset
	if errno, err := nonblock.GetInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
		c.broken = partyError(unix.Errno(errno))
	}
}

// outcome returns nil if the dial has succeeded, or why not. Where no event speaks
// of an error one call tells both that and what is offered.
func (c *Conn) outcome(events uint32) error {
	var info unix.TCPInfo
	if events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 && nonblock.TCPInfo(c.fd, &info) == nil {
		switch info.State {
		case unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_CLOSE_WAIT: // it may have ended already
			c.offered = int32(min(info.Snd_wnd, math.MaxInt32))
			return nil
		case unix.BPF_TCP_SYN_SENT:
			return party.ErrAgain
		}
	}
	errno, err := nonblock.GetInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return fmt.Errorf("%w (%w)", party.ErrReset, err)
	}
	if errno != 0 {
		return partyError(unix.Errno(errno))
	}
	if _, err := unix.Getpeername(c.fd); err != nil {
		return party.ErrAgain // the event said that it is still unconnected
	}
	return nil
}

// settled notes how the dial ended.
func (c *Conn) settled(err error) {
	if errors.Is(err, party.ErrAgain) {
		return
	}
	c.connecting, c.waiting = false, false
	if err != nil {
		c.failure = err
		c.report(party.Readable | party.Writable | party.Hangup)
		return
	}
	c.report(party.Writable)
}

// report tells the worker the bits that it has not been told yet.
func (c *Conn) report(bits party.Ready) {
	fresh := bits &^ c.reported
	if fresh == 0 {
		return
	}
	if c.notify == nil {
		c.early |= fresh
		return
	}
	c.reported |= fresh
	c.notify(fresh)
}

// Watch implements party.Conn.
func (c *Conn) Watch(fn func(party.Ready)) {
	c.notify = fn
	early := c.early
	c.early = 0
	c.report(early)
}

// Connected implements party.Conn.
func (c *Conn) Connected() error {
	if c.connecting {
		c.reported &^= party.Writable
		return party.ErrAgain
	}
	return c.failure
}

// Read implements party.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.usable(); err != nil || len(p) == 0 {
		return 0, err
	}
	if c.dry {
		c.reported &^= party.Readable
		return 0, party.ErrAgain
	}
	for {
		n, err := nonblock.Read(c.fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.reported &^= party.Readable
			return 0, party.ErrAgain
		case err != nil:
			return 0, c.failed(err)
		case n == 0 && c.broken != nil:
			return 0, c.failed(c.broken)
		case n == 0:
			c.halfClosed()
			return 0, io.EOF
		default:
			c.dry = n < len(p) && n <= short && !c.whole
			return n, nil
		}
	}
}

// Write implements party.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.usable(); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		n, err := nonblock.Write(c.fd, p[done:])
		done += n
		c.spend(n)
		switch {
		case err == nil, err == unix.EINTR:
		case err == unix.EAGAIN:
			c.reported &^= party.Writable
			return done, party.ErrAgain
		default:
			return done, c.cut(err)
		}
	}
	return done, nil
}

// Writev is Write for several pieces with one system call for up to
// nonblock.MaxVectors of them.
func (c *Conn) Writev(bufs [][]byte) (int, error) {
	if err := c.usable(); err != nil {
		return 0, err
	}
	done, skip := 0, 0
	for {
		for len(bufs) > 0 && skip >= len(bufs[0]) {
			skip -= len(bufs[0])
			bufs = bufs[1:]
		}
		if len(bufs) == 0 {
			return done, nil
		}
		if skip > 0 { // in the middle of a piece
			n, err := c.Write(bufs[0][skip:])
			done += n
			if err != nil {
				return done, err
			}
			skip += n
			continue
		}
		n, err := c.poller.vectors.Writev(c.fd, bufs)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.reported &^= party.Writable
			return done, party.ErrAgain
		case err != nil:
			return done, c.cut(err)
		default:
			done += n
			skip = n
			c.spend(n)
		}
	}
}

// usable returns why the connection cannot be used, nil if it can.
func (c *Conn) usable() error {
	switch {
	case c.failure != nil:
		return c.failure
	case c.connecting:
		return party.ErrAgain
	case c.fd < 0:
		return party.ErrReset
	}
	return nil
}

// failed remembers the first reason, because the kernel forgets it.
func (c *Conn) failed(err error) error {
	switch {
	case c.failure != nil:
	case c.broken != nil:
		c.failure = c.broken
	default:
		c.failure = partyError(err)
	}
	return c.failure
}

// cut notes that nothing can be sent any more. What has arrived can still be read, and
// no event may have told of it yet.
func (c *Conn) cut(err error) error {
	if c.broken == nil {
		c.broken = partyError(err)
	}
	c.dry, c.whole = false, true
	return c.broken
}

// CloseWrite implements party.Conn.
func (c *Conn) CloseWrite() error {
	if err := c.usable(); err != nil {
		return err
	}
	if err := nonblock.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		return c.cut(err)
	}
	c.halfClosed()
	return nil
}

// Abort implements party.Conn. After Close the kernel owns the connection and
// Abort does nothing.
func (c *Conn) Abort() {
	if c.fd >= 0 {
		c.release() // see tune
	}
}

// Close implements party.Conn.
func (c *Conn) Close() {
	if c.fd >= 0 {
		_ = nonblock.SetLinger(c.fd, unix.Linger{}) // cannot fail
		c.release()
	}
}

// release closes the socket and forgets it.
func (c *Conn) release() {
	c.poller.remove(c.fd)
	_ = nonblock.Close(c.fd)
	c.fd = -1
	c.connecting, c.waiting = false, false
}

// Local returns our end's address; the zero AddrPort if the kernel has none.
func (c *Conn) Local() netip.AddrPort {
	if !c.local.IsValid() && c.fd >= 0 {
		c.local, _ = nonblock.Local(c.fd)
	}
	return c.local
}

// Remote implements party.Conn.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// partyError returns the party error that a kernel error stands for.
func partyError(err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return party.ErrRefused
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH),
		errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.EADDRNOTAVAIL),
		errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		return party.ErrUnreachable // a blackhole or prohibit route answers with the last three
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNABORTED):
		return party.ErrReset
	}
	return fmt.Errorf("%w (%w)", party.ErrReset, err)
}

// scoped returns a with the number of its zone, which is an interface's name or number:
// that of link-local IPv6 addresses.
func scoped(a netip.AddrPort) (netip.AddrPort, error) {
	zone := a.Addr().Zone()
	if zone == "" || strings.Trim(zone, "0123456789") == "" {
		return a, nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return a, err
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(i.Index)), a.Port()), nil
}

// sockaddr converts a, as scoped returns it, to the kernel's form.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}

// Offered implements party.Offerer.
func (c *Conn) Offered() int {
	if c.offered > 0 {
		return int(c.offered)
	}
	var info unix.TCPInfo
	if err := nonblock.TCPInfo(c.fd, &info); err != nil {
		return -1
	}
	return int(info.Snd_wnd)
}
