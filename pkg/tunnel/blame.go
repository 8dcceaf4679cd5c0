package tunnel

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// A record that cannot be authenticated was changed by something on the way of one link: by
// chance that happens once in years. The receiver knows by which links the bytes came, and
// ends the connection of the likeliest one; the sender, which is asked for the record once
// more, sees which connection has ended. Both give that link nothing for a while that other
// links can take (scheduler.Distrust). A record is refused three times at most (PROTOCOL.md
// section 6.4), so the second time it goes by a single link, the least likely one.

// via says which link connection brought a range: when its bytes turn out to
// be forged, that connection must end.
type via struct {
	from, to uint64
	conn     *conn
}

// viaRoom is how many notes a flow has room for before those of what was consumed are dropped.
const viaRoom = 32

// note remembers that c brought [from, to), or some of it. Where little was consumed since
// they were last looked through there is room for as many again first: peers cut streams as
// they like, and each byte may come by another connection.
func (f *flow) note(c *conn, from, to uint64) {
	if n := len(f.via); n > 0 && f.via[n-1].conn == c && f.via[n-1].to == from {
		f.via[n-1].to = to
		return
	}
	if n := len(f.via); n >= viaRoom && n == cap(f.via) {
		if f.forget(); 2*len(f.via) > n {
			f.via = slices.Grow(f.via, n)
		}
	}
	f.via = append(f.via, via{from, to, c})
}

// forget drops what was consumed.
func (f *flow) forget() {
	f.via = slices.DeleteFunc(f.via, func(v via) bool { return v.to <= f.credit.consumed })
	if len(f.via) == 0 {
		f.via = nil
	}
}

// share is how many bytes a link has brought.
type share struct {
	link  *link
	bytes int
}

// blameMost is how many notes are looked at to find out who brought a record: it comes in a
// few chunks, unless its sender wants that to take long.
const blameMost = 256

// blame returns which links brought the bytes [from, to): of those that came twice the first
// copy counts, as the second was dropped.
func (f *flow) blame(from, to uint64) (out []share) {
	left, looked := []via{{from: from, to: to}}, 0
	for _, v := range f.via {
		if v.to <= from || to <= v.from {
			continue
		}
		if looked++; looked > blameMost {
			break
		}
		var rest []via
		bytes := 0
		for _, r := range left {
			a, b := max(v.from, r.from), min(v.to, r.to)
			if a >= b {
				rest = append(rest, r)
				continue
			}
			bytes += int(b - a)
			if r.from < a {
				rest = append(rest, via{from: r.from, to: a})
			}
			if b < r.to {
				rest = append(rest, via{from: b, to: r.to})
			}
		}
		left = rest
		i := slices.IndexFunc(out, func(s share) bool { return s.link == v.conn.link })
		switch {
		case bytes > 0 && i < 0:
			out = append(out, share{v.conn.link, bytes})
		case bytes > 0:
			out[i].bytes += bytes
		}
	}
	return out
}

// reject throws away what follows the consumed bytes, of which the first n are the record
// that was refused, ends the connection that has most likely brought it so, and asks for it
// anew (PROTOCOL.md section 5.3).
func (s *Session) reject(f *flow, n int) {
	from := f.credit.consumed
	s.count.Forged++
	to := from + uint64(max(n, 1))
	if worst := s.distrust(f.blame(from, to)); worst != nil {
		for _, v := range f.via {
			if v.conn.link == worst && v.from < to {
				s.closeConn(v.conn, ErrForged)
			}
		}
	}
	before := f.heldIn()
	f.recv.Rewind(from)
	s.cfg.Budget.move(before, f.heldIn())
	f.via, f.finOut = nil, false
	s.addCtrl(func(b []byte) []byte { return wire.AppendResend(b, uint64(f.id), from) })
	s.emit(f.worker, stream.Event{Kind: stream.EventRewind, Flow: f.id})
}

// sendAnew sends everything from an offset on once more, which the receiver could not
// authenticate. A peer that asks for that without end has its flow reset: each time all that it
// has not consumed is looked through.
func (s *Session) sendAnew(f *flow, from uint64) error {
	if from > f.send.next {
		return fmt.Errorf("flow %d: asks for byte %d of %d sent", f.id, from, f.send.next)
	}
	if f.send.standsAnew(from) {
		return nil
	}
	if !f.send.mayAsk() {
		return s.giveUp(f, stream.CodeProtocol)
	}
	s.refusedAt = s.now
	for _, l := range s.links {
		s.suspect(l)
	}
	f.send.refuse(from)
	f.send.resendFrom(from)
	s.order.Activate(&f.node, s.now)
	return nil
}

// suspect distrusts a link whose connection has ended when the peer was sent something that it
// could not authenticate: the peer has ended it for that.
func (s *Session) suspect(l *link) {
	if l.endedAt.IsZero() || s.refusedAt.IsZero() || s.refusedAt.Sub(l.endedAt).Abs() > together {
		return
	}
	l.endedAt = time.Time{} // for this time
	s.distrust([]share{{l, 1}})
}

// together is how far apart the two may be told, by links of which one is far.
const together = time.Second

// distrust holds links responsible for a forgery that came by one of them. It returns the
// one that it is most likely to be; nil: there are none.
func (s *Session) distrust(of []share) *link {
	if len(of) == 0 {
		return nil
	}
	among := make([]scheduler.Bringer, len(of))
	for i, o := range of {
		among[i] = scheduler.Bringer{Distrust: o.link.distrust, Bytes: o.bytes}
	}
	worst := of[scheduler.Share(s.now, among)].link
	worst.forged++
	if s.forgers.Fresh(strconv.Itoa(worst.info.ID), s.now) { // a peer may forge as many as it likes
		s.log.Warn("link brings forged records", "link", worst.info.Name, "unused_for", max(worst.distrust.Until().Sub(s.now), 0).Round(time.Millisecond))
	}
	return worst
}

// refuse marks what belongs to the record that begins at an offset.
func (q *sendQueue) refuse(from uint64) {
	end := from + q.recordAt(from)
	for p := q.head; p != nil && p.state != unsent && p.off < end; p = p.next {
		p.refused = p.refused || p.end() > from
	}
}

// recordAt is how many bytes the sealed record has that begins at an offset, or at least 1.
func (q *sendQueue) recordAt(from uint64) uint64 {
	head := make([]byte, 0, card.HeaderLen)
	for p := q.head; p != nil && len(head) < card.HeaderLen; p = p.next {
		if at := from + uint64(len(head)); p.off <= at && at < p.end() {
			b := p.seg.P[at-p.off:]
			head = append(head, b[:min(len(b), card.HeaderLen-len(head))]...)
		}
	}
	if len(head) < card.HeaderLen {
		return 1
	}
	h, err := card.ParseHeader(head)
	if err != nil {
		return buffer.Plain + card.Overhead
	}
	return uint64(h.Len)
}
