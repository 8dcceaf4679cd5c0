package split

import (
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// sendBatch is the most frames that one system call sends.
	sendBatch = 64
	// outboxMax bounds the frames that wait to be sent. Beyond it frames are
	// dropped, as a full device queue does, and TCP sends them again.
	outboxMax = 4096
	// quickFrames and quickBytes bound what a worker sends itself: with more its
	// time is better spent on what comes next.
	quickFrames = 4
	quickBytes  = 4 << 10
)

// outbox queues netstack's packets and sends them from a goroutine of its own.
// Sending inline would hold the endpoint's lock in the system call, which on a
// veth includes the receiver's work, while netstack's processor spins on it.
// What little a worker's own call makes netstack send, the worker sends after
// it, when no lock is held (hold, flush): waking another goroutine costs more. So
// does the receive loop with what little netstack answers to a message (await,
// answer), once the message has gone on.
// It is netstack's queueing discipline: first in, first out.
type outbox struct {
	raw     syscall.RawConn
	filters []filter // set before the first packet
	beyond  int      // filters between the mender and the hub
	shut    shutWindows
	count   *counters
	inside  atomic.Int64 // packets that have not been sent yet, those of a batch on its way too

	mu     sync.Mutex // guards the next ones
	ready  sync.Cond
	queue  []*stack.PacketBuffer
	spare  []*stack.PacketBuffer // emptied, for queue
	held   int                   // callers of hold
	awaits bool                  // the receive loop is between await and answer
	busy   bool                  // somebody sends: nobody else may
	closed bool

	done chan struct{} // closed when loop has ended
	tx   sender        // owned by whoever has set busy
}

// newOutbox returns an empty outbox that sends to raw.
func newOutbox(raw syscall.RawConn, count *counters) *outbox {
	o := &outbox{raw: raw, count: count, done: make(chan struct{})}
	o.ready.L = &o.mu
	o.tx.write = o.tx.attempt
	o.tx.once = func(fd uintptr) bool { o.tx.attempt(fd); return true }
	return o
}

// WritePacket implements stack.QueueingDiscipline.
func (o *outbox) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	o.shut.outbound(pkt)
	if !o.filterOut(pkt, len(o.filters)) {
		return nil
	}
	return o.enqueue(pkt)
}

// again sends a packet of the mender's, which must not take it for netstack's, and
// takes over its reference.
func (o *outbox) again(pkt *stack.PacketBuffer) {
	if o.filterOut(pkt, o.beyond) {
		_ = o.enqueue(pkt) // dropped, it is mended once more
	}
	pkt.DecRef()
}

// enqueue makes a packet wait to be sent. It takes a reference.
func (o *outbox) enqueue(pkt *stack.PacketBuffer) tcpip.Error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return &tcpip.ErrClosedForSend{}
	}
	if len(o.queue) >= outboxMax {
		o.count.sendDrops.Add(1)
		return &tcpip.ErrNoBufferSpace{}
	}
	o.queue = append(o.queue, pkt.IncRef())
	o.inside.Add(1)
	if o.due(pkt) {
		o.ready.Signal()
	}
	return nil
}

// waiting is how many packets have not been sent yet.
func (o *outbox) waiting() int { return int(o.inside.Load()) }

// due reports whether the loop is to send now that pkt is in the queue. The caller
// holds mu.
func (o *outbox) due(pkt *stack.PacketBuffer) bool {
	switch {
	case o.held > 0:
		return false
	case o.awaits: // what is much had better leave while the receive loop is busy
		return len(o.queue) > quickFrames || pkt.Size() > quickBytes
	}
	return len(o.queue) == 1
}

// await announces that answer follows shortly.
func (o *outbox) await() {
	o.mu.Lock()
	o.awaits = true
	o.mu.Unlock()
}

// answer is flush after await.
func (o *outbox) answer() {
	o.mu.Lock()
	o.awaits = false
	o.unlockAndSend()
}

// hold announces that flush follows shortly.
func (o *outbox) hold() {
	o.mu.Lock()
	o.held++
	o.mu.Unlock()
}

// flush sends what waits if that is little, and leaves it to the loop otherwise.
func (o *outbox) flush() {
	o.mu.Lock()
	o.held--
	o.unlockAndSend()
}

// unlockAndSend does the work of flush and unlocks mu.
func (o *outbox) unlockAndSend() {
	if len(o.queue) == 0 || o.busy {
		o.mu.Unlock() // who is busy looks again
		return
	}
	if !o.little() {
		o.ready.Signal()
		o.mu.Unlock()
		return
	}
	batch := o.take()
	o.mu.Unlock()
	sent := o.try(batch)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.busy = false
	if sent < len(batch) { // the socket has no room: the loop waits for it
		o.queue, batch = append(batch[sent:len(batch):len(batch)], o.queue...), nil
	}
	o.spared(batch)
	if len(o.queue) > 0 || o.closed {
		o.ready.Signal()
	}
}

// little reports whether a worker may send what waits. The caller holds mu.
func (o *outbox) little() bool {
	if len(o.queue) > quickFrames {
		return false
	}
	bytes := 0
	for _, pkt := range o.queue {
		bytes += pkt.Size()
	}
	return bytes <= quickBytes
}

// take empties the queue and makes the caller the one who sends. The caller
// holds mu.
func (o *outbox) take() []*stack.PacketBuffer {
	batch := o.queue
	o.queue, o.spare = o.spare, nil
	o.busy = true
	return batch
}

// spared keeps a batch's memory. The caller holds mu.
func (o *outbox) spared(batch []*stack.PacketBuffer) {
	clear(batch)
	if cap(batch) > cap(o.spare) {
		o.spare = batch[:0]
	}
}

// Close implements stack.QueueingDiscipline: it takes no more packets and
// returns after those that wait have been sent and loop has ended.
func (o *outbox) Close() {
	o.mu.Lock()
	o.closed = true
	o.ready.Signal()
	o.mu.Unlock()
	<-o.done
}

// loop sends what is queued until Close.
func (o *outbox) loop() {
	defer close(o.done)
	for {
		batch := o.next()
		if batch == nil {
			return
		}
		for from := 0; from < len(batch); from += sendBatch {
			o.send(batch[from:min(from+sendBatch, len(batch))])
		}
		o.mu.Lock()
		o.busy = false
		o.spared(batch)
		o.mu.Unlock()
	}
}

// rest gives back the room for packets that a crowd has made necessary.
func (o *outbox) rest() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 && !o.busy {
		o.queue, o.spare, o.tx.iovs = nil, nil, nil
	}
}

// next waits for packets that nobody else is about to send and takes all there
// are; nil when the outbox is closed and empty.
func (o *outbox) next() []*stack.PacketBuffer {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 || o.busy {
		if o.closed && !o.busy {
			return nil
		}
		o.ready.Wait()
	}
	return o.take()
}

// try sends what the socket takes at once of a small batch, gives that back, and
// returns how many packets it was.
func (o *outbox) try(pkts []*stack.PacketBuffer) int {
	o.tx.prepare(pkts)
	if err := o.raw.Write(o.tx.once); err != nil {
		o.tx.next = len(pkts) // the socket is closing
	}
	o.sent(pkts[:o.tx.next])
	return o.tx.next
}

// sent counts packets and gives them back.
func (o *outbox) sent(pkts []*stack.PacketBuffer) {
	bytes, gso := 0, 0
	for _, pkt := range pkts {
		if outgoing(pkt).gso() {
			gso++
		}
		bytes += pkt.Size()
		pkt.DecRef()
	}
	o.inside.Add(-int64(len(pkts)))
	o.count.framesOut.Add(uint64(len(pkts)))
	o.count.bytesOut.Add(uint64(bytes))
	o.count.gsoOut.Add(uint64(gso))
}

// send sends at most sendBatch packets and gives them back.
func (o *outbox) send(pkts []*stack.PacketBuffer) {
	o.tx.prepare(pkts)
	for o.tx.next < len(pkts) {
		if err := o.raw.Write(o.tx.write); err != nil {
			break // the socket is closing, or the last deadline has passed
		}
		if o.tx.errno != 0 { // this frame cannot be sent; the next may
			o.count.sendErrors.Add(1)
			o.tx.next++
		}
	}
	o.sent(pkts)
}

// sender holds the system call's arrays of one batch.
type sender struct {
	vnets [sendBatch][vnetLen]byte
	iovs  []unix.Iovec
	first [sendBatch + 1]int // where each frame's iovecs begin
	msgs  [sendBatch]mmsghdr
	count int
	next  int // frame to be sent next
	errno unix.Errno
	write func(fd uintptr) bool // attempt
	once  func(fd uintptr) bool // attempt, which does not wait
}

// prepare describes pkts to the kernel.
func (t *sender) prepare(pkts []*stack.PacketBuffer) {
	t.iovs = t.iovs[:0]
	t.next, t.count, t.errno = 0, len(pkts), 0
	for i, pkt := range pkts {
		h := outgoing(pkt)
		h.put(t.vnets[i][:])
		t.first[i] = len(t.iovs)
		t.iovs = append(t.iovs, iovec(t.vnets[i][:]))
		t.iovs = appendViews(t.iovs, pkt)
	}
	t.first[len(pkts)] = len(t.iovs)
	for i := range pkts { // after the last append: iovs does not move any more
		t.msgs[i].point(t.iovs[t.first[i]:t.first[i+1]])
	}
}

// attempt sends from t.next on; false makes the caller park until the socket
// has room.
func (t *sender) attempt(fd uintptr) bool {
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

// outgoing returns the virtio header of a packet of netstack's.
func outgoing(pkt *stack.PacketBuffer) vnetHeader {
	g := pkt.GSOOptions
	if g.Type == stack.GSONone {
		return vnetHeader{}
	}
	h := vnetHeader{headerLen: uint16(pkt.HeaderSize())}
	if g.NeedsCsum {
		h.flags = vnetNeedsCsum
		h.csumStart = etherLen + g.L3HdrLen
		h.csumOffset = g.CsumOffset
	}
	if pkt.Data().Size() > int(g.MSS) {
		h.gsoSize = g.MSS
		h.gsoType = vnetGSOTCPv4
		if g.Type == stack.GSOTCPv6 {
			h.gsoType = vnetGSOTCPv6
		}
	}
	return h
}

// appendViews appends the bytes of pkt from its Ethernet header on.
func appendViews(iovs []unix.Iovec, pkt *stack.PacketBuffer) []unix.Iovec {
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		p := v.AsSlice()
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		iovs = append(iovs, iovec(p[skip:]))
		skip = 0
	}
	return iovs
}
