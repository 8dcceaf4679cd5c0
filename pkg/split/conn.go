package split

import (
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"hawser/pkg/party"
	"hawser/pkg/proof"
)

const (
	// events are what a Conn wants to hear of from netstack.
	events = waiter.ReadableEvents | waiter.WritableEvents | waiter.EventHUp | waiter.EventErr
	// missedShift moves a readiness bit to where Conn.ready notes that it was
	// raised while it counted as reported.
	missedShift = 8
	// moderateAfter is how many bytes are read before netstack is asked to
	// tune the receive buffer: that takes the endpoint's lock.
	moderateAfter = 16 << 10
	// halfIdle is how long a connection of which one end has sent its FIN may be idle
	// before it is probed: the kernel's connection tracking, and with it the hub's
	// rules and the cloud's masquerading, forgets it after 60 s. A party that has
	// vanished is given up after halfProbes of them, as late as others are.
	halfIdle   = 25 * time.Second
	halfProbes = 48
	// orphanTime bounds how long netstack goes on sending to a party that no
	// longer acknowledges, after Close; see orphans, too.
	orphanTime = 2 * time.Minute
)

// Conn is a user-space TCP connection. See party.Conn for its methods: the
// worker that owns it calls them, one at a time.
type Conn struct {
	stack    *Stack
	ep       tcpip.Endpoint
	queue    waiter.Queue
	entry    waiter.Entry
	notify   func(party.Ready)
	deadline *time.Timer // of a dial; nil otherwise
	failure  *error      // the first that netstack gave; it gives it once. nil: none
	ward     *ward       // the guard's part; nil without one
	small    *small      // nil: both buffers began with Options.Buffer
	ends     tuple

	// ready holds the readiness bits that were reported and not yet taken back
	// by ErrAgain, and, shifted by missedShift, those of them that were raised
	// once more since the present operation began.
	ready   atomic.Uint32
	traits  atomic.Uint32
	offered atomic.Uint32 // a dialled server's first window, in bytes

	grown      int32       // bytes of both buffers beyond what they began with
	unmoderate int32       // bytes read since the receive buffer was last tuned
	read       proof.Proof // of both directions
}

// What is true of a Conn, in its traits: one word, as 100,000 of them may be at rest.
const (
	isWatched = 1 << iota // notify is set
	isExpired             // the dial's time is over
	isDialed
	isUp      // ep is set: always but for a client's connection that the guard has not given to netstack yet
	isFailing // the client or netstack gave up before that
	isCounted // among growth.conns
	isWanted  // Watch was called before isUp; guarded by keeper.mu
	isFinSent
	isHalfClosed // one end has
	isGone       // Close or Abort was called
)

func (c *Conn) is(trait uint32) bool { return c.traits.Load()&trait != 0 }
func (c *Conn) set(trait uint32)     { c.traits.Or(trait) }

// clear takes a trait back, and returns whether it was there.
func (c *Conn) clear(trait uint32) bool { return c.traits.And(^trait)&trait != 0 }

// tools are what a call hands to netstack. In a Conn they would rest most of the
// time.
type tools struct {
	to   tcpip.SliceWriter
	from payload
	one  [1][]byte
}

func (s *Stack) borrow() *tools {
	if t, ok := s.tools.Get().(*tools); ok {
		return t
	}
	return &tools{}
}

// Watch implements party.Conn.
func (c *Conn) Watch(fn func(party.Ready)) {
	c.notify = fn
	if c.ward != nil && !c.await() {
		return
	}
	c.listen()
	if c.is(isExpired) {
		c.report(party.Writable)
	}
}

// listen lets c hear of netstack's events.
func (c *Conn) listen() {
	c.set(isWatched)
	c.entry.Init(c, events)
	c.queue.EventRegister(&c.entry)
	c.NotifyEvent(c.ep.Readiness(events))
}

// NotifyEvent implements waiter.EventListener. netstack calls it on its own
// goroutines, with locks held.
func (c *Conn) NotifyEvent(mask waiter.EventMask) {
	var bits party.Ready
	if mask&waiter.ReadableEvents != 0 {
		bits |= party.Readable
	}
	if mask&waiter.WritableEvents != 0 {
		bits |= party.Writable
	}
	if c.broken() {
		bits |= party.Hangup | party.Readable | party.Writable
	}
	c.report(bits)
}

// report tells the worker the bits it has not been told yet.
func (c *Conn) report(bits party.Ready) {
	for bits != 0 {
		old := c.ready.Load()
		fresh := uint32(bits) &^ old
		again := uint32(bits) & old
		if !c.ready.CompareAndSwap(old, old|fresh|again<<missedShift) {
			continue
		}
		if fresh != 0 {
			c.notify(party.Ready(fresh))
		}
		return
	}
}

// begin forgets what was raised before an operation: the operation sees it.
func (c *Conn) begin(bit party.Ready) {
	if c.ready.Load()&(uint32(bit)<<missedShift) != 0 {
		c.ready.And(^(uint32(bit) << missedShift))
	}
}

// rearm takes back a reported bit after an operation would have blocked. False
// means that the bit was raised meanwhile: the caller tries again.
func (c *Conn) rearm(bit party.Ready) bool {
	for {
		old := c.ready.Load()
		if old&(uint32(bit)<<missedShift) != 0 {
			c.ready.And(^(uint32(bit) << missedShift))
			return false
		}
		if c.ready.CompareAndSwap(old, old&^uint32(bit)) {
			return true
		}
	}
}

// broken says that the connection ended other than by both sides' FINs.
func (c *Conn) broken() bool {
	if !c.is(isUp) {
		return c.is(isFailing)
	}
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateError:
		return true
	case tcp.StateClose: // also where a RST after the party's FIN leads to
		return !c.is(isFinSent)
	}
	return false
}

// expire ends a dial that has had no answer. The runtime calls it.
func (c *Conn) expire() {
	c.set(isExpired)
	if c.is(isWatched) {
		c.report(party.Writable)
	}
}

// Connected implements party.Conn.
func (c *Conn) Connected() error {
	if !c.is(isDialed) {
		return nil
	}
	for {
		c.begin(party.Writable)
		switch state := tcp.EndpointState(c.ep.State()); state {
		case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		case tcp.StateError, tcp.StateClose, tcp.StateInitial, tcp.StateBound:
			c.inTime()
			return c.failed(c.ep.LastError())
		default:
			if c.deadline != nil {
				c.stack.trimmer.prune(c.ep)
			}
			c.inTime()
			return nil
		}
		if c.failure == nil && c.is(isExpired) {
			reason := party.ErrUnreachable
			c.failure = &reason
			c.stack.count.dialFails.Add(1)
			c.ep.Abort()
		}
		if c.failure != nil {
			return *c.failure
		}
		if c.rearm(party.Writable) {
			return party.ErrAgain
		}
	}
}

// inTime ends the watch over a dial.
func (c *Conn) inTime() {
	if c.deadline != nil {
		c.deadline.Stop()
		c.deadline = nil // a timer is a third of a Conn
		c.stack.in.offers.forget(c)
	}
}

// failed remembers the first reason that netstack gives, and returns it.
func (c *Conn) failed(err tcpip.Error) error {
	if c.failure == nil {
		reason := party.ErrReset
		if err != nil {
			reason = partyError(err)
		}
		c.failure = &reason
	}
	return *c.failure
}

// Read implements party.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !c.is(isUp) {
		return 0, c.early(party.Readable)
	}
	t := c.stack.borrow()
	defer c.stack.tools.Put(t)
	for {
		c.begin(party.Readable)
		t.to = p
		res, err := c.ep.Read(&t.to, tcpip.ReadOptions{})
		t.to = nil
		if err == nil {
			c.took(res.Count)
			return res.Count, nil
		}
		switch err.(type) {
		case *tcpip.ErrWouldBlock:
			if c.rearm(party.Readable) {
				return 0, party.ErrAgain
			}
		case *tcpip.ErrClosedForReceive:
			if c.failure == nil && !c.broken() {
				c.halfClosed()
				return 0, io.EOF
			}
			return 0, c.failed(nil)
		default:
			return 0, c.failed(err)
		}
	}
}

// Waiting implements party.Holder.
func (c *Conn) Waiting() int {
	if !c.is(isUp) {
		return 0
	}
	n, _ := c.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption) // cannot fail: it does not listen
	return n
}

// Room implements party.Roomer.
func (c *Conn) Room() int {
	if !c.is(isUp) || c.stack.inside == nil {
		return 0
	}
	e, ok := c.ep.(*tcp.Endpoint)
	if !ok {
		return 0
	}
	return max(int(e.SocketOptions().GetSendBufferSize())-c.stack.inside.waiting(e), 0)
}

// Write implements party.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	t := c.stack.borrow()
	defer c.stack.tools.Put(t)
	t.one[0] = p
	n, err := c.writev(t, t.one[:])
	t.one[0] = nil
	return n, err
}

// Writev is Write for several pieces at once. netstack sends what it gets in
// one call as one frame of up to 64 KB, so a worker that has several pieces
// saves most of a frame's cost for each but the first.
func (c *Conn) Writev(bufs [][]byte) (int, error) {
	t := c.stack.borrow()
	defer c.stack.tools.Put(t)
	return c.writev(t, bufs)
}

func (c *Conn) writev(t *tools, bufs [][]byte) (int, error) {
	if !c.is(isUp) {
		return 0, c.early(party.Writable)
	}
	t.from.set(bufs)
	defer t.from.set(nil)
	c.stack.out.hold()
	defer c.stack.out.flush()
	done := 0
	for t.from.Len() > 0 {
		c.begin(party.Writable)
		n, err := c.ep.Write(&t.from, tcpip.WriteOptions{Atomic: true})
		done += int(n)
		c.sent(int(n))
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if c.rearm(party.Writable) {
				return done, party.ErrAgain
			}
		case *tcpip.ErrClosedForSend:
			return done, c.failed(nil)
		default:
			return done, c.failed(err)
		}
	}
	return done, nil
}

// CloseWrite implements party.Conn.
func (c *Conn) CloseWrite() error {
	if c.broken() {
		return c.failed(nil)
	}
	if c.ward != nil && !c.finish() {
		return nil
	}
	c.set(isFinSent)
	c.stack.out.hold()
	defer c.stack.out.flush()
	if err := c.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
		return c.failed(err)
	}
	c.halfClosed()
	return nil
}

// halfClosed has c stay known to the host's connection tracking, by probes, now that one
// end has said all. The other may be silent for much longer before it speaks.
func (c *Conn) halfClosed() {
	if c.is(isHalfClosed) || c.stack.opts.KeepAlive < 0 {
		return
	}
	c.set(isHalfClosed)
	idle, interval := tcpip.KeepaliveIdleOption(halfIdle), tcpip.KeepaliveIntervalOption(halfIdle)
	// None of these can fail.
	_ = c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, halfProbes)
	_ = c.ep.SetSockOpt(&interval)
	_ = c.ep.SetSockOpt(&idle)
}

// Abort implements party.Conn.
func (c *Conn) Abort() {
	c.forget()
	if c.ward != nil && !c.release(true) {
		return
	}
	c.strip()
	if c.ep.State() == uint32(tcp.StateTimeWait) {
		c.ep.Close() // both FINs are acknowledged: there is nothing to reset
	} else {
		c.ep.Abort()
	}
	if c.ward != nil {
		c.stack.keeper.bury(c.ward)
	}
}

// Close implements party.Conn.
func (c *Conn) Close() {
	if c.is(isGone) {
		return
	}
	c.forget()
	if c.ward != nil && !c.release(false) {
		return
	}
	c.strip()
	patience := tcpip.TCPUserTimeoutOption(orphanTime)
	_ = c.ep.SetSockOpt(&patience) // cannot fail
	c.ep.Close()
	c.stack.orphan(c.ep)
}

// forget stops all callbacks.
func (c *Conn) forget() {
	if c.is(isGone) {
		return
	}
	c.set(isGone)
	c.inTime()
	c.stack.out.shut.forget(c) // whom the party has reset netstack sends nothing any more
	if c.is(isWatched) {
		c.queue.EventUnregister(&c.entry)
	}
}

// Local returns our end: at the edge the address that the client wanted, at
// the cloud the hub's address and the local port.
func (c *Conn) Local() netip.AddrPort { return c.ends.local() }

// Remote implements party.Conn.
func (c *Conn) Remote() netip.AddrPort { return c.ends.remote() }

// payload is the bytes of one write as netstack wants them.
type payload struct {
	bufs [][]byte
	off  int // in bufs[0]
	left int // bytes in all
}

// set starts over with bufs, which it does not change.
func (s *payload) set(bufs [][]byte) {
	*s = payload{bufs: bufs}
	for _, p := range bufs {
		s.left += len(p)
	}
}

// Len implements tcpip.Payloader.
func (s *payload) Len() int { return s.left }

// Read implements io.Reader. It fills p as long as there are bytes.
func (s *payload) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	done := 0
	for done < len(p) && len(s.bufs) > 0 {
		n := copy(p[done:], s.bufs[0][s.off:])
		done += n
		s.off += n
		if s.off == len(s.bufs[0]) {
			s.bufs, s.off = s.bufs[1:], 0
		}
	}
	s.left -= done
	return done, nil
}
