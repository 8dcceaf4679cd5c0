package split

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hawser/pkg/guard"
)

const (
	// synBatch is how many SYNs one system call receives, and SYN-ACKs one
	// sends.
	synBatch = 64
	// synFrame is the longest SYN in bytes. One that carries data may be as
	// long as any segment; its data is ignored.
	synFrame = 1600
)

// synLoop answers clients' SYNs. They come by a socket of their own, so that
// a flood of them fills its buffer and not that of established connections.
// Answering allocates nothing.
type synLoop struct {
	k     *keeper
	file  *os.File
	raw   syscall.RawConn
	vnets [synBatch][vnetLen]byte
	frame [synBatch][synFrame]byte
	iovs  [synBatch][2]unix.Iovec
	msgs  [synBatch]mmsghdr
	got   int
	errno unix.Errno
	tx    synSender

	wake    time.Time   // the read deadline
	stopped atomic.Bool // set by stop
	mu      sync.Mutex
	recent  *guard.Recent // guarded by mu
}

// synSender holds the answers of one batch.
type synSender struct {
	frames [synBatch][vnetLen + etherLen + guard.MaxHeaders]byte
	iovs   [synBatch][1]unix.Iovec
	msgs   [synBatch]mmsghdr
	next   int
	count  int
	errno  unix.Errno
	write  func(fd uintptr) bool
}

// guarded puts the guard in front of netstack and takes over its socket.
func (s *Stack) guarded(o GuardOptions) error {
	if o.Gate == nil {
		return errors.New("split: Guard: no gate given")
	}
	if err := unix.SetNonblock(o.SYN, true); err != nil {
		return fmt.Errorf("split: Guard.SYN %d: set non-blocking: %w", o.SYN, err)
	}
	s.keeper = newKeeper(s, o)
	if s.splice != nil {
		s.splice.keeper = s.keeper
	}
	l := &synLoop{k: s.keeper, recent: guard.NewRecent(), file: os.NewFile(uintptr(o.SYN), "hub1-syn")}
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("split: Guard.SYN %d: %w", o.SYN, err)
	}
	l.raw = raw
	for i := range synBatch {
		l.iovs[i] = [2]unix.Iovec{iovec(l.vnets[i][:]), iovec(l.frame[i][:])}
		l.msgs[i].point(l.iovs[i][:])
	}
	l.tx.write = l.tx.attempt
	s.syns = l
	s.in.filters = append(s.in.filters, s.keeper)
	s.out.filters = append(s.out.filters, s.keeper)
	// The guard has bounds of its own; only strict mode's clients can make the
	// stack wait for a handshake.
	s.door.limit = max(s.door.limit, o.Gate.limits().Pending)
	return nil
}

// answer runs the loop and tells Run how it ended.
func (s *Stack) answer(failed chan<- error) { failed <- s.syns.loop() }

// loop answers until the read deadline has passed (nil), or the socket fails.
func (l *synLoop) loop() error {
	for {
		l.again(time.Now())
		if l.stopped.Load() { // after again, which sets a deadline
			return nil
		}
		if err := l.raw.Read(l.poll); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !l.stopped.Load() {
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("wait for SYNs on the hub: %w", err)
		}
		if l.errno != 0 {
			return fmt.Errorf("receive SYNs from the hub (is its interface up?): %w", l.errno)
		}
		l.batch(time.Now())
	}
}

// stop makes loop return.
func (l *synLoop) stop() {
	l.stopped.Store(true)
	_ = l.file.SetReadDeadline(time.Unix(1, 0))
}

// again sends answers once more that no ACK has come to, and has loop wake up
// for the next.
func (l *synLoop) again(now time.Time) {
	l.mu.Lock()
	next, ok := l.recent.Each(now, func(e *guard.Ends, v6 bool, s *guard.Segment) {
		l.k.count.again.Add(1)
		l.k.emit(s, e, v6)
	})
	l.mu.Unlock()
	if !ok {
		next = time.Time{}
	}
	if next != l.wake {
		l.wake = next
		_ = l.file.SetReadDeadline(next)
	}
}

// settle notes that a client has sent a valid ACK.
func (l *synLoop) settle(e *guard.Ends) {
	l.mu.Lock()
	l.recent.Settle(e)
	l.mu.Unlock()
}

// awaits is Recent.Awaits.
func (l *synLoop) awaits(e *guard.Ends, ack uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recent.Awaits(e, ack)
}

// remember keeps an answer for again, but not in a flood.
func (l *synLoop) remember(e *guard.Ends, v6 bool, s *guard.Segment, now time.Time) {
	if l.got == synBatch { // a full batch
		return
	}
	l.mu.Lock()
	l.recent.Add(e, v6, s, now)
	l.mu.Unlock()
}

// poll receives one batch; false makes the caller park until there is one.
func (l *synLoop) poll(fd uintptr) bool {
	l.got, l.errno = recvmmsg(fd, l.msgs[:])
	return l.errno != unix.EAGAIN
}

// batch answers what was received.
func (l *synLoop) batch(now time.Time) {
	b := synTurn{
		now: now, jar: l.k.turn(now), clock: l.k.clock(),
		auto: l.k.opts.Gate.resolve(guard.Auto, false, now), auto6: l.k.opts.Gate.resolve(guard.Auto, true, now), first: uint16(l.k.opts.Gate.limits().FirstFlight),
	}
	l.k.count.syns.Add(uint64(l.got))
	l.k.opts.Gate.floods.count(l.got, 0, now)
	l.tx.count = 0
	for i := range l.got {
		l.one(&b, i)
	}
	l.send()
}

// synTurn is what the answers of one batch have in common.
type synTurn struct {
	now   time.Time
	jar   *guard.Jar
	clock uint32
	auto  guard.Mode
	auto6 guard.Mode // by IPv6
	first uint16
}

// one judges a SYN and answers it.
func (l *synLoop) one(b *synTurn, i int) {
	m := &l.msgs[i]
	size := int(m.len) - vnetLen
	v, err := parseVnet(l.vnets[i][:min(int(m.len), vnetLen)])
	if err != nil || m.msg.Flags&unix.MSG_TRUNC != 0 {
		l.k.count.badSYNs.Add(1)
		return
	}
	frame := l.frame[i][:max(size, 0)]
	p, verdict := parseFrame(frame, size, l.k.stack.link.hub)
	if verdict == verdictPass && !v.trusted() && !p.verify(frame[etherLen:], nil) {
		verdict = verdictChecksum
	}
	if verdict != verdictPass {
		l.k.stack.count.dropped[verdict].Add(1)
		return
	}
	s, ok := segmentOf(p, frame[etherLen:], nil, v)
	if !ok || byte(s.tcp().Flags())&(guard.FlagSYN|guard.FlagACK|guard.FlagRST|guard.FlagFIN) != guard.FlagSYN {
		l.k.count.badSYNs.Add(1)
		return
	}
	hello, err := guard.ParseSYN(s.ip[s.start:s.data], s.v6)
	if err != nil {
		l.k.count.badSYNs.Add(1)
		return
	}
	l.reply(b, &s, hello)
}

// reply answers a SYN by the mode that its policy asks for.
func (l *synLoop) reply(b *synTurn, s *segment, hello guard.Hello) {
	if l.k.stack.splice.knows(s) {
		return
	}
	ends := endsOf(s)
	mode := l.k.mode(&ends)
	switch {
	case mode != guard.Auto:
	case s.v6:
		mode = b.auto6
	default:
		mode = b.auto
	}
	known := l.k.knock(&ends, hello.ISN)
	switch {
	case known == asked:
		return // it came again; the answer will, too
	case known == unknown && l.k.stack.splice.ask(s, b.now):
		return
	case known == unknown && mode == guard.Strict:
		l.k.ask(&ends, hello, s.v6)
		return
	}
	offer := guard.Offer{MSS: uint16(l.k.stack.opts.MTU - 40), Scale: l.k.scale}
	if s.v6 {
		offer.MSS -= 20
	}
	if mode == guard.Fast && l.k.opts.Gate.room(serverIn(&ends), b.now) {
		offer.Window = b.first
	}
	answer := b.jar.Answer(&ends, hello, offer, b.clock)
	l.tx.add(&answer, &ends, s.v6, l.k.stack.link)
	l.remember(&ends, s.v6, &answer, b.now)
}

// Answers of keeper.knock.
type acquaintance uint8

const (
	unknown acquaintance = iota
	asked                // this SYN's flow waits for the server
	known                // there is a flow between these ends
)

// knock says whether the guard has a flow between a SYN's ends, and notes that
// its client may have begun anew. A SYN that is late, or comes twice, begins nothing.
func (k *keeper) knock(ends *guard.Ends, isn uint32) acquaintance {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.flows[*ends]
	switch {
	case w == nil:
		return unknown
	case w.flow.Hello.ISN != isn:
		w.again, w.isn = true, isn
	case w.strict:
		return asked
	}
	return known
}

// add makes an answer wait for send.
func (t *synSender) add(s *guard.Segment, ends *guard.Ends, v6 bool, l *link) {
	i := t.count
	b := append(t.frames[i][:0], make([]byte, vnetLen)...)
	b = s.Append(appendEther(b, l, v6), ends, v6, guard.ToClient)
	t.iovs[i][0] = iovec(b)
	t.msgs[i].point(t.iovs[i][:])
	t.count++
}

// send sends the batch's answers. What cannot be sent is lost, as on the way.
func (l *synLoop) send() {
	l.tx.next = 0
	for l.tx.next < l.tx.count {
		if err := l.raw.Write(l.tx.write); err != nil {
			return
		}
		if l.tx.errno != 0 {
			l.k.stack.count.sendErrors.Add(1)
			l.tx.next++
		}
	}
	l.k.count.answers.Add(uint64(l.tx.count))
}

// attempt sends from next on; false makes the caller park until there is room.
func (t *synSender) attempt(fd uintptr) bool {
	for t.next < t.count {
		n, errno := sendmmsg(fd, t.msgs[t.next:t.count])
		t.errno = errno
		if errno != 0 {
			return errno != unix.EAGAIN
		}
		t.next += n
	}
	return true
}
