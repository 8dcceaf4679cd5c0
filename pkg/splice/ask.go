package splice

import "time"

// Ask takes the SYN of a new client that is told nothing before its server has answered.
// So what it takes for the way's round trip, from its SYN to the answer, is that to the
// server, and it is offered what the server can do. It returns false when there is no
// room, or the door does not let it in.
func (t *Table) Ask(now time.Duration, p *Packet) bool {
	t.now = now
	s, ok := parseSegment(p)
	if !ok || !p.whole() || !s.is(flagSYN, flagSYN|flagACK|flagRST|flagFIN) {
		t.count.Malformed++
		return true
	}
	offered := parseOptions(s.tcp[tcpMin:])
	src, dst := p.ends()
	f := t.begin(src, dst, s.seq, 0, offered, offered)
	if f == nil {
		return false
	}
	f.window[client] = s.window
	t.enter(f, asking)
	return true
}

// take has the client be answered with the server's own numbers and options.
func (f *flow) take(s *segment) {
	o := parseOptions(s.tcp[tcpMin:])
	f.acked[client], f.told = s.seq+1, o.Val
	if f.ours = o.Scale; f.scale[client] == NoScale || o.Scale == NoScale {
		f.scale[client], f.ours = NoScale, NoScale
	}
	if !o.SACK {
		f.bits &^= clientSACK
	}
	if !o.Stamps {
		f.bits &^= clientStamps
	}
}

// asked takes what a client sends before its server has answered: a reset ends it.
func (t *Table) asked(i int32, s *segment) Verdict {
	if f := t.at(i); s.flags&flagRST != 0 && s.seq == f.next[client] {
		t.abandon(i)
	}
	return Took
}

// accepted takes what a client sends in answer to the server's SYN-ACK: its ACK opens the
// flow, and is the server's.
func (t *Table) accepted(i int32, s *segment, p *Packet) Verdict {
	f := t.at(i)
	switch {
	case s.flags&flagRST != 0:
		return t.asked(i, s)
	case s.flags&(flagACK|flagSYN) != flagACK || s.ack != f.acked[client] || before(s.seq, f.next[client]):
		return Took // not of this handshake
	}
	t.remember(f, s)
	t.enter(f, open)
	return t.pass(f, client, s, p)
}

// awaited takes what a server sends while the client's ACK is awaited. What it has to
// say without that it will say again.
func (t *Table) awaited(i int32, s *segment) Verdict {
	f := t.at(i)
	switch {
	case s.flags&flagRST != 0 && s.seq == f.next[server]:
		t.count.Refused++
		t.resetClient(f)
		t.drop(i)
	case s.is(flagSYN|flagACK, flagSYN|flagACK) && s.seq+1 == f.next[server]:
		t.greet(f)
	}
	return Took
}

// abandon resets the server of a client that has given up.
func (t *Table) abandon(i int32) {
	f := t.at(i)
	t.count.Abandoned++
	t.send(f, server, answer{flags: flagRST, seq: f.toServer(f.next[client])})
	t.drop(i)
}
