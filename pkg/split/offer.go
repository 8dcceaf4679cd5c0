package split

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
	"hawser/pkg/party"
	"hawser/pkg/slim"
)

// offers notes the window with which a server answers a dial: netstack keeps
// it to itself, and the edge tells its client no more than that at first. It also sees to
// it that the server's segments are not too small (guard.LeastMSS): of the least that
// netstack believes it leaves 8 bytes for payload.
type offers struct {
	count atomic.Int32 // of dials under way: a look without the lock

	mu    sync.Mutex
	dials map[stack.TransportEndpointID]*Conn
	peak  slim.Peak
}

// await begins to look for the answer to c's dial, until forget.
func (o *offers) await(c *Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dials == nil {
		o.dials = map[stack.TransportEndpointID]*Conn{}
	}
	o.dials[c.id()] = c
	o.count.Store(int32(len(o.dials)))
}

// forget ends what await began; more than once is harmless.
func (o *offers) forget(c *Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dials[c.id()] == c {
		delete(o.dials, c.id())
		o.dials = slim.Map(o.dials, &o.peak)
		o.count.Store(int32(len(o.dials)))
	}
}

// inbound looks at a received packet that begins with ip.
func (o *offers) inbound(p packet, ip []byte) {
	if o.count.Load() == 0 || p.transport != uint8(header.TCPProtocolNumber) || p.start+header.TCPMinimumSize > len(ip) {
		return
	}
	h := header.TCP(ip[p.start:])
	const which = header.TCPFlagSyn | header.TCPFlagAck | header.TCPFlagRst
	if h.Flags()&which != header.TCPFlagSyn|header.TCPFlagAck {
		return
	}
	id := stack.TransportEndpointID{LocalPort: h.DestinationPort(), RemotePort: h.SourcePort()}
	id.RemoteAddress, id.LocalAddress = addresses(p.network, ip)
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.dials[id]; c != nil {
		c.offered.Store(uint32(h.WindowSize())) // those of SYN-ACKs are not scaled
		raiseMSS(h)
	}
}

// raiseMSS raises what a SYN-ACK says to the least that is believed. Its checksum has been
// verified before.
func raiseMSS(h header.TCP) {
	eachOption(h, func(kind byte, from, to int) {
		if kind == header.TCPOptionMSS && to-from == header.TCPOptionMSSLength {
			mss := h[from+2 : to]
			binary.BigEndian.PutUint16(mss, max(binary.BigEndian.Uint16(mss), guard.LeastMSS))
		}
	})
}

// id is the connection as netstack names it.
func (c *Conn) id() stack.TransportEndpointID {
	local, remote := c.Local(), c.Remote()
	return stack.TransportEndpointID{
		LocalPort: local.Port(), LocalAddress: address(local.Addr()),
		RemotePort: remote.Port(), RemoteAddress: address(remote.Addr()),
	}
}

// Offered implements party.Offerer.
func (c *Conn) Offered() int { return int(c.offered.Load()) }

var _ party.Offerer = (*Conn)(nil)
