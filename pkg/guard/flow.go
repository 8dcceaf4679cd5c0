package guard

import (
	"encoding/binary"
	"math"
)

// State is where a flow stands. Only Flow.enter changes it.
type State uint8

// States.
const (
	// Waiting: the client's ACK was valid, the server is being asked, and the
	// stack knows nothing. The client's window is 0; its probes are answered.
	Waiting State = iota
	// Asked is Waiting in strict mode: the client's SYN is not answered yet.
	Asked
	// Joining: the stack was given a SYN, and its SYN-ACK is awaited.
	Joining
	// Bounded: the stack has the connection, and the client may send its
	// first flight but no more: the server is not there yet.
	Bounded
	// Open: the stack has the connection and only numbers are translated.
	Open
	// Over: the flow is forgotten.
	Over
)

// String names the state.
func (s State) String() string {
	return [...]string{"waiting", "asked", "joining", "bounded", "open", "over"}[s]
}

// Flow is one client's connection as the guard sees it.
type Flow struct {
	Hello   Hello
	state   State
	server  bool   // the server is there
	offered bool   // the client was offered a window before
	scale   int8   // shift of our windows towards the client
	window  uint16 // of the client's last segment, as it stands there
	cookie  uint32 // our initial sequence number as the client knows it
	delta   uint32 // cookie minus the stack's
	drift   uint32 // our timestamps as the client knows them minus the stack's
	echo    uint32 // the client's last timestamp
	limit   uint32 // the first flight's right edge
	high    uint32 // end of what the client has sent of it
	flight  uint32 // bytes of it that count as pending
	seq     uint32 // what the stack sends next, in the client's numbers
	ack     uint32 // what the stack has last acknowledged
	opens   uint16 // window that the stack has last announced
	first   int32  // with server: what that takes at first, in bytes; negative: it does not say
}

// NewFlow returns the flow of a valid ACK, whose header is tcp.
func NewFlow(h Hello, cookie uint32, offered bool, tcp []byte) Flow {
	f := Flow{Hello: h, state: Waiting, cookie: cookie, offered: offered, high: h.ISN + 1}
	f.listen(tcp)
	return f
}

// NewAsked returns the flow of a SYN in strict mode.
func NewAsked(h Hello) Flow { return Flow{Hello: h, state: Asked} }

// State returns where the flow stands.
func (f *Flow) State() State { return f.state }

// End notes that the flow is forgotten.
func (f *Flow) End() { f.enter(Over) }

func (f *Flow) enter(s State) { f.state = s }

// listen notes the window and the timestamp of a client's segment.
func (f *Flow) listen(tcp []byte) {
	f.window = binary.BigEndian.Uint16(tcp[14:])
	if v, _, ok := Stamps(tcp); ok && (f.echo == 0 || int32(v-f.echo) > 0) {
		f.echo = v
	}
}

// Reaction is what a client's segment calls for while the server is asked.
type Reaction uint8

// Reactions.
const (
	Ignore Reaction = iota // nothing
	Reply                  // send Flow.Shut
	Gone                   // the client has reset its connection
	Forged                 // the segment is not of this connection: nothing
	Hold                   // keep the segment for the stack
	Doubt                  // a reset that may be forged: send Flow.Shut
)

// Hear judges a client's segment in the states Waiting, Asked and Joining;
// payload is the length of what it carries, in bytes.
func (f *Flow) Hear(tcp []byte, payload int) Reaction {
	seq, ack, flags := binary.BigEndian.Uint32(tcp[4:]), binary.BigEndian.Uint32(tcp[8:]), tcp[13]
	next := f.Hello.ISN + 1
	if flags&FlagRST != 0 {
		return f.reset(int32(seq - next))
	}
	if f.state == Asked || flags&FlagACK == 0 || ack != f.cookie+1 {
		return Forged
	}
	if int32(seq-next) < -1 || int32(seq-next) > math.MaxUint16 {
		return Forged
	}
	f.listen(tcp)
	switch {
	case f.state == Joining && (payload > 0 || flags&FlagFIN != 0):
		return Hold
	case payload > 0 || seq != next || flags&FlagFIN != 0:
		return Reply
	}
	return Ignore
}

// reset judges a client's reset that is so many bytes ahead of what was
// acknowledged. Only the exact number resets (RFC 5961 section 3.2). One further
// on may be that of a client which has sent what was not taken: asked back, it
// resets again, with the number that it was told. What the stack is about to get
// it can judge itself, after what came before.
func (f *Flow) reset(ahead int32) Reaction {
	switch {
	case ahead == 0 || f.state == Asked:
		return Gone
	case ahead < 0 || ahead > math.MaxUint16:
		return Forged
	case f.state == Joining:
		return Hold
	}
	return Doubt
}

// Shut returns the ACK with window 0 that answers a probe, data that is not
// taken, or a reset in doubt.
func (f *Flow) Shut(clock uint32) Segment {
	s := f.segment(clock)
	s.Window = 0
	return s
}

// segment is an empty ACK to the client before the stack has sent anything.
func (f *Flow) segment(clock uint32) Segment {
	return Segment{
		Flags: FlagACK, Seq: f.cookie + 1, Ack: f.Hello.ISN + 1, Scale: NoScale,
		Stamps: f.Hello.Stamps, TSVal: clock, TSEcr: f.echo,
	}
}

// Reset returns the segment that ends the client's connection while the stack
// does not have it: to a SYN as to a port where nobody listens.
func (f *Flow) Reset() Segment {
	s := Segment{Flags: FlagRST | FlagACK, Seq: f.cookie + 1, Ack: f.Hello.ISN + 1, Scale: NoScale}
	if f.state == Asked {
		s.Seq = 0
	}
	return s
}

// Join returns the SYN that gives the connection to the stack. first bounds
// the first flight in bytes when the server is not there yet.
func (f *Flow) Join(first int) Segment {
	h := &f.Hello
	s := Segment{Flags: FlagSYN, Seq: h.ISN, MSS: h.MSS, Scale: h.Scale, SACK: h.SACK, Stamps: h.Stamps, TSVal: f.echo}
	if f.state == Asked {
		s.TSVal, s.Window = h.TSVal, math.MaxUint16
		f.enter(Open) // the stack answers the client itself
		return s
	}
	// Windows of SYNs are not scaled.
	s.Window = uint16(min(uint64(f.window)<<max(h.Scale, 0), math.MaxUint16))
	f.limit = h.ISN + 1 + uint32(first)
	f.enter(Joining)
	return s
}

// Joined takes the stack's SYN-ACK. It returns the ACK for the stack and, if
// told, the update that opens the client's window. ours is our windows' scale.
// clock is the time in timestamp units, as the client knows it. False means
// that the SYN-ACK is not what was asked for.
func (f *Flow) Joined(tcp []byte, ours int8, clock uint32) (ack, update Segment, told, ok bool) {
	h, err := ParseSYN(tcp, false)
	if err != nil || f.state != Joining || binary.BigEndian.Uint32(tcp[8:]) != f.Hello.ISN+1 {
		return ack, update, false, false
	}
	if h.Stamps != f.Hello.Stamps || h.Scale >= 0 && h.Scale != ours || h.Scale < 0 && f.Hello.Scale >= 0 {
		return ack, update, false, false
	}
	f.delta, f.drift, f.scale = f.cookie-h.ISN, clock-h.TSVal, max(h.Scale, 0)
	if !h.Stamps {
		f.drift = 0
	}
	ack = Segment{Flags: FlagACK, Window: f.window, Seq: f.Hello.ISN + 1, Ack: h.ISN + 1, Scale: NoScale,
		Stamps: h.Stamps, TSVal: f.echo, TSEcr: h.TSVal}
	f.seq, f.ack = f.cookie+1, f.Hello.ISN+1
	f.opens = binary.BigEndian.Uint16(tcp[14:]) >> max(h.Scale, 0) // the SYN-ACK's is not scaled
	f.enter(Bounded)
	told = f.server || !f.offered
	if f.server {
		f.enter(Open)
	}
	update = f.segment(clock)
	update.Window = min(f.clamp(f.opens, f.ack), f.most())
	return ack, update, told, true
}

// most is the window that a client whose server has just been found is told at
// most: the server's, but room for one segment.
func (f *Flow) most() uint16 {
	if !f.server || f.first < 0 {
		return math.MaxUint16
	}
	segment := (int(f.Hello.MSS) + 1<<f.scale - 1) >> f.scale
	return uint16(min(max(int(f.first>>f.scale), segment), math.MaxUint16))
}

// Serve notes that the server is there, and takes window bytes at first;
// negative: it does not say. In the state Waiting or Asked, Join
// must follow; in Bounded the bound ends, and told says that the client waits
// for the update.
func (f *Flow) Serve(clock uint32, window int) (update Segment, told bool) {
	f.server, f.first = true, int32(min(window, math.MaxInt32))
	if f.state != Bounded {
		return update, false
	}
	// A client that has come near the edge waits for its window to grow; the
	// stack, which has announced its own window long ago, will say nothing.
	told = int32(f.limit-f.high) < int32(f.limit-f.Hello.ISN)/2
	f.enter(Open)
	update = Segment{
		Flags: FlagACK, Window: f.opens, Seq: f.seq, Ack: f.ack, Scale: NoScale,
		Stamps: f.Hello.Stamps, TSVal: clock, TSEcr: f.echo,
	}
	return update, told
}

// Offered says that the client was offered a window before its server was there. It
// never changes.
func (f *Flow) Offered() bool { return f.offered }

// Served says that the server is there.
func (f *Flow) Served() bool { return f.server }

// Fresh returns how many bytes of the first flight a client's segment adds in
// the state Bounded, and false if it goes beyond the bound. One without payload
// adds none, whatever its number: that of a reset counts what was not taken, too.
func (f *Flow) Fresh(tcp []byte, payload int) (n int, ok bool) {
	if payload == 0 {
		return 0, true
	}
	end := binary.BigEndian.Uint32(tcp[4:]) + uint32(payload)
	if int32(end-f.limit) > 0 {
		return 0, false
	}
	return max(int(int32(end-f.high)), 0), true
}

// Took notes that n fresh bytes were taken.
func (f *Flow) Took(n int) {
	f.high += uint32(n)
	f.flight += uint32(n)
}

// Settle returns how many bytes of the first flight were taken since the last
// call: they no longer count as pending.
func (f *Flow) Settle() int {
	n := int(f.flight)
	f.flight = 0
	return n
}

// clamp keeps a window that goes with an acknowledgement within the bound.
func (f *Flow) clamp(window uint16, ack uint32) uint16 {
	if f.state != Bounded {
		return window
	}
	left := int32(f.limit - ack)
	if left <= 0 {
		return 0
	}
	return uint16(min(int64(window), int64(left)>>f.scale))
}
