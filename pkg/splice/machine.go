package splice

import (
	"math"
	"net/netip"
	"time"
)

// Verdict says what becomes of a packet.
type Verdict uint8

// Verdicts.
const (
	Foreign Verdict = iota // belongs to no flow: somebody else's
	Took                   // done with: it was for the table, or is dropped
	Forward                // send Packet.Out and what follows Packet.Skip
)

// Client is a client whose handshake somebody has completed, with a window of
// zero.
type Client struct {
	Addr, Server netip.AddrPort
	ISS          uint32  // its first sequence number
	Ours         uint32  // the one that it was answered with
	Window       uint16  // of its ACK
	Offered      Options // in its SYN; Val is its last timestamp
	Told         Options // in the SYN-ACK; Val is the last timestamp it was sent
}

// Open takes over a client at the end of its handshake and calls the server.
// It returns false when there is no room, or the door does not let it in.
func (t *Table) Open(now time.Duration, c Client) bool {
	t.now = now
	f := t.begin(c.Addr, c.Server, c.ISS, c.Ours, c.Offered, c.Told)
	if f == nil {
		return false
	}
	f.window[client] = c.Window
	t.enter(f, calling)
	return true
}

// Greet answers the SYN of a new client. isn becomes the server's initial
// sequence number as the client sees it; it must not be guessable (RFC 6528).
// Other packets, and SYNs of flows that stand, are not for it: Handle comes
// first.
func (t *Table) Greet(now time.Duration, p *Packet, isn uint32) {
	t.now = now
	s, ok := parseSegment(p)
	if !ok || !p.whole() || !s.is(flagSYN, flagSYN|flagACK|flagRST|flagFIN) {
		t.count.Malformed++
		return
	}
	offered := parseOptions(s.tcp[tcpMin:])
	told := Options{Scale: t.cfg.Scale, SACK: offered.SACK, Stamps: offered.Stamps, Val: t.cfg.Random()}
	src, dst := p.ends()
	f := t.begin(src, dst, s.seq, isn, offered, told)
	if f == nil {
		return // the client will try again
	}
	f.window[client] = s.window
	t.enter(f, greeting)
}

// begin makes the flow of a client.
func (t *Table) begin(c, s netip.AddrPort, iss, isn uint32, offered, told Options) *flow {
	hub := t.cfg.Hub4
	if s.Addr().Is6() {
		hub = t.cfg.Hub6
	}
	// Who is connected to the hub from the hub is a client of another flow, and so on.
	if !hub.IsValid() || c.Addr().Is6() != s.Addr().Is6() || s.Addr() == hub {
		t.count.Full++
		return nil
	}
	if !t.knock(c.Addr().As16()) {
		t.count.Greedy++
		return nil
	}
	f := t.add(c, s)
	if f == nil {
		if t.cfg.Door != nil {
			t.cfg.Door.Refused(c.Addr().As16())
		}
		t.count.Full++
		return nil
	}
	f.bits |= pendingBit
	t.count.Begun++
	f.next[client], f.acked[client] = iss+1, isn+1
	f.acked[server] = f.toServer(iss + 1)
	f.scale, f.ours = [2]int8{NoScale, NoScale}, NoScale
	if offered.Scale != NoScale && told.Scale != NoScale {
		f.scale[client], f.ours = offered.Scale, told.Scale
	}
	if offered.SACK && told.SACK {
		f.bits |= clientSACK
	}
	if offered.Stamps && told.Stamps {
		f.bits |= clientStamps
		f.stamp[client], f.told = offered.Val, told.Val
	}
	f.mss[client] = f.announced(offered)
	return f
}

// announced is the MSS that stands in a SYN, or what stands for none.
func (f *flow) announced(o Options) uint16 {
	switch {
	case o.MSS != 0:
		return max(o.MSS, 88) // less would make every byte a packet
	case f.has(isIPv6):
		return defaultMSS6
	}
	return defaultMSS4
}

// enter is the only place where a flow's state changes.
func (t *Table) enter(f *flow, to state) {
	from := f.state
	f.state = to
	switch to {
	case greeting, offered:
		f.tries = 0
		t.greet(f)
		t.wake(f, firstRetry)
	case calling, asking:
		f.tries = 0
		t.sendSYN(f)
		t.wake(f, firstRetry)
	case open:
		t.count.Opened++
		f.tries = 0
		t.answerDoor(f)
		t.shunt(f)           // before the ends begin, so that their first segments go the same way
		if from != offered { // else the client's ACK goes on, and it knows the window
			t.tellServer(f)
			t.tellClient(f, f.acked[client], f.windowForSYN())
		}
		t.wake(f, f.idle())
	case ended:
		t.count.Closed++
		t.leaveDoor(f)
		t.wake(f, f.idle())
	}
}

// windowForSYN is the server's first window, which its SYN-ACK carries
// unscaled, as the client is told it.
func (f *flow) windowForSYN() uint16 { return f.window[server] >> max(f.ours, 0) }

// wake sets a flow's deadline.
func (t *Table) wake(f *flow, in time.Duration) {
	f.deadline = t.now + in
	t.next = min(t.next, f.deadline)
}

// Handle takes a packet with a TCP segment.
func (t *Table) Handle(now time.Duration, p *Packet) Verdict {
	t.now = now
	if !p.whole() {
		return Foreign
	}
	src, dst := p.ends()
	var from side
	var i int32
	if t.isHub(dst.Addr()) {
		from, i = server, t.byServer(keyOf(src, dst))
	} else {
		from, i = client, t.byClient(keyOf(src, dst))
	}
	if i == none {
		return stray(from, p)
	}
	s, ok := parseSegment(p)
	if !ok {
		t.count.Malformed++
		return Took
	}
	t.catchUp(t.at(i))
	if from == client {
		return t.fromClient(i, &s, p)
	}
	return t.fromServer(i, &s, p)
}

// stray judges a packet of no flow: nobody serves at the hub itself.
func stray(from side, p *Packet) Verdict {
	if from == server {
		if s, ok := parseSegment(p); ok && s.is(flagSYN, flagSYN|flagACK) {
			return Took
		}
	}
	return Foreign
}

// isHub says that an address is that which servers are connected from.
func (t *Table) isHub(a netip.Addr) bool { return a == t.cfg.Hub4 || a == t.cfg.Hub6 }

func (t *Table) fromClient(i int32, s *segment, p *Packet) Verdict {
	f := t.at(i)
	if s.is(flagSYN, flagSYN|flagACK) {
		return t.anotherSYN(i, s)
	}
	switch f.state {
	case greeting:
		return t.greeted(i, s)
	case calling:
		return t.waiting(i, s)
	case asking:
		return t.asked(i, s)
	case offered:
		return t.accepted(i, s, p)
	}
	return t.pass(f, client, s, p)
}

// anotherSYN is a SYN from the ends of a flow that stands.
func (t *Table) anotherSYN(i int32, s *segment) Verdict {
	f := t.at(i)
	switch again := s.seq+1 == f.next[client]; {
	case f.state == ended, f.has(resetSeen), f.state == greeting && !again:
		t.drop(i)
		return Foreign // a new connection on the same ports
	case f.state == asking && !again, f.state == offered && !again:
		t.abandon(i)
		return Foreign // the same
	case f.state == greeting, f.state == offered:
		t.greet(f) // the SYN-ACK was lost
	case f.state == open:
		// RFC 5961 section 4: one that really has forgotten answers with a reset.
		t.tellClient(f, f.toClient(f.next[server]), f.windowFor(client, f.window[server]))
	}
	return Took
}

// greeted takes what a client sends in answer to the SYN-ACK.
func (t *Table) greeted(i int32, s *segment) Verdict {
	f := t.at(i)
	switch {
	case s.flags&flagRST != 0:
		if s.seq == f.next[client] {
			t.count.Abandoned++
			t.drop(i)
		}
	case s.flags&flagACK == 0 || s.ack != f.acked[client] || before(s.seq+1, f.next[client]):
		// Not of this handshake.
	default:
		t.remember(f, s)
		t.enter(f, calling)
		if s.length() > 0 {
			t.count.Discarded++
		}
	}
	return Took
}

// waiting takes what a client sends before there is a server: nothing but a
// reset counts. Who probes or ignores the window is told it again.
func (t *Table) waiting(i int32, s *segment) Verdict {
	f := t.at(i)
	switch {
	case s.flags&flagRST != 0:
		switch ahead := s.seq - f.next[client]; {
		case ahead == 0:
			t.count.Abandoned++
			t.send(f, server, answer{flags: flagRST, seq: f.toServer(s.seq)})
			t.drop(i)
		case ahead <= math.MaxUint16:
			// Of a client that has sent what was dropped, or forged: the former
			// resets again, with the number that it is told (RFC 5961 section 3.2).
			t.tellClient(f, f.acked[client], 0)
		}
		return Took
	case s.flags&flagACK == 0 || s.ack != f.acked[client]:
		return Took
	case s.seq == f.next[client]:
		t.remember(f, s)
	}
	if s.payload > 0 {
		t.count.Discarded++
	}
	if s.length() > 0 || s.seq != f.next[client] {
		t.tellClient(f, f.acked[client], 0)
	}
	return Took
}

// remember keeps the window and the timestamp of a client that waits.
func (t *Table) remember(f *flow, s *segment) {
	f.window[client] = s.window
	if o := parseOptions(s.tcp[tcpMin:]); o.Stamps && f.has(clientStamps) {
		f.stamp[client] = o.Val
	}
}

func (t *Table) fromServer(i int32, s *segment, p *Packet) Verdict {
	f := t.at(i)
	switch f.state {
	case greeting: // we have not called
		return Took
	case calling, asking:
		t.answered(i, s)
		return Took
	case offered:
		return t.awaited(i, s)
	}
	if s.is(flagSYN|flagACK, flagSYN|flagACK) {
		t.tellServer(f) // our ACK was lost
		return Took
	}
	if s.flags&flagSYN != 0 {
		return Took
	}
	return t.pass(f, server, s, p)
}

// answered takes the server's answer to our SYN.
func (t *Table) answered(i int32, s *segment) {
	f := t.at(i)
	mine := s.flags&flagACK != 0 && s.ack == f.acked[server]
	switch {
	case s.flags&flagRST != 0:
		if mine {
			t.count.Refused++
			t.resetClient(f)
			t.drop(i)
		}
	case s.flags&flagACK != 0 && !mine: // of an earlier connection (RFC 9293 section 3.10.7.3)
		t.send(f, server, answer{flags: flagRST, seq: s.ack})
	case s.is(flagSYN|flagACK, flagSYN|flagACK):
		to := open
		if f.state == asking {
			f.take(s)
			to = offered
		}
		t.agree(f, s)
		t.enter(f, to)
	}
}

// agree notes what the server can do, and fixes the shifts.
func (t *Table) agree(f *flow, s *segment) {
	o := parseOptions(s.tcp[tcpMin:])
	f.mss[server] = f.announced(o)
	f.next[server] = s.seq + 1
	f.down = f.acked[client] - f.next[server]
	f.window[server] = s.window
	if f.scale[client] != NoScale {
		f.scale[server] = o.Scale
	}
	if o.SACK && f.has(clientSACK) {
		f.bits |= serverSACK
	}
	switch {
	case o.Stamps && f.has(clientStamps):
		f.bits |= serverStamps
		f.stamp[server] = o.Val
		f.clock = f.told - o.Val
	case f.has(clientStamps):
		f.clock = f.told - millis(t.now)
	}
}

// pass lets a segment of an open or ended flow through.
func (t *Table) pass(f *flow, from side, s *segment, p *Packet) Verdict {
	ack := s.ack - f.up
	if from == client {
		ack = s.ack - f.down
	}
	v := t.translate(f, from, s, p)
	if v != Forward {
		return v
	}
	if from == client {
		t.count.Up++
		t.count.BytesUp += uint64(s.payload)
	} else {
		t.count.Down++
		t.count.BytesDown += uint64(s.payload)
	}
	t.closing(f, from, s)
	switch {
	case s.flags&flagRST == 0:
		f.bits &^= resetSeen
		f.note(from, s, ack)
	case f.fits(from, s):
		f.bits |= resetSeen
	}
	f.tries = 0
	t.tell(f)
	t.wake(f, f.idle())
	if f.state == open && f.ends&bothAcked == bothAcked {
		t.enter(f, ended)
	}
	t.shunt(f)
	return Forward
}

// Sweep does what is due: calls servers again, probes ends, forgets flows. It is wanted at
// Deadline; earlier calls are harmless.
func (t *Table) Sweep(now time.Duration) {
	t.now = now
	if now < t.next {
		return
	}
	t.next = math.MaxInt64
	for i := range int32(len(t.flows) * chunk) {
		f := t.at(i)
		if f.state != free && f.deadline <= now {
			t.catchUp(f)
		}
		if f.state != free && f.deadline <= now {
			t.due(i)
		}
		if f := t.at(i); f.state != free {
			t.next = min(t.next, f.deadline)
		}
	}
}

// due ends or repeats what a flow has waited for.
func (t *Table) due(i int32) {
	f := t.at(i)
	switch {
	case (f.state == calling || f.state == asking) && f.tries <= retries:
		t.sendSYN(f)
		t.wake(f, firstRetry<<(f.tries-1))
		return
	case (f.state == greeting || f.state == offered) && f.tries < retries:
		// The client's ACK may have been lost, and it has nothing more to say.
		f.tries++
		t.greet(f)
		t.wake(f, firstRetry<<f.tries)
		return
	case f.probed() && !f.has(resetSeen) && time.Duration(f.tries+1)*halfProbe < halfIdle:
		f.tries++
		t.probe(f)
		t.wake(f, halfProbe)
		return
	case f.state == calling:
		t.count.TimedOut++
		t.resetClient(f)
	case f.state == asking: // the client's next SYN begins anew
		t.count.TimedOut++
	case f.state == greeting:
		t.count.Abandoned++
	case f.state == offered:
		t.abandon(i)
		return
	case f.state == open && f.has(resetSeen):
		t.count.Closed++
	case f.state == open:
		t.count.Idle++
	}
	t.drop(i)
}

// Reset resets every flow that stands towards both ends, and forgets all.
func (t *Table) Reset(now time.Duration) {
	t.now = now
	for i := range int32(len(t.flows) * chunk) {
		f := t.at(i)
		switch f.state {
		case free:
			continue
		case open:
			t.unshunt(f)
			t.send(f, client, answer{flags: flagRST | flagACK, seq: f.toClient(f.next[server]), ack: f.next[client]})
			t.send(f, server, answer{flags: flagRST | flagACK, seq: f.toServer(f.next[client]), ack: f.next[server]})
		case greeting, calling, asking, offered:
			t.resetClient(f)
		}
		t.drop(i)
	}
	t.next = math.MaxInt64
}
