package splice

import (
	"math"
	"net/netip"
	"time"
)

// state is where a flow is in its life; see the package comment.
type state uint8

const (
	free state = iota // the slot holds no flow
	greeting
	calling
	asking
	offered
	open
	ended
)

// side is an end of a flow.
type side uint8

const (
	client side = iota
	server
)

func (s side) other() side { return s ^ 1 }

// Time-outs. A flow that is idle for that long is forgotten; what its ends send
// later is then answered with a reset by whoever gets it.
const (
	firstRetry = time.Second // of a SYN or SYN-ACK, doubled each time (RFC 6298 section 2)
	retries    = 3
	// openIdle and halfIdle are what a NAT must grant (RFC 5382 REQ-5).
	openIdle = 2*time.Hour + 4*time.Minute
	halfIdle = 4 * time.Minute // one end has sent its FIN
	// halfProbe is after how long then the other one is probed: the host's connection
	// tracking, and with it the steering and the uplink's masquerading, forgets either leg
	// after 60 s. The answer passes, so that one probe is enough for both.
	halfProbe = 25 * time.Second
	// endedIdle is Linux's TIME_WAIT: a FIN sent again must still get through.
	endedIdle = time.Minute
	resetIdle = 10 * time.Second
)

// Flow bits.
const (
	isIPv6       = 1 << iota
	clientSACK   // agreed with the client
	clientStamps // agreed with the client
	serverSACK   // agreed with the server
	serverStamps // agreed with the server
	resetSeen
	pendingBit // the door counts it as pending
	openBit    // the door counts it as open
)

// flow is one spliced connection. Numbers of an end are as that end sees them.
type flow struct {
	clientAddr, serverAddr [16]byte // IPv4 as IPv4-mapped
	clientPort, serverPort uint16
	hubPort                uint16
	bits                   uint8
	state                  state

	up    uint32 // client's sequence number + up = what the server sees
	down  uint32 // server's sequence number + down = what the client sees
	clock uint32 // server's timestamp + clock = what the client sees; without the server's, our clock's offset

	next   [2]uint32 // the end's first number that it has not used yet
	acked  [2]uint32 // the other end's number that the end waits for, as the end sees it
	fin    [2]uint32 // the number after the end's FIN
	window [2]uint16 // as the end sent it last
	scale  [2]int8   // the end's shift of its windows
	ours   int8      // the shift that the client was told
	tries  uint8     // SYNs sent to the server, or SYN-ACKs sent to the client again; of an open flow probes without an answer
	ends   uint8     // bits by side: FIN seen (1, 2), and acknowledged (4, 8)
	mss    [2]uint16 // the most that the end takes per segment, as announced; less where its way takes less (shrink)
	stamp  [2]uint32 // the end's last timestamp, as it sent it
	told   uint32    // the last timestamp that the client was sent

	deadline time.Duration
	nextHere int32 // next flow in the chain of the client's index
	nextHub  int32 // next flow in the chain of the hub's index
	place    int32 // in the shunt, or none
}

func (f *flow) has(bits uint8) bool { return f.bits&bits == bits }

func (f *flow) client() netip.AddrPort { return f.addr(f.clientAddr, f.clientPort) }
func (f *flow) server() netip.AddrPort { return f.addr(f.serverAddr, f.serverPort) }

func (f *flow) addr(a [16]byte, port uint16) netip.AddrPort {
	addr := netip.AddrFrom16(a)
	if !f.has(isIPv6) {
		addr = addr.Unmap()
	}
	return netip.AddrPortFrom(addr, port)
}

// stamped says that timestamps of ours are put into what the server sends.
func (f *flow) stamped() bool { return f.has(clientStamps) && !f.has(serverStamps) }

// finSeen and finAcked are bits of ends.
func finSeen(s side) uint8  { return 1 << s }
func finAcked(s side) uint8 { return 4 << s }

const bothAcked = 4 | 8

// idle is how long an open or ended flow may be silent before it is probed or forgotten.
func (f *flow) idle() time.Duration {
	switch {
	case f.has(resetSeen):
		return resetIdle
	case f.state == ended:
		return endedIdle
	case f.probed():
		return halfProbe
	case f.ends != 0:
		return halfIdle
	}
	return openIdle
}

// probed says that the flow's ends are probed: one has sent its FIN, and the other may have
// something to say for much longer.
func (f *flow) probed() bool {
	return f.state == open && (f.ends&3 == finSeen(client) || f.ends&3 == finSeen(server))
}

// toServer and toClient convert a number of the other end's sequence space.
func (f *flow) toServer(n uint32) uint32 { return n + f.up }
func (f *flow) toClient(n uint32) uint32 { return n + f.down }

// windowFor converts a window of one end to what the other end is told. A
// window that a scale cannot express becomes the next smaller one, so that an
// end is never let beyond what the other can take.
func (f *flow) windowFor(to side, raw uint16) uint16 {
	left, right := f.shifts(to)
	return uint16(min(uint32(raw)<<left>>right, 0xffff))
}

// shifts are those of windowFor. A window that is not converted has none.
func (f *flow) shifts(to side) (left, right uint8) {
	shift, told := max(f.scale[to.other()], 0), max(f.ours, 0)
	if to == server {
		// The server was told the client's own shift, unless it scales nothing.
		told = shift
		if f.scale[server] == NoScale {
			told = 0
		}
	}
	if shift == told {
		return 0, 0
	}
	return uint8(shift), uint8(told)
}

// note keeps what a segment of one end says. ack is the acknowledgement as the
// other end sees it. What is beyond all windows, or acknowledges what was not sent,
// is forged or very late and moves nothing (RFC 5961 section 5).
func (f *flow) note(from side, s *segment, ack uint32) {
	to := from.other()
	if end := s.seq + s.length(); before(f.next[from], end) && end-f.acknowledged(to) <= f.reach(to) {
		f.next[from] = end
	}
	if s.flags&flagFIN != 0 && f.fits(from, s) {
		f.ends |= finSeen(from)
		f.fin[from] = s.seq + s.length()
	}
	if s.flags&flagACK == 0 || before(f.next[to], ack) {
		return
	}
	f.window[from] = s.window
	if before(f.acked[from], s.ack) {
		f.acked[from] = s.ack
	}
	if f.ends&finSeen(to) != 0 && !before(ack, f.fin[to]) {
		f.ends |= finAcked(to)
	}
}

// reach is how far beyond what an end has acknowledged what it is sent may be: twice
// its greatest window. Once would do, but of two segments that the shunt notes at one
// moment, on two processors, one may be lost, and the flow must find its place again.
func (f *flow) reach(of side) uint32 { return 2 * math.MaxUint16 << max(f.scale[of], 0) }

// fits says that the other end may well take the number at a segment's end: it
// has not acknowledged more, and has room for it, or the flow has come as far.
// What does not fit is forged, or late, and ends nothing.
func (f *flow) fits(from side, s *segment) bool {
	to := from.other()
	due, scale := f.acknowledged(to), max(f.scale[to], 0)
	room := uint32(f.window[to]) << scale
	if used := f.next[from] - due; used <= math.MaxUint16<<scale { // else a forged segment has moved it
		room = max(room, used) // the window may have been greater before
	}
	room++ // for a FIN, which needs none (RFC 9293 section 3.8.6.1)
	if s.flags&flagRST != 0 {
		due, room = due-1, room+1 // after a FIN that was acknowledged some reset with its number
	}
	return s.seq+s.length()-due <= room
}
