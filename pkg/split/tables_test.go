package split

import (
	"runtime"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	nsports "gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// TestTablesShrink: netstack's tables keep nothing of a crowd that has left, and what
// is still in them works.
func TestTablesShrink(t *testing.T) {
	const crowd, stay = 20_000, 10
	tab := newTables()
	if tab == nil {
		t.Fatal("this netstack has not what is to be shrunk")
	}
	ns := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	defer ns.Close()
	ep, err := ns.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &waiter.Queue{})
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Abort()
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	one := ep.(stack.TransportEndpoint)
	protos := []tcpip.NetworkProtocolNumber{header.IPv4ProtocolNumber}
	id := func(i int) stack.TransportEndpointID {
		return stack.TransportEndpointID{LocalPort: uint16(i), RemotePort: uint16(i), RemoteAddress: tcpip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
	}
	join := func(from, to int) {
		for i := from; i < to; i++ {
			if err := ns.RegisterTransportEndpoint(protos, tcp.ProtocolNumber, id(i), one, nsports.Flags{}, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := heap()
	join(1, crowd)
	if tab.shrink(ns, crowd) {
		t.Error("a table in use was copied")
	}
	for i := stay; i < crowd; i++ {
		ns.UnregisterTransportEndpoint(protos, tcp.ProtocolNumber, id(i), one, nsports.Flags{}, 0)
	}
	kept := heap() - before
	if !tab.shrink(ns, crowd) {
		t.Error("a table that has emptied was not copied")
	}
	left := heap() - before
	t.Logf("%d bytes were kept, %d are left", kept, left)
	if left > kept/4 {
		t.Errorf("%d bytes of %d are left", left, kept)
	}
	if n := len(ns.RegisteredEndpoints()); n != stay-1 {
		t.Errorf("%d connections are left, want %d", n, stay-1)
	}
	join(stay, stay+5)
	for i := 1; i < stay+5; i++ {
		ns.UnregisterTransportEndpoint(protos, tcp.ProtocolNumber, id(i), one, nsports.Flags{}, 0)
	}
	if n := len(ns.RegisteredEndpoints()); n != 0 {
		t.Errorf("%d connections are left, want none", n)
	}
}
