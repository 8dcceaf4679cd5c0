package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"hawser/pkg/nonblock"
	"hawser/pkg/wire"
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
	Window       int64  // congestion window, bytes
	InFlight     int64  // sent and not acknowledged, bytes
	NotSent      int64  // in the kernel's queue and never sent, bytes (TCP)
	DeliveryRate int64  // bytes per second as last measured by the congestion control
	AppLimited   bool   // DeliveryRate was measured while there was too little to send
	Lost         uint64 // TCP: segments sent again; QUIC: packets declared lost
	PacketsIn    uint64 // packets received, acknowledgements included: changes while the path lives
	Delivered    uint64 // grows with everything sent that the peer acknowledges, in order or not
	Arrived      uint64 // TCP: bytes of the stream that the peer's end has in order
	Ahead        int64  // TCP: bytes that it has beyond a gap, about
	Acked        uint64 // bytes that the peer's end has, in order or not; QUIC: with its headers

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

// pipe is the byte stream under a connection. writev and readv are each called
// by one goroutine at a time, the rest by any.
type pipe interface {
	source
	// writev writes all of bufs and returns when the transport has taken the
	// last byte, but for what fits one packet. It may overwrite the elements
	// of bufs, not their bytes.
	writev(bufs [][]byte) error
	// tryWritev writes what the transport takes without blocking and returns how
	// many bytes that was. It leaves bufs as it is.
	tryWritev(bufs [][]byte) (int, error)
	// closeWrite ends the stream towards the peer after what was written.
	closeWrite() error
	// close ends both directions at once and gives everything back. The reason
	// is told to the peer where the transport can.
	close(reason error)
	// pace limits the rate of sending, in bytes per second; 0 = no limit.
	pace(rate float64)
	// urge has the congestion control look for more, as at the start.
	urge()
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

// Conn is one established connection of a link. Send belongs to one goroutine
// at a time, and so does Receive with Buffered; everything else may be called
// from anywhere.
type Conn struct {
	pipe     pipe
	info     Info
	counters *Counters

	// Send's goroutine only.
	seal  *sealer
	arena []byte
	vec   [][]byte
	begun bool // vec holds what TrySend has left

	// Receive's goroutine only.
	in *recordReader

	ended      atomic.Pointer[error]
	recordsIn  atomic.Uint64
	recordsOut atomic.Uint64
	bytesIn    atomic.Uint64
	bytesOut   atomic.Uint64
}

// keys are the two directions' protection as one end sees it.
type keys struct{ out, in *sealer }

func newConn(p pipe, k keys, info Info, counters *Counters) *Conn {
	p.describe(&info)
	return &Conn{
		pipe: p, info: info, counters: counters,
		seal: k.out, arena: make([]byte, 0, arenaSize), vec: make([][]byte, 0, 64),
		in: newRecordReader(p, k.in),
	}
}

// Info describes the connection.
func (c *Conn) Info() Info { return c.info }

// Send writes a batch of records with as few system calls as possible and
// returns when the transport has taken all of it. While the link is full that
// takes as long as the link needs: returning is the signal that there is room.
// A Block has 1 to wire.MaxBlock bytes and stays the caller's; a Body has at
// most wire.MaxBody bytes and is released and cleared, also on error. After an
// error the connection has ended.
func (c *Conn) Send(batch []wire.Record) error {
	err := c.cause()
	if err == nil {
		err = c.end("send", c.write(batch))
	}
	release(batch)
	return err
}

// TrySend is Send without blocking. If the transport does not take all of the
// batch at once it returns false and keeps it: Resume, with the same batch,
// must be the next call. A batch of which not even the headers fit one write is
// not begun.
func (c *Conn) TrySend(batch []wire.Record) (done bool, err error) {
	if err = c.cause(); err == nil {
		done, err = c.try(batch)
		err = c.end("send", err)
	}
	if done || err != nil {
		release(batch)
	}
	return done && err == nil, err
}

// Resume sends what TrySend has left and returns as Send does.
func (c *Conn) Resume(batch []wire.Record) error {
	if !c.begun {
		return c.Send(batch)
	}
	c.begun = false
	err := c.cause()
	if err == nil {
		err = c.end("send", c.flush())
	}
	release(batch)
	return err
}

// try does the work of TrySend.
func (c *Conn) try(batch []wire.Record) (done bool, err error) {
	size := 0
	for i := range batch {
		size += prefixSize + len(batch[i].Block) + tagSize
	}
	if size > cap(c.arena) || 2*len(batch) > maxVectors {
		return false, nil
	}
	if err := c.append(batch); err != nil {
		return false, err
	}
	n, err := c.pipe.tryWritev(c.vec)
	if err != nil {
		return false, err
	}
	if rest := consume(c.vec, n); len(rest) > 0 {
		left := copy(c.vec, rest)
		clear(c.vec[left:])
		c.vec, c.begun = c.vec[:left], true
		return false, nil
	}
	clear(c.vec)
	c.vec, c.arena = c.vec[:0], c.arena[:0]
	return true, nil
}

// release gives the bodies of a batch back.
func release(batch []wire.Record) {
	for i := range batch {
		batch[i].Body.Release()
		batch[i].Body = wire.Record{}.Body
	}
}

// write seals the headers into the arena and sends them with the bodies.
func (c *Conn) write(batch []wire.Record) error {
	if err := c.append(batch); err != nil {
		return err
	}
	return c.flush()
}

// append seals the headers into the arena and adds them and the bodies to what
// is to be written. It flushes when there is no room for more.
func (c *Conn) append(batch []wire.Record) error {
	var bytes, records uint64
	for i := range batch {
		rec := &batch[i]
		if len(rec.Block) == 0 || len(rec.Block) > wire.MaxBlock || rec.Body.Len() > wire.MaxBody {
			return fmt.Errorf("%w: block of %d, body of %d bytes to send", ErrRecord, len(rec.Block), rec.Body.Len())
		}
		size := prefixSize + len(rec.Block) + tagSize
		if len(c.arena)+size > cap(c.arena) || len(c.vec)+2 > maxVectors {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if err := c.appendHeader(rec); err != nil {
			return err
		}
		if rec.Body.Len() > 0 {
			c.vec = append(c.vec, rec.Body.P)
		}
		bytes += uint64(size + rec.Body.Len())
		records++
	}
	c.bytesOut.Add(bytes)
	c.recordsOut.Add(records)
	return nil
}

// appendHeader seals one header into the arena, which has room for it: the
// arena must not move while vec points into it.
func (c *Conn) appendHeader(rec *wire.Record) error {
	start := len(c.arena)
	c.arena = binary.BigEndian.AppendUint16(c.arena, uint16(len(rec.Block)+tagSize))
	c.arena = binary.BigEndian.AppendUint16(c.arena, uint16(rec.Body.Len()))
	var err error
	c.arena, err = c.seal.seal(c.arena, c.arena[start:], rec.Block)
	c.vec = append(c.vec, c.arena[start:])
	return err
}

func (c *Conn) flush() error {
	vec := c.vec
	c.vec, c.arena = c.vec[:0], c.arena[:0]
	if len(vec) == 0 {
		return nil
	}
	err := c.pipe.writev(vec)
	clear(vec) // no reference to a body outlives the call
	return err
}

// Receive returns the next record. Its Block is valid until the next call of
// Receive; its Body, contiguous in a slab of its own, passes to the caller.
// After an error the connection has ended. A receiver calls Receive until it
// returns an error: the partial record is given back then.
func (c *Conn) Receive() (wire.Record, error) {
	err := c.cause()
	if err == nil {
		_, err = c.in.ready(false)
		err = c.end("receive", err)
	}
	if err != nil {
		c.in.drop()
		return wire.Record{}, err
	}
	rec := c.in.take()
	c.recordsIn.Add(1)
	c.bytesIn.Add(uint64(prefixSize + len(rec.Block) + tagSize + rec.Body.Len()))
	return rec, nil
}

// Buffered says whether Receive would return at once. It reads what has
// arrived, and leaves the last record's Block as it is.
func (c *Conn) Buffered() bool {
	if c.cause() != nil {
		return true
	}
	done, _ := c.in.ready(true)
	return done
}

// CloseWrite tells the peer that nothing follows what was sent; its Receive
// returns ErrPeerClosed after the last record. Receiving goes on here. It must
// not be called while Send runs.
func (c *Conn) CloseWrite() error { return c.pipe.closeWrite() }

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
