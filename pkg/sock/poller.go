// Package sock makes party connections of kernel sockets, and gives each relay
// worker the Poller that its event loop waits in.
//
// A Poller is an epoll instance that is itself registered with the runtime's
// netpoller: a waiting worker parks its goroutine and holds no thread, which
// is faster than a blocking epoll_wait where cores are few.
//
// Wake moves the descriptor's read deadline into the past, which makes the
// worker runnable at once. An eventfd would go through the netpoller, which
// busy processors look at only every 10 ms.
//
// The package starts no goroutines.
package sock

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/nonblock"
	"hawser/pkg/park"
	"hawser/pkg/slim"
)

const (
	// eventBatch is how many events one epoll_wait takes.
	eventBatch = 256
)

// past returns a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

// Poller is one worker's readiness. Only Wake may be called by others than
// the worker's goroutine.
type Poller struct {
	file  *os.File // the epoll descriptor
	raw   syscall.RawConn
	look  func(fd uintptr) bool // poll, made once: a method value is allocated
	epoll int

	woken  atomic.Bool // Wake was called since the last Wait returned
	asleep atomic.Bool // the worker is parked, or about to be

	watched map[int32]watched
	none    bool      // nothing was watched when the worker went to sleep
	peak    slim.Peak // of watched
	round   int32     // counts registrations; tells a reused descriptor from its predecessor
	armed   time.Time
	dials   dialQueue
	// Patience is how long a server may take to answer, and what is expected to come;
	// DialTimeout unless it is set before the first dial.
	Patience time.Duration
	// Idle is after how much silence a connection that is dialled later is probed; DialIdle
	// unless it is set.
	Idle time.Duration
	// Unaccepted, if set before the first Wait, is told why a listener cannot accept what
	// waits for it, ten times a second at most: the machine is out of descriptors or memory.
	Unaccepted func(error)
	// Before, unless it is nil, is called as each Wait begins. If it calls Wake, that one does
	// not sleep.
	Before func()

	stuck  []*Listener // that could not accept what waits for them
	again  time.Time   // when they try once more
	events [eventBatch]unix.EpollEvent
	got    int
	err    error

	vectors  nonblock.Vectors // of its connections' writes
	governor string           // the congestion control of those that are no longer brief

	contention, calm atomic.Uint64 // see Contention
}

// watched is what gets a descriptor's events.
type watched struct {
	round  int32
	handle func(events uint32)
}

// NewPoller opens a poller. Close gives it back.
func NewPoller() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("sock: open epoll instance: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // else os.NewFile leaves the netpoller out
		unix.Close(epoll)
		return nil, fmt.Errorf("sock: set epoll instance non-blocking: %w", err)
	}
	p := &Poller{epoll: epoll, watched: make(map[int32]watched), Patience: DialTimeout, Idle: DialIdle, file: os.NewFile(uintptr(epoll), "epoll")}
	if err := p.file.SetReadDeadline(time.Time{}); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("sock: the netpoller takes no epoll instance: %w", err)
	}
	p.look = p.poll
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("sock: set up epoll instance: %w", err)
	}
	return p, nil
}

// Close gives the poller back. Connections that use it must be closed before,
// and nobody may call Wake any more.
func (p *Poller) Close() error { return p.file.Close() }

// Wake makes the present Wait return, or the next one if none is under way.
// Any goroutine may call it; it is cheap when the worker does not
// sleep.
func (p *Poller) Wake() {
	p.woken.Store(true)
	if p.asleep.CompareAndSwap(true, false) {
		_ = p.file.SetReadDeadline(past()) // fails only after Close
	}
}

// Wait delivers the events of the poller's sockets to their Watch functions.
// If there are none and Wake was not called it waits for either, at most for
// timeout; a negative timeout has no end. It may return early without cause.
func (p *Poller) Wait(timeout time.Duration) error {
	return p.wait(nil, timeout)
}

// Rest is Wait for a caller who holds turn, as all must who use the poller's
// connections: others may have it while there is nothing to report.
func (p *Poller) Rest(turn sync.Locker, timeout time.Duration) error { return p.wait(turn, timeout) }

func (p *Poller) wait(turn sync.Locker, timeout time.Duration) error {
	if p.Before != nil {
		p.Before()
	}
	var err error
	if timeout == 0 || p.woken.Load() {
		err = p.collect()
	} else {
		err = p.sleep(turn, timeout) // which looks before it parks
	}
	if err != nil {
		return err
	}
	p.woken.Store(false)
	p.dispatch()
	return nil
}

// collect takes the events there are without waiting.
func (p *Poller) collect() error {
	for {
		n, err := nonblock.Poll(p.epoll, p.events[:])
		switch {
		case err == nil:
			p.got = n
			return nil
		case err != unix.EINTR:
			p.got = 0
			return fmt.Errorf("sock: epoll_wait: %w", err)
		}
	}
}

// poll takes events; false makes the caller park until there are some.
//
// It does not park while the processors are busy, see package park. Wake needs
// none of this.
func (p *Poller) poll(uintptr) bool {
	for look := (park.Look{}); ; {
		p.err = p.collect()
		if p.got > 0 || p.err != nil || p.woken.Load() {
			return true
		}
		if p.none || !p.contended(&look) {
			return false
		}
	}
}

// Contention is how often, before the worker parked, others had much to do, and
// how often they had not. Any goroutine may ask.
func (p *Poller) Contention() (contended, calm uint64) {
	return p.contention.Load(), p.calm.Load()
}

// contended says whether to look again before parking: others had much to do
// and there is time left to wait.
func (p *Poller) contended(look *park.Look) bool {
	if !park.Contended() {
		p.calm.Add(1)
		return false
	}
	p.contention.Add(1)
	return look.Patient() && (p.armed.IsZero() || time.Now().Before(p.armed))
}

// sleep parks until there are events, Wake is called or the time is over. turn may
// be nil; else it is given back meanwhile.
func (p *Poller) sleep(turn sync.Locker, timeout time.Duration) error {
	now := time.Now()
	until := time.Time{}
	if timeout > 0 {
		until = now.Add(timeout)
	}
	if d, ok := p.dials.deadline(); ok && (until.IsZero() || d.Before(until)) {
		until = d
	}
	if len(p.stuck) > 0 && (until.IsZero() || p.again.Before(until)) {
		until = p.again
	}
	if err := p.arm(now, until); err != nil {
		return err
	}
	p.none = len(p.watched) == 0
	p.asleep.Store(true)
	if turn != nil {
		turn.Unlock()
	}
	err := p.raw.Read(p.look)
	if turn != nil {
		turn.Lock()
	}
	over := errors.Is(err, os.ErrDeadlineExceeded)
	if !p.asleep.CompareAndSwap(true, false) || over {
		// A Wake has moved the deadline or is about to. One that comes too
		// late for this sleep ends the next one early; that does no harm.
		p.armed = past()
	}
	if over {
		p.got = 0
		return nil
	}
	if err != nil {
		return fmt.Errorf("sock: wait for events: %w", err)
	}
	return p.err
}

// arm sets the time at which the netpoller ends the wait. Moving it costs more
// than a spurious return, so a deadline that is earlier than needed but still
// to come stays.
func (p *Poller) arm(now, until time.Time) error {
	if p.armed.After(now) && (until.IsZero() || !until.Before(p.armed)) || p.armed.IsZero() && until.IsZero() {
		return nil
	}
	p.armed = until
	if err := p.file.SetReadDeadline(until); err != nil {
		return fmt.Errorf("sock: set deadline: %w", err)
	}
	return nil
}

// dispatch hands the events of the last batch to those they are for, and ends
// dials whose time is over.
func (p *Poller) dispatch() {
	for i := range p.got {
		ev := &p.events[i]
		// A handler may have closed a later event's descriptor, and another
		// may have got its number.
		if w, ok := p.watched[ev.Fd]; ok && w.round == ev.Pad {
			w.handle(ev.Events)
		}
	}
	p.got = 0
	if !p.dials.empty() {
		p.dials.expire(time.Now())
	}
	if len(p.stuck) > 0 && !time.Now().Before(p.again) {
		stuck := p.stuck
		p.stuck = nil
		for _, l := range stuck {
			l.handle(0)
		}
	}
}

// acceptPause is how long accepting rests where the machine is out of descriptors or
// memory.
const acceptPause = 100 * time.Millisecond

// retry has a listener try once more in a while: why says what hinders it.
func (p *Poller) retry(l *Listener, why error) {
	if p.Unaccepted != nil {
		p.Unaccepted(why)
	}
	if !slices.Contains(p.stuck, l) {
		p.stuck = append(p.stuck, l)
	}
	p.again = time.Now().Add(acceptPause)
}

// Attach makes Wait return when fd becomes readable: an asynchronous card's
// descriptor. Who waits looks at it then, until it is dry. fd stays the
// caller's.
func (p *Poller) Attach(fd int) error {
	if err := p.add(fd, func(uint32) {}); err != nil {
		return fmt.Errorf("sock: %w", err)
	}
	return nil
}

// Detach ends Attach; it comes before the close of fd.
func (p *Poller) Detach(fd int) error {
	p.remove(fd)
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return fmt.Errorf("sock: stop watching descriptor: %w", err)
	}
	return nil
}

// add watches fd for good: edge-triggered, in both directions.
func (p *Poller) add(fd int, handle func(events uint32)) error {
	p.round++
	ev := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     int32(fd),
		Pad:    p.round,
	}
	if err := nonblock.Watch(p.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch socket: %w", err)
	}
	p.watched[int32(fd)] = watched{round: p.round, handle: handle}
	return nil
}

// remove forgets fd, which the caller closes: that takes it out of epoll.
func (p *Poller) remove(fd int) {
	delete(p.watched, int32(fd))
	p.watched = slim.Map(p.watched, &p.peak)
}

// dialQueue holds dials under way, and connections of which something is
// expected, in the order of their deadlines, which is the order of their start:
// all have the same time. One of which something is expected again before it has come to
// the front is there once: it goes to the back then, so that it ends a little late.
type dialQueue struct {
	waits []wait
	kept  int // of them when those that no longer wait were last dropped
}

// wait is a connection's place in the queue, until at.
type wait struct {
	conn *Conn
	at   time.Time
}

func (q *dialQueue) empty() bool { return len(q.waits) == 0 }

// add puts a connection at the end. One dial that is not answered must not keep all that
// came after it and have long been closed: each is dropped once as many more have come.
func (q *dialQueue) add(c *Conn) {
	if c.listed {
		return
	}
	if len(q.waits) > 2*q.kept+64 {
		q.waits = slices.DeleteFunc(q.waits, wait.over)
		q.kept = len(q.waits)
	}
	c.listed = true
	q.waits = append(q.waits, wait{c, c.deadline})
}

// over reports whether the connection no longer waits, and has no place then.
func (w wait) over() bool {
	w.conn.listed = w.conn.waiting
	return !w.conn.waiting
}

// pop takes the first one out.
func (q *dialQueue) pop() *Conn {
	c := q.waits[0].conn
	c.listed = false
	q.waits[0] = wait{}
	q.waits = q.waits[1:]
	return c
}

// deadline returns the first one.
func (q *dialQueue) deadline() (time.Time, bool) {
	q.settle()
	if q.empty() {
		return time.Time{}, false
	}
	return q.waits[0].at, true
}

// settle drops what no longer waits from the front.
func (q *dialQueue) settle() {
	for len(q.waits) > 0 && !q.waits[0].conn.waiting {
		q.pop()
	}
}

// expire ends what has waited until its deadline.
func (q *dialQueue) expire(now time.Time) {
	for q.settle(); len(q.waits) > 0 && !now.Before(q.waits[0].at); q.settle() {
		if c := q.pop(); now.Before(c.deadline) {
			q.add(c)
		} else {
			c.expire()
		}
	}
}
