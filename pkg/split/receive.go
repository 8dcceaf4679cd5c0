package split

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/park"
)

const (
	// headRoom is how much of a frame goes to the slot's own memory, in bytes.
	// It holds the headers of all but the strangest frames, so that what
	// follows is pure payload and can go to netstack without a copy. It is a
	// multiple of two: checksums are summed in two parts.
	headRoom = 128
	// frontRoom is how much longer a filter may make the headers of a frame: by a
	// timestamps option with its padding.
	frontRoom = 12
	// tailRoom is the length of a slot's payload view in bytes: with headRoom
	// it holds the longest frame (64 KB of IP and the Ethernet header).
	tailRoom = 64 << 10
	// copyMax is the longest payload, in bytes, that is copied to a view of
	// its own size. Above it the slot's view goes to netstack as it is. Small
	// payloads must not pin 64 KB, and a fresh view costs zeroing 64 KB.
	copyMax = 24 << 10
	// slots is how many frames one system call can receive.
	slots = 16
)

// slot is room for one received frame.
type slot struct {
	vnet [vnetLen]byte
	room [frontRoom + headRoom]byte
	head []byte       // room from frontRoom on
	tail *buffer.View // nil after its bytes went to netstack
	iovs [3]unix.Iovec
	// grown is how many bytes of the front room belong to a frame whose headers
	// a filter has replaced by longer ones.
	grown int
}

// receiver reads frames from the packet socket and hands them to netstack.
type receiver struct {
	raw     syscall.RawConn
	link    *link
	filters []filter // set before loop runs
	onward  forwarder
	shut    *shutWindows
	offers  offers
	trains  trains
	bulk    bool // a sender of the batch has more than it may send
	count   *counters
	opts    *Options
	slots   [slots]slot
	seg     segment // that the filters are asked about
	msgs    [slots]mmsghdr
	got     int
	errno   unix.Errno

	stopped atomic.Bool // set by stop
}

// newReceiver returns a receiver whose slots are empty.
func newReceiver(raw syscall.RawConn, l *link, o *Options, count *counters) *receiver {
	r := &receiver{raw: raw, link: l, shut: &l.out.shut, opts: o, count: count}
	for i := range r.slots {
		s := &r.slots[i]
		s.iovs[0] = iovec(s.vnet[:])
		s.head = s.room[frontRoom:]
		s.iovs[1] = iovec(s.head)
		r.msgs[i].point(s.iovs[:])
	}
	copy(r.onward.macs[:6], l.host)
	copy(r.onward.macs[6:], l.hub)
	r.onward.write = r.onward.attempt
	return r
}

// loop receives until stop was called and the socket's read deadline has passed
// (nil), or the socket fails.
func (r *receiver) loop() error {
	defer r.release()
	for {
		r.refill()
		if err := r.raw.Read(r.poll); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("wait for frames on the hub: %w", err)
		}
		if r.errno != 0 {
			return fmt.Errorf("receive frames from the hub (is its interface up?): %w", r.errno)
		}
		r.work()
	}
}

// few is how many frames at once somebody is likely to wait for.
const few = 2

// work hands a batch over. Of a small one the receiver sees to what comes of it
// in the owner of the connections, too, once netstack's processor has had its
// turn. What netstack answers by itself, acknowledgements, leaves after that: to
// send it takes as long as all the rest, and wakes another goroutine otherwise. But
// a sender that has more is slowed down by each microsecond that it waits for them.
func (r *receiver) work() {
	r.bulk = false
	small := r.got <= few && r.opts.Attend != nil
	if small {
		r.opts.Attend()
		r.link.out.await()
	}
	for i := range r.got {
		r.deliver(&r.slots[i], &r.msgs[i])
	}
	r.depart()
	r.flush()
	for _, f := range r.filters {
		f.idle()
	}
	if small {
		runtime.Gosched()
		if r.bulk {
			r.link.out.answer()
		}
		r.opts.Settle()
		r.link.out.answer()
	}
}

// stop makes loop return: the socket's read deadline must have passed, too.
func (r *receiver) stop() { r.stopped.Store(true) }

// poll receives one batch; false makes the caller park until there is one.
//
// It does not park while the processors are busy, see package park.
func (r *receiver) poll(fd uintptr) bool {
	for look := (park.Look{}); ; {
		r.got, r.errno = recvmmsg(fd, r.msgs[:])
		if r.errno != unix.EAGAIN {
			return true
		}
		if r.stopped.Load() || !look.Again() {
			return false
		}
	}
}

// refill gives slots whose view went to netstack a fresh one.
func (r *receiver) refill() {
	for i := range r.slots {
		s := &r.slots[i]
		if s.tail == nil {
			s.tail = buffer.NewViewSize(tailRoom)
			s.iovs[2] = iovec(s.tail.AsSlice())
		}
	}
}

// release gives the views back.
func (r *receiver) release() {
	for i := range r.slots {
		if v := r.slots[i].tail; v != nil {
			v.Release()
			r.slots[i].tail = nil
		}
	}
}

// deliver judges one received frame and hands it to netstack.
func (r *receiver) deliver(s *slot, m *mmsghdr) {
	size := int(m.len) - vnetLen
	r.count.framesIn.Add(1)
	r.count.bytesIn.Add(uint64(max(size, 0)))
	v, err := parseVnet(s.vnet[:min(int(m.len), vnetLen)])
	if err != nil {
		r.count.dropped[verdictMalformed].Add(1)
		return
	}
	if m.msg.Flags&unix.MSG_TRUNC != 0 {
		r.count.dropped[verdictTruncated].Add(1)
		return
	}
	frame := s.head[:min(size, headRoom)]
	p, verdict := parseFrame(frame, size, r.link.hub)
	if verdict == verdictPass && !v.trusted() && !p.verify(frame[etherLen:], s.tail.AsSlice()[:size-len(frame)]) {
		verdict = verdictChecksum
	}
	isSegment := false // r.seg is the packet
	if verdict == verdictPass {
		isSegment = r.parse(s, p, frame, size, v)
		switch r.filterIn(p, frame[etherLen:], isSegment) {
		case swallow:
			verdict = verdictFilter
		case forward:
			r.onward.add(s, size)
			return
		}
	}
	if verdict != verdictPass {
		r.count.dropped[verdict].Add(1)
		return
	}
	if v.gso() {
		r.count.gsoIn.Add(1)
	}
	p.temper(frame[etherLen:])
	r.offers.inbound(p, frame[etherLen:])
	extra, idle := r.shut.inbound(p, frame[etherLen:])
	if idle {
		r.count.unanswered.Add(1)
		return
	}
	if extra != nil {
		r.depart()
		r.count.shutAcks.Add(1)
		r.hand(p, stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(extra)}))
	}
	r.board(s, p, frame[etherLen:], isSegment)
}

// hand gives a packet to netstack.
func (r *receiver) hand(p packet, pkt *stack.PacketBuffer) {
	r.link.dispatcher.DeliverNetworkPacket(p.network, pkt)
	pkt.DecRef()
}

// build makes netstack's packet: the headers are copied, long payload changes
// hands.
func (r *receiver) build(s *slot, p packet, ip []byte) *stack.PacketBuffer {
	var buf buffer.Buffer
	first := ip[:min(len(ip), p.end)]
	head := buffer.NewView(len(first))
	_, _ = head.Write(first) // cannot fail: the view has room
	_ = buf.Append(head)
	switch rest := p.end - len(first); {
	case rest == 0:
	case rest <= copyMax:
		tail := buffer.NewView(rest)
		_, _ = tail.Write(s.tail.AsSlice()[:rest])
		_ = buf.Append(tail)
	default:
		s.tail.CapLength(rest)
		_ = buf.Append(s.tail)
		s.tail = nil
	}
	return stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buf})
}
