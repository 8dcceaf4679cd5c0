package splice

import (
	"encoding/binary"
	"time"
)

// answer is a segment of our own.
type answer struct {
	flags    byte
	seq, ack uint32
	window   uint16
	opts     []byte
}

// send makes a packet to one end of a flow and emits it.
func (t *Table) send(f *flow, to side, a answer) {
	src, dst := f.server(), f.client()
	if to == server {
		src, dst = t.hubEnd(f), f.server()
	}
	b := appendIP(t.scratch[:0], src.Addr(), dst.Addr(), protoTCP)
	at := len(b)
	b = append(b, make([]byte, tcpMin)...)
	b = append(b, a.opts...)
	tcp := b[at:]
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	binary.BigEndian.PutUint32(tcp[offSeq:], a.seq)
	if a.flags&flagACK != 0 {
		binary.BigEndian.PutUint32(tcp[offAck:], a.ack)
	}
	tcp[offLength], tcp[offFlags] = byte(len(tcp)/4)<<4, a.flags
	binary.BigEndian.PutUint16(tcp[offWindow:], a.window)
	setSize(b, len(b))
	binary.BigEndian.PutUint16(tcp[offSum:], ^fold(uint32(sum(tcp))+uint32(pseudoSum(b, protoTCP, len(tcp)))))
	t.scratch = b
	t.cfg.Emit(b)
}

// sendSYN calls the server with what the client has offered, so that both ends
// speak with each other's options. ECN and options that need the client's
// consent stay out.
func (t *Table) sendSYN(f *flow) {
	o := Options{MSS: f.mss[client], Scale: NoScale, SACK: f.has(clientSACK), Stamps: f.has(clientStamps), Val: f.stamp[client]}
	window := uint32(f.window[client])
	if f.scale[client] >= 0 && f.ours >= 0 {
		o.Scale = f.scale[client]
		if f.state != asking { // else it is a SYN's
			window = min(window<<o.Scale, 0xffff) // a SYN's window is not scaled
		}
	}
	f.tries++
	t.send(f, server, answer{flags: flagSYN, seq: f.toServer(f.next[client] - 1), window: uint16(window), opts: o.appendTo(t.opts[:0])})
}

// greet answers a client's SYN. Its numbers are chosen, and the window is zero; or they are
// the server's, which has answered.
func (t *Table) greet(f *flow) {
	o := Options{MSS: t.cfg.MSS, Scale: f.ours, SACK: f.has(clientSACK), Stamps: f.has(clientStamps), Val: f.told, Ecr: f.stamp[client]}
	if f.has(isIPv6) {
		o.MSS -= ip6Len - ip4Len
	}
	a := answer{flags: flagSYN | flagACK, seq: f.acked[client] - 1, ack: f.next[client]}
	if f.state == offered {
		o.MSS, a.window = min(o.MSS, f.mss[server]), f.window[server]
	}
	a.opts = o.appendTo(t.opts[:0])
	t.send(f, client, a)
}

// tellClient acknowledges to the client what it has sent, with a window.
func (t *Table) tellClient(f *flow, seq uint32, window uint16) {
	a := answer{flags: flagACK, seq: seq, ack: f.acknowledged(server), window: window}
	if f.has(clientStamps) {
		a.opts = appendStamps(t.opts[:0], f.told, f.stamp[client])
	}
	t.send(f, client, a)
}

// tellServer acknowledges to the server what the client has acknowledged.
func (t *Table) tellServer(f *flow) { t.tellServerFrom(f, f.toServer(f.next[client])) }

func (t *Table) tellServerFrom(f *flow, seq uint32) {
	a := answer{
		flags: flagACK, seq: seq, ack: f.acked[client] - f.down,
		window: f.windowFor(server, f.window[client]),
	}
	if f.has(serverStamps) {
		a.opts = appendStamps(t.opts[:0], f.stamp[client], f.stamp[server])
	}
	t.send(f, server, a)
}

// probe asks the end that has not sent its FIN for an answer, by a number that it has
// acknowledged before (RFC 9293 section 3.8.4).
func (t *Table) probe(f *flow) {
	if f.ends&finSeen(client) != 0 {
		t.tellServerFrom(f, f.toServer(f.next[client]-1))
		return
	}
	t.tellClient(f, f.toClient(f.next[server])-1, f.windowFor(client, f.window[server]))
}

// acknowledged is what an end has acknowledged, as the other end sees it.
func (f *flow) acknowledged(by side) uint32 {
	if by == server {
		return f.acked[server] - f.up
	}
	return f.acked[client] - f.down
}

// resetClient tells the client that there is no server.
func (t *Table) resetClient(f *flow) {
	t.send(f, client, answer{flags: flagRST | flagACK, seq: f.acked[client], ack: f.next[client]})
}

func millis(d time.Duration) uint32 { return uint32(d / time.Millisecond) }
