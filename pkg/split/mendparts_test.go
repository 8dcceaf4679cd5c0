package split

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
)

// TestMendShares: a client that acknowledges beyond gaps and never closes them has a part of
// what may be owed, and of the flows that are mended; another's losses are mended beside it.
func TestMendShares(t *testing.T) {
	m := &mender{
		count: &counters{}, peers: newPeers(), flows: map[guard.Ends]*mended{},
		scale: func(*guard.Ends) (uint8, bool) { return 14, true },
		send:  func(pkt *stack.PacketBuffer) { pkt.DecRef() }, waiting: func() int { return 0 },
	}
	hear := func(client byte, port uint16, ack uint32, blocks ...uint32) (told uint32) {
		tcp := tcpHeader(ack, 60000, sackOption(blocks...))
		s := inboundSegment(tcp)
		s.ip[15] = client
		s.tcp().SetSourcePort(port)
		s.tcp().SetSequenceNumber(500)
		m.inbound(&s)
		return s.tcp().AckNumber()
	}
	send := func(client byte, port uint16, seq uint32, n int) {
		pkt := netstackPacket(false, true, seq, make([]byte, n))
		defer pkt.DecRef()
		pkt.NetworkHeader().Slice()[19] = client
		header.TCP(pkt.TransportHeader().Slice()).SetDestinationPort(port)
		m.outbound(pkt)
	}
	const liar, other, piece = 2, 3, 60000
	for _, client := range []byte{liar, other} {
		hear(client, 1, 1, 3001, 5001) // the client's first gap is netstack's
	}
	for port := range uint16(5) {
		next := uint32(1)
		for range mendCredit/piece + 1 {
			send(liar, port, next, piece)
			next += piece
		}
		hear(liar, port, 1, 1001, next)
	}
	if _, debt := m.held(); debt < mendBudget*7/10 || debt > mendBudget*3/4 {
		t.Errorf("%d bytes of %d are owed to one client", debt, mendBudget)
	}
	send(other, 1, 1, 5000)
	if told := hear(other, 1, 1, 3001, 5001); told != 5001 {
		t.Errorf("another's gap is not mended: told %d", told)
	}
	for port := range uint16(mendFlows) {
		send(liar, 100+port, 1, 10)
	}
	send(other, 2, 1, 5000)
	if told := hear(other, 2, 1, 3001, 5001); told != 5001 {
		t.Errorf("beside %d flows of one client another's is not mended", len(m.flows))
	}
	if m.close(); len(m.flows) != 0 || m.debt != 0 || len(m.parts) != 0 {
		t.Errorf("%d flows, %d bytes, %d clients are left", len(m.flows), m.debt, len(m.parts))
	}
}
