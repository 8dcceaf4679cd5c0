package split

import (
	"errors"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/guard"
	"hawser/pkg/party"
)

// TestForgottenWhileItComesUp: the guard forgets a flow - another client gets its
// place, or its own begins anew - while another goroutine finishes the stack's
// handshake. Whichever is first, nobody keeps the connection: the stack resets it,
// its owner hears of it, and it is counted no longer.
func TestForgottenWhileItComesUp(t *testing.T) {
	for name, upFirst := range map[string]bool{
		"it is up when the guard ends it":    true,
		"it comes up when that has ended it": false,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLockSeeker(t)
			k := l.s.keeper
			c := l.flow()
			ep := newSeekerEndpoint(l)
			k.mu.Lock()
			c.ward.flow.Join(1 << 10)
			k.remove(c.ward)
			k.mu.Unlock()
			// The two have seen each other's state of before: what follows is the
			// last thing that each does.
			if upFirst {
				k.establish(c.ward, ep, nil)
				c.fail()
			} else {
				c.fail()
				k.establish(c.ward, ep, nil)
			}
			if ep.state != tcp.StateError {
				t.Errorf("the stack's endpoint is %v", ep.state)
			}
			if !upFirst && !errors.Is(c.early(party.Readable), party.ErrReset) || !c.broken() {
				t.Error("the owner's connection is not broken")
			}
			if l.told["notify"] == 0 {
				t.Error("the owner was not told")
			}
			c.Abort()
			if n := l.s.growth.conns.Load(); n != 0 {
				t.Errorf("%d connections are counted", n)
			}
		})
	}
}

// TestNoRoomInTheStackIsTold: where the stack does not come to have a connection, its client
// is told, once: it may wait for its server to speak.
func TestNoRoomInTheStackIsTold(t *testing.T) {
	for name, strict := range map[string]bool{"accepted by the guard": false, "by the stack": true} {
		t.Run(name, func(t *testing.T) {
			l := newLockSeeker(t)
			c := l.flow()
			if c.ward.strict = strict; strict {
				c.ward.flow = guard.NewAsked(c.ward.flow.Hello)
			}
			c.Open(-1) // the stack is asked
			e := &c.ward.ends
			client, server := clientOf(e), serverOf(e)
			l.s.refuse(stack.TransportEndpointID{
				LocalPort: server.Port(), LocalAddress: address(server.Addr()), RemotePort: client.Port(), RemoteAddress: address(client.Addr()),
			})
			l.s.out.queue = nil
			c.Abort()
			c.Abort()
			resets := 0
			for _, pkt := range l.s.out.queue {
				ip := header.IPv4(pkt.ToView().AsSlice()[etherLen:])
				to, _ := netip.AddrFromSlice(ip.DestinationAddressSlice())
				if h := header.TCP(ip[header.IPv4MinimumSize:]); h.Flags() == header.TCPFlagRst|header.TCPFlagAck && to == client.Addr() {
					resets++
				}
			}
			if want := map[bool]int{false: 1}[strict]; resets != want {
				t.Errorf("the client has %d resets, want %d", resets, want)
			}
			if n := len(l.s.keeper.flows); n != 0 {
				t.Errorf("%d flows are kept", n)
			}
		})
	}
}
