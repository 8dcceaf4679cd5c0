package link

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"hawser/pkg/nonblock"
)

// Transport is what carries a connection.
type Transport string

// Transports. Auto is no transport but a choice: both are raced, TCP with a head
// start, and the other way round after QUIC was the last to succeed.
const (
	TCP  Transport = "tcp"
	QUIC Transport = "quic"
	Auto Transport = "auto"
)

// Info describes a connection; it does not change during its life.
type Info struct {
	Transport  Transport
	Local      netip.AddrPort
	Remote     netip.AddrPort
	Link       string   // the link's name in the edge's configuration
	Index      uint16   // its index there
	Peer       string   // name of the cloud, or of the edge
	PeerKey    [32]byte // the peer's authenticated public key
	Version    uint16   // of the protocol
	Session    [16]byte
	Resumed    bool   // the connection joined a session that existed
	Congestion string // congestion control in use
	Suite      string // cipher suite of the handshake
	Offload    bool   // QUIC: the socket takes segments in batches (UDP_SEGMENT)
}

// Stats is a sample of a connection's figures. Those that a transport does
// not know are zero.
type Stats struct {
	RTT          time.Duration // smoothed
	RTTVar       time.Duration // its mean deviation
	MinRTT       time.Duration
	Window       int64   // congestion window, bytes
	InFlight     int64   // sent and not acknowledged, bytes
	NotSent      int64   // in the kernel's queue and never sent, bytes (TCP)
	DeliveryRate int64   // bytes per second as last measured by the congestion control
	AppLimited   bool    // DeliveryRate was measured while there was too little to send
	Lost         uint64  // TCP: segments sent again; QUIC: packets declared lost
	PacketsIn    uint64  // packets received, acknowledgements included: changes while the path lives
	DataIn       uint64  // TCP: of these, those with data
	Reordered    uint64  // TCP: of these, those that came after a gap: one before them is lost, most often
	Delivered    uint64  // grows with everything sent that the peer acknowledges, in order or not
	Whole        uint64  // QUIC: of the packets that the peer's end has, those that were as large as they may be
	Arrived      uint64  // TCP: bytes of the stream that the peer's end has in order
	Ahead        int64   // TCP: bytes that it has beyond a gap, about
	Due          bool    // TCP: the congestion control will soon measure the least round trip in a way that costs more than to let the queue drain for a moment
	Carries      float64 // QUIC: what the path carries by its last volleys, bytes per second
	Volleys      uint64  // QUIC: times that this was measured
	Acked        uint64  // bytes that the peer's end has, in order or not; QUIC: with its headers

	RecordsIn, RecordsOut uint64
	BytesIn, BytesOut     uint64 // of whole records, as on the wire
}

// Counters counts how connections ended badly. One may serve many listeners,
// dialers and connections; its fields are safe for concurrent use.
type Counters struct {
	Tampered   atomic.Uint64 // ended by ErrTampered
	Oversize   atomic.Uint64 // ended by ErrRecord
	Truncated  atomic.Uint64 // ended by ErrTruncated
	Handshakes atomic.Uint64 // admitted by a listener
	Failed     atomic.Uint64 // failed at a listener before they were admitted
	Refused    atomic.Uint64 // refused by the Admitter or for their version
	Crowded    atomic.Uint64 // closed at once: too many handshakes under way
}

// pipe is the transport under a connection, and its first duct, which carries the
// handshake and the bulk strand.
type pipe interface {
	duct
	// urgent opens the duct of an urgent strand, which waits for nothing that others
	// carry; nil where the transport has none. Both ends call it as often: not, once,
	// or twice.
	urgent() (duct, error)
	// close ends both directions at once and gives everything back. The reason
	// is told to the peer where the transport can.
	close(reason error)
	// pace limits the rate of sending, in bytes per second; 0 = no limit.
	pace(rate float64)
	// urge has the congestion control look for more, as at the start.
	urge()
	stretch(rtt time.Duration)
	// steady tells the congestion control whether the path is steady.
	steady(yes bool)
	// lead tells the congestion control whether the rate of pace is the one to send at.
	lead(yes bool)
	// volley tells it whether to send several packets at a time, at the same mean rate.
	volley(yes bool)
	// burst tells it whether it may send faster than pace says, within its window.
	burst(yes bool)
	// sample enters the transport's figures.
	sample(*Stats)
	// describe enters what the transport knows.
	describe(*Info)
}

// Sender's memory.
const (
	arenaSize  = 16 << 10 // sealed headers of one write, bytes
	maxVectors = nonblock.MaxVectors
)

// Conn is one established connection of a link. It is its own bulk strand, and
// may have an urgent one beside. Everything but the strands' methods may be
// called from anywhere.
type Conn struct {
	Strand
	pipe     pipe
	urgent   *Strand // nil: there is none
	twin     *Strand // a second one; nil: there is none
	berth    *berth  // of urgent connections beside this one; nil: there are none
	info     Info
	counters *Counters

	twinBerth *berth // of their twins; nil: there are none

	ended      atomic.Pointer[error]
	recordsIn  atomic.Uint64
	recordsOut atomic.Uint64
	bytesIn    atomic.Uint64
	bytesOut   atomic.Uint64
}

// keys are the two directions' protection of a strand as one end sees it.
type keys struct{ out, in *sealer }

// newConn makes a connection with a bulk strand, and an urgent one unless its
// keys are nil or the transport has none.
func newConn(p pipe, k keys, urgent *keys, info Info, counters *Counters) (*Conn, error) {
	p.describe(&info)
	c := &Conn{pipe: p, info: info, counters: counters}
	c.init(c, p, k)
	if urgent == nil {
		return c, nil
	}
	var err error
	c.urgent, err = c.beside(urgent)
	return c, err
}

// beside makes another strand of the transport's; nil where it has none.
func (c *Conn) beside(k *keys) (*Strand, error) {
	d, err := c.pipe.urgent()
	if d == nil || err != nil {
		return nil, err
	}
	s := new(Strand)
	s.init(c, d, *k)
	return s, nil
}

// Urgent returns the strand whose records wait for none of the bulk strand's,
// or nil: the transport has none, or the peer is too old for it.
func (c *Conn) Urgent() *Strand { return c.urgent }

// Twin returns the urgent strand's twin, whose records wait for none of either, or nil:
// as Urgent.
func (c *Conn) Twin() *Strand { return c.twin }

// Info describes the connection.
func (c *Conn) Info() Info { return c.info }

// CloseWrite tells the peer that nothing follows what was sent; its Receive
// returns ErrPeerClosed after the last record. Receiving goes on here. It must
// not be called while Send runs.
func (c *Conn) CloseWrite() error {
	for _, s := range []*Strand{c.urgent, c.twin} {
		if s == nil {
			continue
		}
		if err := s.duct.closeWrite(); err != nil {
			return err
		}
	}
	return c.pipe.closeWrite()
}

// Close ends the connection at once. Send and Receive return an error that
// wraps ErrClosed and err; err may be nil. Only the first end of a connection
// counts, so Close may be called at any time, again and again.
func (c *Conn) Close(err error) {
	if err == nil || errors.Is(err, ErrClosed) {
		c.finish(ErrClosed)
		return
	}
	c.finish(fmt.Errorf("%w: %w", ErrClosed, err))
}

// Pace asks the transport not to send faster than rate bytes per second, also
// in bursts; 0 lifts the limit.
func (c *Conn) Pace(rate float64) { c.pipe.pace(rate) }

// Urge asks the transport's congestion control to look for more than it lets
// pass, as at the start of a connection. It must have a reason: the path is not
// full.
func (c *Conn) Urge() { c.pipe.urge() }

// Stretch tells the congestion control that the path has become longer: with little under way
// a round trip takes so long now. The kernel's finds that out by itself.
func (c *Conn) Stretch(rtt time.Duration) { c.pipe.stretch(rtt) }

// Steady tells the transport's congestion control whether the path is steady: its
// round trips and its rate do not vary by themselves. QUIC's own takes it at first
// that it is not; the kernel's makes nothing of it.
func (c *Conn) Steady(yes bool) { c.pipe.steady(yes) }

// Lead tells the transport whether the rate that Pace asks for is the one to send at, and
// not only the most: the caller follows a path whose rate changes. QUIC's own congestion
// control does so within its window; the kernel's makes nothing of it.
func (c *Conn) Lead(yes bool) { c.pipe.lead(yes) }

// Volley tells the transport whether to send several packets at a time, at the same rate
// in the mean: how far apart they arrive is what the path carries, while what is delivered
// is no more than what is sent. QUIC's own congestion control does so, and takes a path
// that carries much more for one that does; the kernel's makes nothing of it.
func (c *Conn) Volley(yes bool) { c.pipe.volley(yes) }

// Burst tells the transport whether it may send faster than Pace asks for, as its own
// congestion control lets it: the path delivers in bunches. The kernel's does so; QUIC's
// own does not, as its bursts made queues of 0.2 s and stalls of seconds.
func (c *Conn) Burst(yes bool) { c.pipe.burst(yes) }

// Stats samples the connection's figures. It costs one system call on TCP.
func (c *Conn) Stats() Stats {
	s := Stats{
		RecordsIn: c.recordsIn.Load(), RecordsOut: c.recordsOut.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
	}
	c.pipe.sample(&s)
	return s
}

// end ends the connection if err says that an operation failed, and returns
// the reason for which the connection ended.
func (c *Conn) end(operation string, err error) error {
	if err == nil {
		return nil
	}
	if c.finish(fmt.Errorf("%s: %w", operation, plainError(err))) {
		c.counters.count(err)
	}
	return c.cause()
}

// finish records why the connection ended and closes it. Only the first call
// does, and returns true.
func (c *Conn) finish(reason error) bool {
	named := fmt.Errorf("%s: %w", label(c.info.Link, c.info.Peer, c.info.Transport, c.info.Remote), reason)
	if !c.ended.CompareAndSwap(nil, &named) {
		return false
	}
	c.pipe.close(reason)
	if c.berth != nil {
		c.berth.close()
	}
	if c.twinBerth != nil {
		c.twinBerth.close()
	}
	return true
}

// cause returns why the connection has ended, nil while it lives.
func (c *Conn) cause() error {
	if p := c.ended.Load(); p != nil {
		return *p
	}
	return nil
}

func (n *Counters) count(reason error) {
	switch {
	case errors.Is(reason, ErrTampered):
		n.Tampered.Add(1)
	case errors.Is(reason, ErrRecord):
		n.Oversize.Add(1)
	case errors.Is(reason, ErrTruncated):
		n.Truncated.Add(1)
	}
}
