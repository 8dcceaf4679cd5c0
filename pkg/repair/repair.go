// Package repair decides how losses on a line that loses packets at random are
// made good below a TCP sender, so that it neither waits for them nor takes them
// for congestion: the idea of the snoop protocol (H. Balakrishnan et al.,
// "Improving TCP/IP Performance over Wireless Networks", MobiCom 1995), with
// selective acknowledgements (RFC 2018) instead of duplicate ones.
//
// What the peer has of the data, even beyond a gap, is acknowledged to the
// sender at once; the gap becomes a debt that this package's user owes the peer
// and sends again until it is acknowledged. So the sender's clock of
// acknowledgements never stops. Loss while the round trip shows a queue, or too
// much of it, is congestion: then the sender is shown a gap as well, until it sends
// that again, which is when it slows down. It is shown another one when all that it
// had sent by then is acknowledged. So it slows down once for each window, as it
// would by itself (RFC 6675), but what is lost is mended here all the same: a sender
// that is left a window with dozens of gaps loses some of its repairs, too, waits for
// its timer, and then sends all of the window again.
//
// A Flow is one direction of one connection. It is told of everything sent and
// of every acknowledgement, and answers what to send again and what the sender
// may be told. Times are offsets from any fixed moment. The package starts no
// goroutines; a Flow belongs to one caller at a time.
package repair

import (
	"slices"
	"time"
)

// mark is where something sent ends, and when it was sent.
type mark struct {
	end   uint32
	stamp uint32 // its timestamp (RFC 7323)
	at    time.Duration
}

// fix is a range that was sent again.
type fix struct {
	Range
	at    time.Duration
	tries int
}

// Flow is one direction of a connection. The zero Flow is new.
type Flow struct {
	begun   bool
	reached bool   // what was sent before the flow began is acknowledged
	una     uint32 // first byte that the peer lacks
	told    uint32 // what the sender takes for acknowledged: una <= told <= high
	edge    uint32 // right edge of the window that the sender is shown
	high    uint32 // end of what was sent
	mss     int
	marks   []mark // of what was sent, in order; marks[first:] is not acknowledged
	first   int
	sacked  []Range       // above una, in order, apart
	top     uint32        // end of the highest of them so far
	topAt   time.Duration // when what ends there was sent
	fixes   []fix         // in order, apart
	spare   []fix         // memory for the next fixes
	purse   int           // bytes that may be sent again now, see earn

	open      bool   // the sender sees every gap beyond told and repairs it,
	openUntil uint32 // until this is acknowledged

	// asks says that the sender has been shown a gap beyond told since askedAt, to slow
	// down for. It has done so for all before slowed.
	asks    bool
	askedAt time.Duration
	slowed  uint32

	gapAt  time.Duration // since when there is a gap that may be reordering; 0: none
	moved  time.Duration // when something new was acknowledged, or sent after rest
	stuck  time.Duration // since when una has not moved
	probes int           // of the tail since moved

	Line
}

// Begin makes f new, on a line of which something may be known, and keeps its
// memory.
func (f *Flow) Begin(l Line) {
	f.Reset()
	f.Line = l
}

// Reset makes f new again and keeps its memory.
func (f *Flow) Reset() {
	*f = Flow{marks: f.marks[:0], sacked: f.sacked[:0], fixes: f.fixes[:0], spare: f.spare[:0]}
}

// Sent notes that a segment or a train of segments of mss bytes was sent with a
// timestamp. It returns the part of it that was not sent before; what was is the
// sender's own repair. What is skipped is left to the sender: a flow may begin
// with a repair, and then lacks what was sent between that and the next new data.
func (f *Flow) Sent(now time.Duration, r Range, mss int, stamp uint32) (fresh Range, ok bool) {
	if !f.begun {
		f.begun, f.una, f.told, f.high, f.top, f.slowed = true, r.From, r.From, r.From, r.From, r.From-1
		f.stuck = now
	}
	if !before(f.told, r.From) && before(f.told, r.To) && before(f.told, f.high) {
		f.answered()
	}
	r.From = latest(r.From, f.high)
	if !before(r.From, r.To) {
		return Range{}, false
	}
	if f.Idle() {
		f.moved, f.stuck, f.probes = now, now, 0
	}
	if before(f.high, r.From) { // not kept: sent before the flow began, with a repair of the sender's
		f.open, f.openUntil = true, r.From
	}
	f.high, f.mss = r.To, max(mss, 1)
	f.earn(r.Len())
	f.marks = append(f.marks, mark{r.To, stamp, now})
	f.Line.sentMore(f.segments(r.Len()))
	return r, true
}

func (f *Flow) segments(bytes int) float64 { return float64((bytes + f.mss - 1) / f.mss) }

// Verdict is what becomes of an acknowledgement.
type Verdict struct {
	// Pass: it is none of the flow's business and goes to the sender as it is.
	Pass bool
	// Tell is what the sender is told to be acknowledged.
	Tell uint32
	// Stamp is the timestamp of what was sent last before Tell, if Tell is more
	// than the peer has said: the peer's echo is older than that.
	Stamp uint32
	Ahead bool
	// Edge is the right edge of the window that the sender is shown.
	Edge uint32
	// Show says that the selective acknowledgements beyond Tell are shown, Asks that
	// they are for the sender to slow down.
	Show, Asks bool
}

// Ack takes in an acknowledgement. edge is the right edge of the window that it
// gives, and credit how far Tell may run ahead of what the peer has
// acknowledged, in bytes. again is called with each range to be sent again now.
func (f *Flow) Ack(now time.Duration, ack, edge uint32, blocks []Range, credit int, again func(Range)) Verdict {
	if !f.begun || !f.reached && before(ack, f.una) {
		return Verdict{Pass: true}
	}
	f.reached = true
	seen := earliest(ack, f.high) // a FIN counts as one byte more
	if !before(seen, f.una) {
		f.advance(now, seen, before(f.high+1, ack))
		for _, b := range blocks {
			if before(f.una, b.From) && before(b.From, b.To) && !before(f.high, b.To) {
				f.insert(b)
			}
		}
		f.rise(now)
		f.trimFixes()
		f.edge = f.room(edge)
		f.tell(now, credit)
		f.detect(now)
		f.resend(now, again)
	}
	v := Verdict{Tell: latest(f.told, ack), Edge: f.edge, Show: f.open || f.asks, Asks: f.asks}
	if before(ack, v.Tell) {
		v.Stamp, v.Ahead = f.stampOf(v.Tell)
	}
	return v
}

// advance notes what is acknowledged in order; more says that the peer has even what was
// sent before the flow began with a repair, which then measures nothing.
func (f *Flow) advance(now time.Duration, ack uint32, more bool) {
	n := f.first
	for n < len(f.marks) && !before(ack, f.marks[n].end) {
		n++
	}
	// Only an acknowledgement without a gap before it measures the round trip.
	if n > f.first && len(f.sacked) == 0 && len(f.fixes) == 0 && !more {
		f.Line.measure(now, now-f.marks[n-1].at, f.high-f.una <= uint32(fewSegments*f.mss))
	}
	if f.first = n; n == len(f.marks) || n > 64 && n > len(f.marks)/2 {
		f.marks = f.marks[:copy(f.marks, f.marks[n:])]
		f.first = 0
	}
	if f.una != ack {
		f.earn(int(ack - f.una))
		f.una, f.moved, f.stuck, f.probes = ack, now, now, 0
		f.told = latest(f.told, ack)
	}
	for len(f.sacked) > 0 && before(f.sacked[0].From, ack) && !before(ack, f.sacked[0].To) {
		f.sacked = slices.Delete(f.sacked, 0, 1)
	}
	// A peer acknowledges all that it has in a row. Where it stops within what it
	// has said to have, it has thrown that away (RFC 2018 section 8).
	if len(f.sacked) > 0 && !before(ack, f.sacked[0].From) {
		f.sacked, f.top = f.sacked[:0], f.una
	}
	if f.open && !before(ack, f.openUntil) {
		f.open = false
	}
}

// rise measures the round trip by what is newly acknowledged beyond all gaps:
// that was hardly ever sent again.
func (f *Flow) rise(now time.Duration) {
	if len(f.sacked) == 0 {
		f.top = f.una
		return
	}
	to := f.sacked[len(f.sacked)-1].To
	if !before(f.top, to) {
		return
	}
	again := f.probes > 0
	f.top, f.moved, f.probes = to, now, 0
	i := f.markOf(to)
	if i == len(f.marks) {
		return
	}
	if f.topAt = f.marks[i].at; !again {
		f.Line.measure(now, now-f.marks[i].at, false)
	}
}

// markOf is the first mark at or after the end of something sent.
func (f *Flow) markOf(end uint32) int {
	i, _ := slices.BinarySearchFunc(f.marks[f.first:], end, func(m mark, end uint32) int { return int(int32(m.end - end)) })
	return f.first + i
}

func (f *Flow) stampOf(end uint32) (stamp uint32, ok bool) {
	i := f.markOf(end)
	if i == len(f.marks) {
		return 0, false
	}
	return f.marks[i].stamp, true
}

// room is the right edge that the sender is shown: behind a gap it does not get
// all of the window. A peer whose memory is full of what it cannot deliver may
// have none left for what is missing.
func (f *Flow) room(edge uint32) uint32 {
	if left := int32(edge - f.una); left > 0 && len(f.sacked) > 0 {
		return f.una + uint32(left)/4*3
	}
	return edge
}

// tell decides what the sender is told: all that the peer has in a row, and what
// it has beyond gaps unless one of those is to be seen.
func (f *Flow) tell(now time.Duration, credit int) {
	to := f.contiguous(latest(f.told, f.una))
	if gap := before(to, f.top) && !f.open; !gap {
		f.asks = false
	} else if f.ask(now); !f.asks {
		to = f.top
	}
	to = earliest(earliest(to, f.edge), f.una+uint32(max(credit, 0)))
	f.told = latest(latest(f.told, f.una), to)
}

// ask decides whether the sender is to see a gap and slow down.
func (f *Flow) ask(now time.Duration) {
	switch {
	case f.asks && now-f.askedAt > f.turn()+slack:
		f.answered() // it cannot, or has nothing to send
	case !f.asks && before(f.slowed, f.told) && f.Line.congested():
		f.asks, f.askedAt = true, now
	}
}

// answered notes that the sender has repaired what it lacks first, and so slowed down
// for all that it has sent so far.
func (f *Flow) answered() {
	f.asks, f.slowed = false, f.high
	f.Line.answered()
}

// contiguous is the end of what the peer has in a row from a point on.
func (f *Flow) contiguous(from uint32) uint32 {
	for _, s := range f.sacked {
		if !before(from, s.From) && before(from, s.To) {
			return s.To
		}
	}
	return from
}

// Yield shows the sender every gap beyond what it has been told, until
// everything that was sent so far is acknowledged.
func (f *Flow) Yield() {
	f.open, f.openUntil = true, f.high
}

// mine is where what this flow repairs ends: debts only, where the sender sees
// the rest.
func (f *Flow) mine() uint32 {
	if f.open {
		return f.told
	}
	return f.high
}

// detect makes repairs of the gaps that are losses by now: for what has arrived
// beyond them, or because it has for long enough (the two rules of RFC 8985).
func (f *Flow) detect(now time.Duration) {
	ripe := f.gapAt > 0 && now-f.gapAt >= f.settling()
	beyond, young := 0, false
	for i := len(f.sacked) - 1; i >= 0; i-- {
		beyond += f.sacked[i].Len()
		gap := Range{f.una, f.sacked[i].From}
		if i > 0 {
			gap.From = f.sacked[i-1].To
		}
		gap.To = earliest(gap.To, f.mine())
		if !before(gap.From, gap.To) {
			continue
		}
		if ripe || beyond >= reordered*f.mss {
			f.lose(gap)
		} else {
			young = young || !f.covered(gap)
		}
	}
	if !young {
		f.gapAt = 0
	} else if f.gapAt == 0 {
		f.gapAt = now
	}
}

// lose adds what is new of a gap to the repairs.
func (f *Flow) lose(gap Range) {
	i := 0
	for before(gap.From, gap.To) {
		for i < len(f.fixes) && !before(gap.From, f.fixes[i].To) {
			i++
		}
		part := gap
		if i < len(f.fixes) {
			x := f.fixes[i]
			if !before(gap.From, x.From) {
				gap.From = x.To
				continue
			}
			part.To = earliest(gap.To, x.From)
		}
		f.fixes = slices.Insert(f.fixes, i, fix{Range: part})
		f.Line.lostMore(f.segments(part.Len()))
		gap.From = part.To
	}
}

// resend calls again for the repairs that are due: by time, or because what was sent
// later has arrived (RFC 8985 section 6.2).
func (f *Flow) resend(now time.Duration, again func(Range)) {
	for i := 0; i < len(f.fixes); i++ {
		x := f.fixes[i]
		lost := x.tries > 0 && f.topAt-x.at > f.settling() // sent later and there
		if x.tries > 0 && !lost && now-x.at < f.wait(x.tries) {
			continue
		}
		if !f.afford(i) {
			return
		}
		if lost {
			x.tries = 1
		} else {
			f.Line.vain(x.tries)
			x.tries = min(x.tries+1, mostTries)
		}
		f.fixes[i].at, f.fixes[i].tries = now, x.tries
		again(f.fixes[i].Range)
	}
}

// Tick does what is due by time, and calls again as Ack does.
func (f *Flow) Tick(now time.Duration, again func(Range)) {
	if f.rests() {
		return
	}
	f.detect(now)
	if now-f.moved >= f.tailWait() {
		f.probe(now)
	}
	f.resend(now, again)
}

// probe takes the ends of what is not acknowledged for lost, as nothing shows
// what became of it: the last segment, for its acknowledgement to show that
// (RFC 8985 section 7), and the first.
func (f *Flow) probe(now time.Duration) {
	f.moved = now
	f.probes++
	f.Line.vain(f.probes)
	if f.probes > mostProbes && !f.open {
		f.Yield() // to the sender's own timer
	}
	end := f.mine()
	if f.yielded() {
		end = f.high
	}
	if len(f.sacked) > 0 {
		end = earliest(end, f.sacked[0].From)
	}
	first := Range{f.una, earliest(end, f.una+uint32(f.mss))}
	f.lose(first)
	if !f.open && before(f.top, f.high) {
		f.lose(Range{latest(latest(first.To, f.top), f.high-uint32(f.mss)), f.high})
	}
}

// tailWait is how long nothing new may be acknowledged.
func (f *Flow) tailWait() time.Duration {
	d := f.Line.turn() + tailTime
	switch {
	case f.srtt == 0:
		d = startTime
	case f.high-f.una <= uint32(f.mss):
		d += delayTime
	}
	if f.yielded() {
		d *= 2 // the sender is first
	}
	return d << min(max(f.probes, f.late), mostProbes)
}

// Due is when Tick has something to do if no Ack comes before; false: never.
func (f *Flow) Due() (at time.Duration, ok bool) {
	if f.rests() {
		return 0, false
	}
	at = f.moved + f.tailWait()
	if f.gapAt > 0 {
		at = min(at, f.gapAt+f.settling())
	}
	for _, x := range f.fixes {
		at = min(at, x.at+f.wait(max(x.tries, 1)))
		if f.purse < f.mss {
			break // the others wait for what this one brings
		}
	}
	return at, true
}

// rests reports whether nothing is to be done by time. For the first segment of a gap that
// is the sender's to repair there is, a few times: where the sender's repair is lost, too, it
// waits for its timer, a second at times, in which nothing moves.
func (f *Flow) rests() bool {
	return !f.begun || f.Idle() || f.yielded() && (f.probes >= mostProbes || len(f.sacked) == 0)
}

// yielded reports whether all repairs are the sender's for now.
func (f *Flow) yielded() bool { return f.open && f.una == f.told }

// Idle reports whether all that was sent is acknowledged.
func (f *Flow) Idle() bool { return f.una == f.high }

// Acked is what the peer has of the flow: nothing before it is needed again.
func (f *Flow) Acked() uint32 { return f.una }

// End is where what was sent ends.
func (f *Flow) End() uint32 { return f.high }

// Debt is how many bytes the sender was told to be acknowledged and are not.
func (f *Flow) Debt() int { return int(f.told - f.una) }

// Hopeless reports whether debts have not been accepted for so long that the
// connection is to be given up.
func (f *Flow) Hopeless(now time.Duration) bool { return f.Debt() > 0 && now-f.stuck > patienceMost }
