package simlink

import (
	"cmp"
	"slices"
	"time"

	control "hawser/pkg/bbr"
	"hawser/scheduler"
)

// TCP is one direction of a connection in a simulation, as a link's transport:
// it brings bytes in order over a line that loses packets, sends what was lost
// again, is governed by BBR, and tells what it knows of its path. What it has
// not sent yet is little (TCP_NOTSENT_LOWAT). Acknowledgements need only time
// on the line back, or their turn where that follows a recording. It times out as the kernel's does, a second apart at most
// (TCP_RTO_MAX_MS), and begins with one packet then.
type TCP struct {
	Unsent int    // bytes that it takes beyond what it has sent
	Again  uint64 // bytes that it has sent once more

	events    *Events
	out, back *Line
	ctl       bbr
	paced     time.Time // when pacing lets the next packet go
	most      float64   // rate that the link's owner wants, bytes per second; 0: no limit
	bursts    bool      // most does not count

	// The sender.
	given    uint64   // bytes to be sent, in all
	next     uint64   // first byte that was never sent
	again    []span   // what must be sent again, in order
	flight   []packed // in order of numbers
	number   int64
	flying   int
	largest  int64 // newest number that was acknowledged
	acked    uint64
	ahead    int    // bytes beyond a gap that have arrived
	sure     uint64 // bytes that were acknowledged, in order or not
	sureAt   time.Time
	firstAt  time.Time
	limited  uint64 // deliveries up to here say nothing of the rate
	progress uint64
	srtt     time.Duration
	rttvar   time.Duration
	least    time.Duration // round trip that was ever seen
	born     time.Time
	renewal  control.Renewal
	recall   *control.Recall // nil: none
	waking   bool
	rto      int // number of the newest timer
	backoff  int
	high     uint64   // losses are made good when all before it has come
	closed   bool     // sends nothing more
	wanting  []func() // that wait for room

	// The receiver.
	marks []mark // records, in order
	come  uint64 // bytes that have come in order
	early []span // beyond a gap, in order, apart from each other
}

type span struct{ from, to uint64 }

type packed struct {
	span
	number  int64
	at      time.Time
	gone    bool      // acknowledged or lost
	sure    uint64    // delivered when it was sent
	sureAt  time.Time // when that was
	firstAt time.Time // when the packet was sent whose acknowledgement that was
	limited bool
}

type mark struct {
	end    uint64
	arrive func()
}

// Sizes and times of the transport.
const (
	segment   = 1448
	headers   = 52
	notSent   = 16 << 10
	rtoMin    = 200 * time.Millisecond
	rtoMost   = time.Second
	reordered = 3 // packets that may overtake one that is not lost
)

// NewTCP returns a connection's direction that sends on out.
func (e *Events) NewTCP(out, back *Line) *TCP {
	t := &TCP{Unsent: notSent, events: e, out: out, back: back, sureAt: e.now, firstAt: e.now, born: e.now, largest: -1}
	t.srtt = out.Delay + back.Delay // of the handshake
	t.rttvar, t.least = t.srtt/4, t.srtt
	t.begin()
	return t
}

// Close ends the connection: nothing is sent any more. All records that were
// given and have not come arrive when the present event is over, for their owner
// to release.
func (t *TCP) Close() {
	t.closed = true
	t.events.After(0, func() {
		marks := t.marks
		t.marks, t.wanting = nil, nil
		for _, m := range marks {
			m.arrive()
		}
	})
}

// Send takes a record of size bytes; arrive is called when it and all before it
// have come.
func (t *TCP) Send(size int, arrive func()) {
	t.given += uint64(size + overhead)
	t.marks = append(t.marks, mark{t.given, arrive})
	t.send()
}

// Room calls do when no more than Unsent bytes wait to be sent.
func (t *TCP) Room(do func()) {
	t.wanting = append(t.wanting, do)
	t.makeRoom()
}

func (t *TCP) makeRoom() {
	if int(t.given-t.next) > t.Unsent {
		return
	}
	for _, do := range t.wanting {
		t.events.After(0, do)
	}
	t.wanting = nil
}

// Pace bounds the rate, bytes per second; 0: no limit.
func (t *TCP) Pace(rate float64) { t.most = rate }

// Burst lifts the bound of Pace, or restores it.
func (t *TCP) Burst(yes bool) { t.bursts = yes }

// Urge makes it look for more than it has found, as at the start: BBR begins
// anew with the window that it has.
func (t *TCP) Urge() {
	t.renewal.Begun(t.events.now.Sub(t.born))
	t.begin()
}

// Resume begins with what earlier connections of the path have found, and tells
// what this one finds.
func (t *TCP) Resume(r *control.Recall) {
	t.recall = r
	t.ctl.cwnd = max(firstSegs, r.Packets(t.events.now, segment)) * segment
	t.begin()
}

// begin has BBR begin, or begin again.
func (t *TCP) begin() { t.ctl.begin(t.events.now, t.srtt, t.least, t.sure) }

// Sense says what the transport knows. As a link's owner does with the kernel's, it
// has BBR begin again before that measures the least round trip.
func (t *TCP) Sense() scheduler.Sense {
	due, renew := t.renewal.Look(t.events.now.Sub(t.born), t.srtt, t.least, t.flying/segment)
	if renew {
		t.begin()
	}
	if t.recall != nil {
		t.recall.Note(t.events.now, t.ctl.bw.most(), t.least)
	}
	return scheduler.Sense{
		Due:   due,
		Known: true, RTT: t.srtt, Arrived: t.acked, Ahead: t.ahead, InFlight: t.flying, Progress: t.progress, Delivered: t.sure,
	}
}

func (t *TCP) rate() float64 {
	if t.most > 0 && !t.bursts {
		return min(t.most, t.ctl.pace())
	}
	return t.ctl.pace()
}

func (t *TCP) send() {
	for !t.closed && t.flying < t.ctl.window() {
		p, ok := t.pending()
		if !ok {
			t.limited = t.sure + uint64(t.flying) + 1
			break
		}
		if t.paced.After(t.events.now) {
			t.wake()
			break
		}
		t.transmit(p)
	}
	t.makeRoom()
}

// pending are the bytes that go next.
func (t *TCP) pending() (p span, ok bool) {
	for len(t.again) > 0 {
		p = t.again[0]
		p.from = max(p.from, t.acked)
		if p.from < p.to {
			return p, true
		}
		t.again = t.again[1:]
	}
	if t.next == t.given {
		return p, false
	}
	p = span{t.next, min(t.next+segment, t.given)}
	return p, true
}

// wake sends again when pacing lets it.
func (t *TCP) wake() {
	if t.waking {
		return
	}
	t.waking = true
	t.events.At(t.paced, func() {
		t.waking = false
		t.send()
	})
}

func (t *TCP) transmit(p span) {
	size := int(p.to - p.from)
	now := t.events.now
	if t.flying == 0 {
		t.sureAt, t.firstAt = now, now
	}
	k := packed{span: p, number: t.number, at: now, sure: t.sure, sureAt: t.sureAt, firstAt: t.firstAt, limited: t.sure < t.limited}
	t.number++
	if p.to > t.next {
		t.next = p.to
	} else {
		t.again = t.again[1:]
		t.Again += uint64(size)
	}
	t.flight = append(t.flight, k)
	t.flying += size
	if t.paced.Before(now) {
		t.paced = now
	}
	t.paced = t.paced.Add(time.Duration(float64(size) / t.rate() * 1e9))
	t.out.Send(size+headers, func() { t.receive(k) })
	if len(t.flight) == 1 {
		t.arm()
	}
}

// receive is the other end: it acknowledges every packet.
func (t *TCP) receive(k packed) {
	if t.closed {
		return
	}
	t.early = merge(t.early, k.span, t.come)
	if len(t.early) > 0 && t.early[0].from <= t.come {
		t.come = t.early[0].to
		t.early = t.early[1:]
	}
	for len(t.marks) > 0 && t.marks[0].end <= t.come {
		arrive := t.marks[0].arrive
		t.marks = t.marks[1:]
		arrive()
	}
	ahead := 0
	for _, s := range t.early {
		ahead += int(s.to - s.from)
	}
	come := t.come
	switch acknowledge := func() { t.acknowledged(k.number, come, ahead) }; {
	case t.back.Dead:
	case t.back.Replays():
		t.back.Send(headers, acknowledge)
	default:
		t.events.After(t.back.Delay+t.back.offset(), acknowledge)
	}
}

// merge adds a span to others.
func merge(all []span, s span, come uint64) []span {
	s.from = max(s.from, come)
	if s.from >= s.to {
		return all
	}
	i := len(all)
	for i > 0 && all[i-1].to >= s.from {
		i--
	}
	j := i
	for j < len(all) && all[j].from <= s.to {
		s.from, s.to = min(s.from, all[j].from), max(s.to, all[j].to)
		j++
	}
	out := append([]span(nil), all[:i]...)
	return append(append(out, s), all[j:]...)
}

func (t *TCP) acknowledged(number int64, come uint64, ahead int) {
	if t.closed {
		return
	}
	now := t.events.now
	s := rateSample{now: now, before: t.flying}
	t.largest = max(t.largest, number)
	for i := range t.flight {
		k := &t.flight[i]
		if k.number > number && k.to > come {
			break
		}
		if k.gone || k.number != number && k.to > come {
			continue
		}
		k.gone = true
		t.flying -= int(k.to - k.from)
		t.sure += k.to - k.from
		s.acked += int(k.to - k.from)
		t.sureAt = now
		if k.number == number {
			s.rtt = now.Sub(k.at)
			t.sample(&s, k)
		}
	}
	t.progress++
	if come >= t.acked {
		t.acked, t.ahead = come, ahead
	}
	t.sure = max(t.sure, come) // a time-out forgets what comes late
	if s.rtt > 0 {
		t.least = min(t.least, s.rtt)
		t.rttvar += ((t.srtt - s.rtt).Abs() - t.rttvar) / 4
		t.srtt += (s.rtt - t.srtt) / 8
	}
	t.backoff = 0
	if t.acked >= t.high {
		t.ctl.whole()
	}
	s.lost = t.detect()
	s.inFlight, s.delivered = t.flying, t.sure
	t.ctl.acked(s)
	t.arm()
	t.send()
}

// sample measures the delivery rate by the packet that was acknowledged, as
// draft-cheng-iccrg-delivery-rate-estimation has it.
func (t *TCP) sample(s *rateSample, k *packed) {
	span := max(k.at.Sub(k.firstAt), s.now.Sub(k.sureAt))
	if span > 0 {
		s.rate = float64(t.sure-k.sure) / span.Seconds()
	}
	s.limited, s.sentAt = k.limited, k.sure
	t.firstAt = k.at
}

// detect finds packets that others have overtaken, and returns their bytes.
func (t *TCP) detect() (lost int) {
	for i := range t.flight {
		k := &t.flight[i]
		if k.number > t.largest-reordered {
			break
		}
		if !k.gone {
			lost += int(k.to - k.from)
			t.lose(k)
		}
	}
	for len(t.flight) > 0 && t.flight[0].gone {
		t.flight = t.flight[1:]
	}
	if lost > 0 && t.acked >= t.high {
		t.high = t.next
		t.ctl.holes()
	}
	return lost
}

// lose has a packet sent again. What comes first in order goes first, also where it is lost
// once more: the kernel walks its queue from the first hole (tcp_xmit_retransmit_queue).
func (t *TCP) lose(k *packed) {
	k.gone = true
	t.flying -= int(k.to - k.from)
	i, _ := slices.BinarySearchFunc(t.again, k.from, func(s span, from uint64) int { return cmp.Compare(s.from, from) })
	t.again = slices.Insert(t.again, i, k.span)
}

// arm starts the timer after which all that is in flight counts as lost.
func (t *TCP) arm() {
	t.rto++
	mine := t.rto
	wait := min((t.srtt+max(4*t.rttvar, rtoMin))<<min(t.backoff, 4), rtoMost)
	t.events.After(wait, func() {
		if t.rto != mine || t.flying == 0 || t.closed {
			return
		}
		t.backoff++
		for i := range t.flight {
			if k := &t.flight[i]; !k.gone {
				t.lose(k)
			}
		}
		t.flight = nil
		t.high = t.next
		t.ctl.timeout()
		t.send()
		t.arm()
	})
}
