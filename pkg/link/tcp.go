package link

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hawser/pkg/bbr"
	"hawser/pkg/nonblock"
	"hawser/pkg/park"
	"hawser/pkg/resume"
)

// Settings of a link's TCP sockets.
const (
	// congestionControl is asked for by name; where the kernel has no such
	// module or forbids it the default stays. BBR holds its rate under random
	// loss, where loss-based controllers fall to a tenth.
	congestionControl = "bbr"
	// notSentLowat bounds what waits in the kernel and was never sent, bytes.
	// It makes a blocked write the signal for room: unset, a link holds
	// hundreds of milliseconds of data that another could have taken.
	notSentLowat = 16 << 10
	// notSentTime and notSentMost let it grow with the link's rate.
	notSentTime = 4 * time.Millisecond
	notSentMost = 256 << 10
	// retryMost bounds the back-off of retransmissions, but on slow lines; the kernel takes no less.
	retryMost = time.Second
	// tcpRTOMax is TCP_RTO_MAX_MS of linux/tcp.h.
	tcpRTOMax = 44
	// startGain is what BBR's pacing is in its start, as a multiple of what it
	// sends in a round trip: 2/ln 2 (bbr_high_gain of tcp_bbr.c).
	startGain = 2.885
	// userTimeout ends a connection whose data is not acknowledged. The tunnel
	// gives a silent link up within milliseconds; this one frees what is
	// left of it, and outlasts the outages that a session survives.
	userTimeout = 40 * time.Second
)

// keepAlive finds a peer that vanished while nothing was being sent.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 20 * time.Second, Interval: 5 * time.Second, Count: 4}
}

// socket says what a link's sockets are bound to.
type socket struct {
	device string // SO_BINDTODEVICE; "" leaves it to the routes
	mark   uint32 // SO_MARK; 0 for none
	small  bool   // TCP: segments are (see segments)
}

// control prepares a socket before it is bound or connected; it has the
// signature of net.Dialer.Control.
func (s socket) control(network, _ string, raw syscall.RawConn) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) { err = s.prepare(int(fd), network) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

func (s socket) prepare(fd int, network string) error {
	if s.device != "" {
		if err := unix.BindToDevice(fd, s.device); err != nil {
			return &socketError{"bind to interface " + s.device, err}
		}
	}
	if s.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.mark)); err != nil {
			return &socketError{fmt.Sprintf("set mark 0x%x", s.mark), err}
		}
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
		if s.small {
			if err := bound(fd); err != nil {
				return err
			}
		}
		return tuneTCP(fd)
	}
	return nil
}

// socketError is a setting that the kernel refused: no matter of the network,
// so that another transport would not do better.
type socketError struct {
	setting string
	err     error
}

func (e *socketError) Error() string { return e.setting + ": " + e.err.Error() }
func (e *socketError) Unwrap() error { return e.err }

// tuneTCP sets what is the same for dialled, listening and accepted sockets.
func tuneTCP(fd int) error {
	prefer(fd, congestionControl)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat); err != nil {
		return &socketError{"set TCP_NOTSENT_LOWAT", err}
	}
	// From Linux 6.15 on: without it a link that was dead for a while is tried
	// again only after as long.
	_ = setRetry(fd, retryMost)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())); err != nil {
		return &socketError{"set TCP_USER_TIMEOUT", err}
	}
	return nil
}

// setRetry sets TCP_RTO_MAX_MS.
func setRetry(fd int, most time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMax, int(most.Milliseconds()))
}

// tcpPipe carries records on a TCP connection that has left TLS.
type tcpPipe struct {
	conn *net.TCPConn
	raw  syscall.RawConn

	// started says that BBR has found out what the path carries: see quicken.
	started atomic.Bool
	// paced is the rate of pace, bytes per second; bursts says that it is no bound now.
	paced   atomic.Int64
	bursts  atomic.Bool
	renewal renewal
	recalls recalling
	retry   atomic.Int64 // TCP_RTO_MAX_MS as it is, a time.Duration; 0: retryMost
	// parks says that a reader that finds nothing does so at once. Few may look again
	// and again on a busy machine: they would keep each other awake (pkg/park).
	parks bool

	// The writer's: the arguments and the result of writeOnce.
	out       [][]byte
	outVec    nonblock.Vectors
	sent      int
	failed    error
	writeOnce func(fd uintptr) bool
	tryOnce   func(fd uintptr)

	// The reader's: the arguments and the result of readOnce, which is kept as
	// a function value so that a read allocates nothing.
	in       [][]byte
	inVec    nonblock.Vectors
	try      bool
	n        int
	err      error
	drained  bool // the last read was small and took all there was
	readOnce func(fd uintptr) bool
}

func newTCPPipe(conn *net.TCPConn, w *resume.Windows, port uint16) (*tcpPipe, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &tcpPipe{conn: conn, raw: raw}
	p.renewal.born = time.Now()
	p.recalls.windows, p.recalls.port = w, port
	p.readOnce, p.writeOnce, p.tryOnce = p.read, p.write, p.tryWrite
	return p, nil
}

func (p *tcpPipe) readv(bufs [][]byte, try bool) (int, error) {
	if try && p.drained {
		return 0, nil // nobody waits: what has come meanwhile is for the next call
	}
	p.in, p.try, p.n, p.err = bufs, try, 0, nil
	err := p.raw.Read(p.readOnce)
	p.in = nil
	if err != nil {
		return 0, err
	}
	return p.n, p.err
}

// read is one attempt; false asks to be called again when there is something
// to read.
func (p *tcpPipe) read(fd uintptr) bool {
	for look := (park.Look{}); ; {
		n, err := p.inVec.Readv(int(fd), p.in)
		switch err {
		case nil:
			p.n, p.drained = n, n <= short && n < size(p.in)
			if n == 0 {
				p.err = io.EOF
			}
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			if p.try || p.parks || !look.Again() {
				return p.try
			}
		default:
			p.err = err
			return true
		}
	}
}

func (p *tcpPipe) writev(bufs [][]byte) error {
	for len(bufs) > 0 {
		p.out, p.sent, p.failed = bufs, 0, nil
		err := p.raw.Write(p.writeOnce)
		p.out = nil
		if err == nil {
			err = p.failed
		}
		if err != nil {
			return err
		}
		bufs = consume(bufs, p.sent)
	}
	return nil
}

func (p *tcpPipe) tryWritev(bufs [][]byte) (int, error) {
	p.out, p.sent, p.failed = bufs, 0, nil
	err := p.raw.Control(p.tryOnce)
	p.out = nil
	return p.sent, errors.Join(err, p.failed)
}

// tryWrite is the one attempt of tryWritev.
func (p *tcpPipe) tryWrite(fd uintptr) {
	for {
		n, err := p.outVec.Writev(int(fd), p.out)
		switch err {
		case nil:
			p.sent = n
		case unix.EINTR:
			continue
		case unix.EAGAIN:
		default:
			p.failed = err
		}
		return
	}
}

// write is one attempt; false asks to be called again when there is room.
func (p *tcpPipe) write(fd uintptr) bool {
	for look := (park.Look{}); ; {
		n, err := p.outVec.Writev(int(fd), p.out)
		switch err {
		case nil:
			p.sent = n
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			if !look.Again() {
				return false
			}
		default:
			p.failed = err
			return true
		}
	}
}

// short is how many bytes a read may bring, at most, to count as one that took
// all there was: after a larger one more is likely to have come by now.
const short = 2 << 10

// size is how many bytes bufs have room for.
func size(bufs [][]byte) (n int) {
	for _, p := range bufs {
		n += len(p)
	}
	return n
}

// consume takes n bytes off bufs.
func consume(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// pace sets SO_MAX_PACING_RATE, which bounds what BBR computes: BBR on a
// connection that is always a little short of data never leaves its start and
// bursts at three times the rate. What may wait in the kernel follows the rate:
// it must outlast the time until the writer is woken and has written again.
func (p *tcpPipe) pace(rate float64) {
	p.paced.Store(int64(min(rate, math.MaxInt32)))
	p.setPace()
}

// burst lifts that bound where the line delivers in bunches, and restores it.
func (p *tcpPipe) burst(yes bool) {
	p.bursts.Store(yes)
	p.setPace()
}

func (p *tcpPipe) setPace() {
	rate, value := int(p.paced.Load()), -1 // the kernel's word for no limit
	if rate > 0 && !p.bursts.Load() {
		value = rate
	}
	waiting := min(max(int(float64(rate)*notSentTime.Seconds()), notSentLowat), notSentMost)
	_ = p.raw.Control(func(fd uintptr) {
		_ = nonblock.SetInt(int(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, value)
		_ = nonblock.SetInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, waiting)
	})
}

// slow reports whether a connection at rest is paced by less than half of what its
// window stands for in BBR's start.
func slow(info *unix.TCPInfo) bool {
	window := float64(info.Snd_cwnd) * float64(info.Snd_mss)
	paced := float64(info.Pacing_rate) * float64(info.Rtt) / 1e6 // in a round trip
	return info.Unacked == 0 && info.Rtt > 0 && startGain*window >= 2*paced
}

// urge lets BBR begin again: it keeps its window and is in its start once more,
// where it doubles what it sends in a round trip. Otherwise it takes eight for a
// quarter more. The kernel begins anew only with a controller that is another.
func (p *tcpPipe) urge() {
	p.started.Store(false)
	p.renewal.begun()
	_ = p.raw.Control(func(fd uintptr) { restart(int(fd)) })
}

// stretch is nothing to the kernel's BBR: begun again it would believe for ten seconds more in
// the least round trip that the kernel has seen in five minutes.
func (p *tcpPipe) stretch(time.Duration) {}

// steady is nothing to the kernel's BBR.
func (p *tcpPipe) steady(bool) {}

// lead is nothing to it either: it paces at its own rate, or at less.
func (p *tcpPipe) lead(bool) {}

// volley is nothing to it.
func (p *tcpPipe) volley(bool) {}

// restart lets BBR begin again, if it is BBR that governs.
func restart(fd int) {
	if name, _ := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); name != congestionControl {
		return
	}
	if unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") == nil {
		_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestionControl)
	}
}

// renewal is a bbr.Renewal of a kernel's connection. Anybody may ask for a sample.
type renewal struct {
	born time.Time
	mu   sync.Mutex
	of   bbr.Renewal // guarded by mu
}

func (r *renewal) begun() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of.Begun(time.Since(r.born))
}

// look lets BBR begin again if that is due, and reports whether it will be.
func (r *renewal) look(fd int, info *unix.TCPInfo) bool {
	us := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
	r.mu.Lock()
	defer r.mu.Unlock()
	due, renew := r.of.Look(time.Since(r.born), us(info.Rtt), us(info.Min_rtt), int(info.Unacked))
	if renew {
		restart(fd)
	}
	return due
}

// quicken has BBR pace by the window that it has now. Until a load has shown what
// the path carries, it paces what follows a rest by the window with which the
// connection began, ten packets, or by what little was asked for before: the last
// of 10 KB leaves after 4 ms on a path of 20 ms, though the window has long allowed
// three times as much in a round trip. It reckons anew when it begins again; that is
// done at rest, when the window has doubled.
func (p *tcpPipe) quicken(fd int, info *unix.TCPInfo) {
	if p.started.Load() || !slow(info) {
		return
	}
	bbr, ok := bbrInfo(fd)
	if !ok || float64(bbr.Pacing_gain) < 0.9*startGain*256 {
		p.started.Store(true) // or another congestion control
		return
	}
	restart(fd)
}

func (p *tcpPipe) closeWrite() error { return p.conn.CloseWrite() }

// urgent implements pipe: one TCP connection is one stream.
func (p *tcpPipe) urgent() (duct, error) { return nil, nil }

func (p *tcpPipe) close(error) { _ = p.conn.Close() }

func (p *tcpPipe) describe(info *Info) {
	info.Local, info.Remote = addrPort(p.conn.LocalAddr()), addrPort(p.conn.RemoteAddr())
	_ = p.raw.Control(func(fd uintptr) {
		info.Congestion, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
}

func (p *tcpPipe) sample(s *Stats) {
	_ = p.raw.Control(func(fd uintptr) {
		var info unix.TCPInfo
		if err := nonblock.TCPInfo(int(fd), &info); err == nil {
			s.fromKernel(&info)
			p.quicken(int(fd), &info)
			s.Due = p.renewal.look(int(fd), &info)
			p.recalls.look(p, int(fd), &info)
			p.wait(int(fd), s.RTT)
		}
	})
}

// wait has the kernel wait for an answer for as long as one takes: where the round trip is
// longer than retryMost it would send the same packet again and again, and a line of 10
// kbit/s, on which each of them takes a second, would carry little else.
func (p *tcpPipe) wait(fd int, rtt time.Duration) {
	most := retryFor(rtt)
	if was := p.retry.Swap(int64(most)); was != int64(most) && (was != 0 || most != retryMost) {
		_ = setRetry(fd, most)
	}
}

// retryFor is retryMost, or doubled until it is two round trips.
func retryFor(rtt time.Duration) time.Duration {
	most := retryMost
	for most < 2*rtt && most < userTimeout/2 {
		most *= 2
	}
	return most
}

// fromKernel enters a TCP_INFO, see struct tcp_info in linux/tcp.h.
func (s *Stats) fromKernel(info *unix.TCPInfo) {
	mss := int64(info.Snd_mss)
	s.RTT = time.Duration(info.Rtt) * time.Microsecond
	s.RTTVar = time.Duration(info.Rttvar) * time.Microsecond
	s.MinRTT = time.Duration(info.Min_rtt) * time.Microsecond
	s.Window = int64(info.Snd_cwnd) * mss
	inFlight := int64(info.Unacked) - int64(info.Sacked) - int64(info.Lost) + int64(info.Retrans)
	s.InFlight = max(inFlight, 0) * mss
	s.NotSent = int64(info.Notsent_bytes)
	s.DeliveryRate = int64(info.Delivery_rate)
	s.AppLimited = appLimited(info)
	s.Lost = uint64(info.Total_retrans)
	s.PacketsIn = uint64(info.Segs_in)
	s.DataIn, s.Reordered = uint64(info.Data_segs_in), uint64(info.Rcv_ooopack)
	s.Delivered = uint64(info.Delivered)
	s.Arrived, s.Ahead = info.Bytes_acked, int64(info.Sacked)*mss
	s.Acked = s.Arrived + uint64(s.Ahead)
}

// appLimited reads the bit-field tcpi_delivery_rate_app_limited, the lowest
// bit of the eighth byte, which the Go structure leaves out between Options
// and Rto.
func appLimited(info *unix.TCPInfo) bool {
	const at = 7
	return (*[unsafe.Sizeof(*info)]byte)(unsafe.Pointer(info))[at]&1 != 0
}

// addrPort returns the address of a TCP or UDP socket, IPv4 as such.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
