package split

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
)

// mode is what a connection's policy asks for.
func (k *keeper) mode(ends *guard.Ends) guard.Mode {
	if k.stack.splice.wants(clientOf(ends), serverOf(ends)) {
		return guard.ZeroWindow // nobody could keep what the client would send
	}
	if k.opts.Mode == nil {
		return k.opts.Gate.mode()
	}
	return k.opts.Mode(serverOf(ends), clientOf(ends))
}

// admit makes the flow of a valid ACK, the first segment that a client has
// sent after its SYN. Where there is no place the client is left alone: its
// probes, its data sent again, or its answers to a SYN-ACK that comes again ask anew as
// long as the cookie lives.
func (k *keeper) admit(ends *guard.Ends, hello guard.Hello, offered bool, s *segment) {
	fast := k.fast(ends, s.v6)
	w, asked := k.enroll(ends, k.fresh(s), func() *ward {
		return &ward{ends: *ends, v6: s.v6, flow: guard.NewFlow(hello, s.tcp().AckNumber()-1, offered, s.tcp())}
	})
	if w == nil {
		return
	}
	k.stack.syns.settle(ends)
	join := guard.Segment{}
	if asked {
		join = k.begin(w, fast)
	}
	k.mu.Lock()
	if w.left {
		k.mu.Unlock()
		return
	}
	k.hear(w, s)
	if join.Flags != 0 {
		k.inject(&join, &w.ends, w.v6)
	}
}

// fast says whether the first flight of a client is taken now.
func (k *keeper) fast(ends *guard.Ends, v6 bool) bool {
	now := time.Now()
	return k.opts.Gate.resolve(k.mode(ends), v6, now) == guard.Fast && k.opts.Gate.room(serverIn(ends), now)
}

// ask makes the flow of a SYN in strict mode.
func (k *keeper) ask(ends *guard.Ends, hello guard.Hello, v6 bool) {
	w, asked := k.enroll(ends, true, func() *ward {
		return &ward{ends: *ends, v6: v6, flow: guard.NewAsked(hello), strict: true}
	})
	if asked {
		k.begin(w, false)
	}
}

// begin hands a flow out, so that its server is asked. It returns the SYN for
// the stack if the first flight is taken, which is not to go there before what
// has come is heard.
func (k *keeper) begin(w *ward, fast bool) (join guard.Segment) {
	k.stack.accept(w.conn)
	if !fast || w.strict {
		return join
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !w.left && w.flow.State() == guard.Waiting {
		k.unqueue(w) // its server has answered already: what it sends need not wait
		join = w.flow.Join(k.opts.Gate.limits().FirstFlight)
	}
	return join
}

// enroll gives a flow its place and its connection. Where all places are taken
// it gets that of a flow whose server has not answered for long; where its server
// has all that it may, it has to wait: taking turns at a server that does not
// answer brings nobody further, and costs both agents a connection each time.
// asked says that begin is to follow; else the flow waits for its turn. It returns
// nil without a place, and has made nothing then: a crowd asks again and again.
func (k *keeper) enroll(ends *guard.Ends, fresh bool, flow func() *ward) (w *ward, asked bool) {
	now, server := time.Now(), serverIn(ends)
	k.mu.Lock()
	if k.flows[*ends] != nil {
		k.mu.Unlock()
		return nil, false
	}
	var old *ward
	var goodbye guard.Segment
	v := k.opts.Gate.admit(ends.Client, server, now)
	if v == guard.TooMany {
		if old, goodbye = k.displace(now, fresh); old != nil {
			v = k.opts.Gate.admit(ends.Client, server, now)
		}
	}
	switch v {
	case guard.Admitted:
		w = flow()
		asked = k.place(w, now)
	case guard.SilentServer:
	default:
		k.crowded = now
	}
	k.mu.Unlock()
	k.farewell(old, &goodbye)
	if v == guard.Admitted {
		return w, asked
	}
	k.count.refused[v].Add(1)
	if v == guard.SilentServer {
		k.opts.Gate.floods.count(0, 1, now)
		w := flow()
		reset := w.flow.Reset()
		k.emit(&reset, ends, w.v6)
		k.stack.syns.settle(ends)
	}
	return nil, false
}

// place notes a flow that the gate has admitted, and returns whether its server
// is asked for it now. The caller holds mu.
func (k *keeper) place(w *ward, now time.Time) (asked bool) {
	k.flows[w.ends] = w
	w.since = moments.At(now)
	k.pending.add(w)
	k.count.admitted.Add(1)
	k.opts.Gate.floods.count(0, 1, now)
	if k.opts.Gate.ask(w.server(), now) {
		k.hire(w)
		return true
	}
	k.list(w)
	k.count.waited.Add(1)
	return false
}

// hire makes a flow's connection: its server is asked. The caller holds mu.
func (k *keeper) hire(w *ward) {
	w.asked = true
	w.conn = &Conn{stack: k.stack, ward: w, ends: between(serverOf(&w.ends), clientOf(&w.ends))}
}

// serve opens a flow's window: its server is there, and takes window bytes at
// first; negative: it does not say.
func (k *keeper) serve(w *ward, window int) {
	k.mu.Lock()
	if w.left || w.connected || w.flow.State() == guard.Over {
		k.mu.Unlock()
		return
	}
	w.connected = true
	k.pending.remove(w)
	wait := k.opts.Gate.connected(w.ends.Client, w.server(), w.flow.Settle())
	update, told := w.flow.Serve(k.clock(), window)
	join := guard.Segment{}
	if s := w.flow.State(); s == guard.Waiting || s == guard.Asked {
		join = k.enter(w)
	}
	old := k.rest(w)
	k.mu.Unlock()
	old.end()
	if told {
		k.emit(&update, &w.ends, w.v6)
	}
	if join.Flags != 0 {
		k.inject(&join, &w.ends, w.v6)
	}
	if wait {
		k.opts.Gate.proceed(w.server())
	}
}

// leave notes that the owner of a flow's connection has let go of it. reset
// says that the client is to be told, if the stack does not do it.
func (k *keeper) leave(w *ward, reset bool) {
	k.mu.Lock()
	if w.left {
		k.mu.Unlock()
		return
	}
	w.left = true
	k.use(w)
	wait := false
	switch {
	case w.displaced:
	case w.connected:
		k.opts.Gate.closed(w.ends.Client)
	default:
		k.pending.remove(w)
		wait = k.opts.Gate.refuse(w.ends.Client, w.server(), true)
	}
	reply := guard.Segment{}
	switch w.flow.State() {
	case guard.Waiting, guard.Asked:
		if reset || w.connected {
			reply = w.flow.Reset()
		}
		k.remove(w)
	case guard.Over:
	default:
		if w.conn.is(isFailing) && !w.strict {
			reply = w.flow.Reset() // the stack, which never had the connection, tells nobody
		}
		if !reset || !w.conn.is(isUp) { // else bury follows
			k.linger(w)
		}
	}
	k.mu.Unlock()
	if reply.Flags != 0 {
		k.emit(&reply, &w.ends, w.v6)
	}
	k.after(w, wait)
}

// bury ends a flow whose connection was aborted: the stack's reset has passed
// the guard.
func (k *keeper) bury(w *ward) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.flow.State() != guard.Over {
		k.linger(w)
	}
}

// linger forgets a flow when the stack has finished its connection: at once if
// it has, as the endpoint's memory goes with it. The caller holds mu.
func (k *keeper) linger(w *ward) {
	if w.conn.finished() {
		k.remove(w)
		return
	}
	now := time.Now()
	k.ending = append(k.ending, ending{w, now.Add(lingering)})
	k.sweep(now)
	k.wind()
}

// outbound implements filter.
func (k *keeper) outbound(pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber || len(h) < header.TCPMinimumSize {
		return true
	}
	ends := guard.Ends{ClientPort: h.DestinationPort(), ServerPort: h.SourcePort()}
	src, dst := addresses(pkt.NetworkProtocolNumber, pkt.NetworkHeader().Slice())
	put(&ends.Client, dst.AsSlice())
	put(&ends.Server, src.AsSlice())
	k.mu.Lock()
	w := k.flows[ends]
	if w == nil {
		k.mu.Unlock()
		k.orphaned(h, &ends, pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber)
		return false // of a connection whose place another one has taken
	}
	if w.flow.State() == guard.Joining {
		k.joined(w, h)
		return false
	}
	size := pkt.Data().Size()
	if size > 0 {
		k.use(w)
	}
	w.flow.Outbound(h, size, !pkt.GSOOptions.NeedsCsum || pkt.GSOOptions.Type == stack.GSONone)
	k.mu.Unlock()
	return true
}

// orphaned ends a handshake of the stack's whose flow has gone before the stack
// answered its SYN: nobody else would for two minutes, in which a goroutine and
// its buffers wait.
func (k *keeper) orphaned(h header.TCP, ends *guard.Ends, v6 bool) {
	if h.Flags() == header.TCPFlagSyn|header.TCPFlagAck {
		rst := guard.Segment{Flags: guard.FlagRST, Seq: h.AckNumber(), Scale: guard.NoScale}
		k.inject(&rst, ends, v6)
	}
}

// joined completes the stack's handshake in the client's place. The caller
// holds mu, which it releases.
func (k *keeper) joined(w *ward, h header.TCP) {
	ack, update, told, ok := guard.Segment{}, guard.Segment{}, false, false
	if h.Flags() == header.TCPFlagSyn|header.TCPFlagAck {
		ack, update, told, ok = w.flow.Joined(h, k.scale, k.clock())
	}
	kept := w.kept
	w.kept = nil
	if !ok {
		k.mu.Unlock()
		k.count.misjoined.Add(1)
		w.conn.fail()
		return
	}
	passed := kept[:0]
	for _, p := range kept {
		t, payload := transportOf(p, w.v6)
		if w.flow.State() == guard.Bounded && !k.take(w, t, payload) {
			continue
		}
		k.passed(w, t, payload)
		passed = append(passed, p)
	}
	k.mu.Unlock()
	k.inject(&ack, &w.ends, w.v6)
	for _, p := range passed {
		k.injectRaw(p, w.v6)
	}
	if told {
		k.emit(&update, &w.ends, w.v6)
	}
}

// transportOf returns the TCP segment of an IP packet that was parsed before,
// and its payload's length.
func transportOf(ip []byte, v6 bool) ([]byte, int) {
	start := int(ip[0]&15) * 4
	if v6 {
		p, _ := parseIPv6(ip, len(ip))
		start = p.start
	}
	t := ip[start:]
	return t, len(t) - int(header.TCP(t).DataOffset())
}

// wardOf returns the flow that the guard gives to netstack by a SYN, or nil.
func (k *keeper) wardOf(id stack.TransportEndpointID) *ward {
	ends := guard.Ends{ClientPort: id.RemotePort, ServerPort: id.LocalPort}
	put(&ends.Client, id.RemoteAddress.AsSlice())
	put(&ends.Server, id.LocalAddress.AsSlice())
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.flows[ends]
}

// establish hands the endpoint to a flow's connection; err says that the
// handshake with the stack, or with the client in strict mode, has failed.
func (k *keeper) establish(w *ward, ep tcpip.Endpoint, err tcpip.Error) {
	c := w.conn
	if err != nil {
		k.stack.count.handshakeFails.Add(1)
		c.fail()
		return
	}
	k.stack.keepAlive(ep, k.stack.opts.KeepAlive)
	k.stack.count.accepted.Add(1)
	room := k.stack.growth.furnish(ep, k.stack.opts.Buffer, false, noPart)
	k.mu.Lock()
	if c.is(isFailing) { // the guard has forgotten the flow meanwhile
		k.mu.Unlock()
		k.stack.growth.conns.Add(-1)
		ep.Abort()
		return
	}
	c.adopt(ep, room)
	gone, watched, fin := w.left, c.is(isWanted), c.is(isFinSent)
	old := k.rest(w)
	k.mu.Unlock()
	old.end()
	switch {
	case gone:
		c.uncount()
		ep.Abort()
		return
	case watched:
		c.listen()
	}
	if fin {
		_ = ep.Shutdown(tcpip.ShutdownWrite)
	}
}

// join completes a handshake that the guard has begun with netstack.
func (s *Stack) join(r *tcp.ForwarderRequest) {
	w := s.keeper.wardOf(r.ID())
	if w == nil {
		r.Complete(false)
		return
	}
	ep, err := r.CreateEndpoint(&w.conn.queue)
	r.Complete(false)
	if err == nil {
		s.trimmer.prune(ep)
	}
	s.keeper.establish(w, ep, err)
}

// refuse ends a flow for whose handshake netstack has no room.
func (s *Stack) refuse(id stack.TransportEndpointID) {
	if s.keeper == nil {
		return
	}
	if w := s.keeper.wardOf(id); w != nil {
		w.conn.fail()
	}
}
