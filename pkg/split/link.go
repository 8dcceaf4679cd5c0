package split

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// gsoMax is the longest frame that netstack hands down in one piece, in bytes;
// the kernel cuts it to segments. More needs BIG TCP, which receive slots have
// no room for.
const gsoMax = 64 << 10

// link is the hub's end inside the namespace as netstack's link endpoint. The
// hub is a wire between two interfaces whose addresses never change, so there
// is nothing to resolve: every frame goes from hub1's MAC to hub0's.
type link struct {
	mtu        uint32
	hub, host  tcpip.LinkAddress
	dispatcher stack.NetworkDispatcher
	out        *outbox
}

// The netstack interfaces that a link satisfies.
var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)

// MTU implements stack.NetworkLinkEndpoint.
func (l *link) MTU() uint32 { return l.mtu }

// SetMTU implements stack.NetworkLinkEndpoint; the hub's MTU is fixed.
func (l *link) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (l *link) MaxHeaderLength() uint16 { return etherLen }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *link) LinkAddress() tcpip.LinkAddress { return l.hub }

// SetLinkAddress implements stack.NetworkLinkEndpoint; the address is fixed.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint. The receiver verifies
// checksums itself, because only it knows which frames the kernel vouches for.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// Attach implements stack.NetworkLinkEndpoint. It starts nothing: Run owns the
// receive loop, and it starts after and ends before netstack's NIC.
func (l *link) Attach(d stack.NetworkDispatcher) { l.dispatcher = d }

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *link) IsAttached() bool { return l.dispatcher != nil }

// Wait implements stack.NetworkLinkEndpoint; the link has no goroutines.
func (l *link) Wait() {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(etherLen)).Encode(&header.EthernetFields{
		SrcAddr: l.hub,
		DstAddr: l.host,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(etherLen)
	return ok
}

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := l.out.WritePacket(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

// Close implements stack.NetworkLinkEndpoint; Run closes the socket.
func (l *link) Close() {}

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (l *link) SetOnCloseAction(func()) {}

// GSOMaxSize implements stack.GSOEndpoint.
func (l *link) GSOMaxSize() uint32 { return gsoMax }

// SupportedGSO implements stack.GSOEndpoint: the kernel cuts frames.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }
