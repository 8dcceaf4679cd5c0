package split

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// shutStale is after how long without a segment from us a shut window is
	// forgotten. A party probes it at least every two minutes.
	shutStale = 10 * time.Minute
	// shutSweep is how many shut windows there must be to look for stale ones.
	shutSweep = 1024
	// shutSilence is for how long at most no question is answered: a party that has no more
	// to send may ask so whether the other end lives.
	shutSilence = 2 * time.Second
)

// shutWindows lets netstack hear acknowledgements while its receive window is
// shut.
//
// netstack rounds a window down when it scales it, so that one of less than a
// unit becomes zero, although the party was told a right edge beyond that
// before and may have sent up to it. (Linux rounds up in that case, see
// tcp_select_window.) From then on all of the party's segments carry a sequence
// number that netstack refuses, and it ignores their acknowledgements: a party
// whose upload waits for credit would stop its download as well, and a flow
// whose directions wait for each other would stop for good.
//
// So while a window is shut, the acknowledgement of a segment that lies
// slightly beyond it is delivered a second time, as a segment of its own with
// the sequence number that netstack expects. The segment itself comes after
// it; netstack refuses and answers it as before.
//
// A party asks whether a shut window is still shut, the kernel's from 200 ms on four times
// in 4 s, and netstack answers. Where there are many that is most of what goes through the
// hub; then netstack does not hear of it before a pause (lullPause, shutSilence) has passed since
// it last said so: it says by itself when the window opens.
type shutWindows struct {
	// gap is the largest window, as it is sent, that a whole segment has no room in.
	gap uint16
	// slack is how far beyond a shut window a party may have sent, in bytes:
	// less than the unit of our windows (RFC 7323 section 2.3).
	slack seqnum.Size
	count atomic.Int32 // of flows: a look without the lock

	mu    sync.Mutex
	flows map[stack.TransportEndpointID]shutWindow
}

// shutWindow is one flow's. It may be ajar: too small for a whole segment.
type shutWindow struct {
	next seqnum.Value // the sequence number that netstack expects
	ajar bool
	seen time.Time
}

// outbound notes whether a packet of netstack's shuts or opens a window.
func (s *shutWindows) outbound(pkt *stack.PacketBuffer) {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize {
		return
	}
	shuts := h.WindowSize() <= s.gap && !h.Flags().Intersects(header.TCPFlagSyn|header.TCPFlagRst)
	if !shuts && s.count.Load() == 0 {
		return
	}
	id := stack.TransportEndpointID{LocalPort: h.SourcePort(), RemotePort: h.DestinationPort()}
	id.LocalAddress, id.RemoteAddress = addresses(pkt.NetworkProtocolNumber, pkt.NetworkHeader().Slice())
	s.note(id, shuts, shutWindow{next: seqnum.Value(h.AckNumber()), ajar: h.WindowSize() > 0})
}

// note keeps or forgets one flow's window.
func (s *shutWindows) note(id stack.TransportEndpointID, shuts bool, w shutWindow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !shuts {
		delete(s.flows, id)
	} else {
		if s.flows == nil {
			s.flows = make(map[stack.TransportEndpointID]shutWindow)
		}
		now := time.Now()
		if len(s.flows) >= shutSweep && len(s.flows)&(len(s.flows)-1) == 0 {
			s.sweep(now)
		}
		w.seen = now
		s.flows[id] = w
	}
	s.count.Store(int32(len(s.flows)))
}

// forget forgets one flow's window, if it is known: its connection has been given up.
func (s *shutWindows) forget(c *Conn) {
	if s.count.Load() > 0 {
		s.note(c.id(), false, shutWindow{})
	}
}

// waits says that a party has been told of no window that it could send a segment in.
func (s *shutWindows) waits(id stack.TransportEndpointID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, waits := s.flows[id]
	return waits
}

// sweep forgets stale windows: flows may end without a word.
func (s *shutWindows) sweep(now time.Time) {
	for id, w := range s.flows {
		if now.Sub(w.seen) > shutStale {
			delete(s.flows, id)
		}
	}
}

// inbound returns the headers of the extra segment for the packet p, which
// begins with ip; nil if it needs none, as nearly always. idle says that netstack need not
// hear of p at all.
func (s *shutWindows) inbound(p packet, ip []byte) (extra []byte, idle bool) {
	n := s.count.Load()
	if n == 0 || p.transport != uint8(header.TCPProtocolNumber) || p.start+header.TCPMinimumSize > len(ip) {
		return nil, false
	}
	h := header.TCP(ip[p.start:])
	end := p.start + int(h.DataOffset())
	if h.Flags().Contains(header.TCPFlagSyn) || end < p.start+header.TCPMinimumSize || end > min(len(ip), p.end) {
		return nil, false
	}
	id := stack.TransportEndpointID{LocalPort: h.DestinationPort(), RemotePort: h.SourcePort()}
	id.RemoteAddress, id.LocalAddress = addresses(p.network, ip)
	s.mu.Lock()
	w, shut := s.flows[id]
	s.mu.Unlock()
	shut = shut && !w.ajar
	seq := seqnum.Value(h.SequenceNumber())
	if shut && seq == w.next-1 && p.end-end <= 1 && h.Flags()&^header.TCPFlagPsh == header.TCPFlagAck {
		return nil, time.Since(w.seen) < min(lullPause(n), shutSilence)
	}
	beyond := w.next.Size(seq)
	if !shut || beyond > s.slack || beyond == 0 && end == p.end && !h.Flags().Contains(header.TCPFlagFin) {
		return nil, false // what lies at the edge and has no length is accepted
	}
	return acknowledgement(p, ip[:end], w.next), false
}

// acknowledgement returns a copy of headers as those of a segment without
// payload at seq. Checksums are not set: they have been verified.
func acknowledgement(p packet, headers []byte, seq seqnum.Value) []byte {
	c := append(make([]byte, 0, len(headers)), headers...)
	h := header.TCP(c[p.start:])
	h.SetSequenceNumber(uint32(seq))
	h.SetFlags(uint8(h.Flags() &^ header.TCPFlagFin))
	if p.network == header.IPv4ProtocolNumber {
		header.IPv4(c).SetTotalLength(uint16(len(c)))
	} else {
		header.IPv6(c).SetPayloadLength(uint16(len(c) - header.IPv6MinimumSize))
	}
	return c
}

// addresses returns the source and destination of an IP header.
func addresses(network tcpip.NetworkProtocolNumber, ip []byte) (src, dst tcpip.Address) {
	if network == header.IPv4ProtocolNumber {
		h := header.IPv4(ip)
		return h.SourceAddress(), h.DestinationAddress()
	}
	h := header.IPv6(ip)
	return h.SourceAddress(), h.DestinationAddress()
}
