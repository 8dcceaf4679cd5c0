package tunnel

import (
	"time"

	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Strand is one ordered run of records each way of a link connection.
type Strand interface {
	// Send writes the records and returns when the transport has taken them:
	// that is the room signal. It releases their bodies. One caller at a time.
	Send(batch []wire.Record) error
	// Receive returns the next record. Its block is valid until the next call,
	// its body belongs to the caller. One caller at a time, who calls until it returns
	// an error: what has come of a record in part is given back then.
	Receive() (wire.Record, error)
	// Buffered reports whether Receive would return at once; Receive's caller
	// asks.
	Buffered() bool
}

// Carrier is one established and authenticated link connection. Its own strand is
// that for bulk.
type Carrier interface {
	Strand
	// Sense asks the transport what it knows. It may cost a system call.
	Sense() scheduler.Sense
	// Pace asks the transport not to send faster than rate bytes per second,
	// also in bursts; 0 = no limit.
	Pace(rate float64)
	// Close ends both directions at once; Send and Receive of all strands
	// return err.
	Close(err error)
}

// QuickStrand is a Strand that can send without blocking. TrySend sends the
// batch as Send does, if the transport takes all of it at once. Otherwise it
// returns false, and Resume must be called with the same batch before anything
// else is sent; it sends what is left and blocks as Send does.
type QuickStrand interface {
	Strand
	TrySend(batch []wire.Record) (done bool, err error)
	Resume(batch []wire.Record) error
}

// UrgentCarrier is a Carrier with a second strand, whose records wait for none of
// the first one's (PROTOCOL.md section 4.3). Urgent returns it, or nil when this
// connection has none; always the same. Twin returns a third, for copies of what the
// second carries, or nil.
type UrgentCarrier interface {
	Carrier
	Urgent() Strand
	Twin() Strand
}

// Urger is a Carrier whose transport can be asked to look for more than its own
// congestion control lets pass, as at the start of a connection.
type Urger interface{ Urge() }

// Stretcher is a Carrier whose congestion control wants to know when the path has become
// longer: its round trip with little under way.
type Stretcher interface{ Stretch(rtt time.Duration) }

// Steadier is a Carrier whose congestion control wants to know whether its path is
// steady (scheduler.Estimator.Steady); until Steady is called it takes it that it is not.
type Steadier interface{ Steady(yes bool) }

// Leader is a Carrier whose congestion control may be led: to send at the rate that Pace
// asks for, not only at that at most (scheduler.Estimator.Leads); until Lead is called it
// is not.
type Leader interface{ Lead(yes bool) }

// Volleyer is a Carrier that may be asked to send several packets at a time, so as to
// measure the path (scheduler.Estimator.Volleys, scheduler.Sense.Carries); until Volley is
// called it does not.
type Volleyer interface{ Volley(yes bool) }

// Burster is a Carrier that may send faster than Pace asks for, up to what its own congestion
// control lets pass, where the line delivers in bunches (scheduler.Estimator.Bunches); until
// Burst is called it may not.
type Burster interface{ Burst(yes bool) }

// conn is one connection of a link. The loop owns all fields.
type conn struct {
	link      *link
	info      LinkInfo
	carrier   Carrier
	bulk      *strand
	urgent    *strand // for what must not wait behind bulk; bulk itself where there is no other
	twin      *strand // takes copies of that, which must not wait behind it; nil: none
	strands   []*strand
	bulkAt    time.Time // when the bulk strand last brought a large record
	candidate bool      // waits for its first record (cloud)
	closed    bool
	toldStop  bool  // the goodbye is on its way
	err       error // why the loop closed it

	spoke    time.Time // when the peer's last record came
	since    time.Time // when it began to speak without a longer pause
	heard    time.Time // when something of ours was last acknowledged, by the transport too; without its help: when anything came
	probed   time.Time
	inFlight int
	rate     rateState
	paced    float64 // what the transport was last asked
	steady   bool    // what it was last told
	leads    bool    // the same
	volleys  bool    // the same
	bursts   bool    // the same
	eye      eye
	handed   int // bytes of bodies in batches at the writers

	stop chan struct{} // closed by Serve: the writers end
}

func newConn(l *link, c Carrier) *conn {
	cn := &conn{link: l, carrier: c, stop: make(chan struct{})}
	cn.rate.limitedTo = 1 // the first probe says nothing about the rate
	cn.bulk = newStrand(cn, c, blockSpace)
	cn.urgent, cn.strands = cn.bulk, []*strand{cn.bulk}
	if u, ok := c.(UrgentCarrier); ok {
		if way := u.Urgent(); way != nil {
			cn.urgent = newStrand(cn, way, blockSpace)
			if way := u.Twin(); way != nil {
				cn.twin = newStrand(cn, way, blockSpace)
			}
			cn.list()
		}
	}
	return cn
}

// strandFor returns the strand that takes a piece now, or nil: neither has room.
func (c *conn) strandFor(p *piece, now time.Time) *strand {
	switch {
	case c.urgent != c.bulk && p.presses() && c.urgent.suits(now) && c.urgent.batch() != nil:
		return c.urgent
	case p.presses() && c.twinSuits(now) && c.twin.batch() != nil:
		return c.twin
	case c.bulk.batch() != nil:
		return c.bulk
	}
	return nil
}

// control is the strand for control frames.
func (c *conn) control(now time.Time) *strand {
	switch {
	case c.urgent.suits(now):
		return c.urgent
	case c.twinSuits(now):
		return c.twin
	}
	return c.bulk
}

// list makes the connection's strands be those that it has.
func (c *conn) list() {
	c.strands = c.strands[:0:0] // who goes through the old ones goes on
	if c.urgent != c.bulk {
		c.strands = append(c.strands, c.urgent)
	}
	if c.twin != nil {
		c.strands = append(c.strands, c.twin)
	}
	c.strands = append(c.strands, c.bulk)
}

// oldest is when the oldest record without an answer was sent; zero: none.
func (c *conn) oldest() time.Time {
	at := c.bulk.log.oldest()
	for _, st := range c.strands {
		if other := st.log.oldest(); at.IsZero() || !other.IsZero() && other.Before(at) {
			at = other
		}
	}
	return at
}

// sendAcks sends the acknowledgements that found no company and must leave by now.
func (c *conn) sendAcks(now time.Time) {
	for _, of := range c.strands {
		if !of.ackDue || of.ackAt().After(now) {
			continue
		}
		st := of.acksOn(now)
		if b := st.batch(); b != nil {
			st.seal(b, st.block(b, now), noSeg)
		}
	}
}

// room is how many bytes the connection may take now. The cap is for what is in
// the network; what has arrived and was not acknowledged yet, behind a lost
// packet or because the other end is busy, has a bound of its own.
//
// A chunk that a slow line takes its full time for needs room for half of it. Otherwise
// half a chunk more than the cap would be under way in the mean: 5 ms of queue, where
// the uplink's buffer may hold no more than 20. Not before the line counts as steady: one
// that begins, or trembles, must show first what it carries.
func (c *conn) room() int {
	if c.closed || c.bulk.batch() == nil {
		return 0
	}
	if !c.eye.sense.Known {
		return c.link.est.Cap() - c.inFlight
	}
	most, chunk := c.link.est.NetCap(), chunkSize(c.link.est.Rate())
	room := min(most-c.flying(), max(holdGain*most, holdMin)-c.inFlight)
	if c.link.est.Steady() && chunk < ordinary && room < chunk/2 && most > 2*chunk {
		return 0
	}
	return room
}

// Bounds of what is sent and not acknowledged by the other end's tunnel.
const (
	holdGain = 4 // of the cap
	holdMin  = 128 << 10
)

// recordOverhead is a link record's prefix and tag, in bytes (PROTOCOL.md
// section 4).
const recordOverhead = 4 + 16

// pace tells the transport of the link's rate when that has moved.
func (c *conn) pace() {
	if u, ok := c.carrier.(Urger); ok && c.link.est.Urge() {
		u.Urge()
	}
	if rtt := c.link.est.Longer(); rtt > 0 {
		if u, ok := c.carrier.(Stretcher); ok {
			u.Stretch(rtt)
		}
	}
	if yes := c.link.est.Steady(); yes != c.steady {
		c.steady = yes
		if t, ok := c.carrier.(Steadier); ok {
			t.Steady(yes)
		}
	}
	if yes := c.link.est.Leads(); yes != c.leads {
		c.leads = yes
		if t, ok := c.carrier.(Leader); ok {
			t.Lead(yes)
		}
	}
	if yes := c.link.est.Volleys(); yes != c.volleys {
		c.volleys = yes
		if t, ok := c.carrier.(Volleyer); ok {
			t.Volley(yes)
		}
	}
	if yes := c.link.est.Bunches(); yes != c.bursts {
		c.bursts = yes
		if t, ok := c.carrier.(Burster); ok {
			t.Burst(yes)
		}
	}
	want := c.link.est.Pace()
	if want > c.paced*0.95 && want < c.paced*1.05 || want == c.paced {
		return
	}
	c.paced = want
	c.carrier.Pace(want)
}

// flush hands what is filled to the writers.
func (c *conn) flush() {
	for _, st := range c.strands {
		st.flush()
	}
}

// discard releases the bodies of batches that were never written.
func (c *conn) discard() {
	for _, st := range c.strands {
		st.discard()
	}
}

// asking reports whether nothing but probes waits for an answer.
func (c *conn) asking() bool {
	for _, st := range c.strands {
		if st.log.n > st.log.probes {
			return false
		}
	}
	return true
}

// evidence is what health judges by.
func (c *conn) evidence() scheduler.Evidence {
	if c == nil || c.closed {
		return scheduler.Evidence{}
	}
	return scheduler.Evidence{Connected: true, Heard: c.heard, Oldest: c.oldest(), LastProbe: c.probed, Arrived: c.arrived()}
}
