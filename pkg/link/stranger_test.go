package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
)

// TestStrangersWindow: who has shown any key and says no HELLO makes a cloud keep little.
func TestStrangersWindow(t *testing.T) {
	c := startCloud(t, loopback, nil)
	fill := func() (n int) {
		t.Helper()
		own, err := openQUIC(context.Background(), "udp4", ":0", socket{})
		if err != nil {
			t.Fatal(err)
		}
		defer own.close()
		v := &verdict{peerKey: readKey}
		conn, err := own.transport.Dial(context.Background(), net.UDPAddrFromAddrPort(c.listener.Addr()), v.config(newParty(t).cert), quicConfig())
		if err != nil {
			t.Fatal(err)
		}
		for range quicUrgents {
			stream, err := conn.OpenUniStreamSync(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for p := make([]byte, 1<<10); ; n += len(p) {
				if err = stream.TryWriteAll(p); err != nil {
					break
				}
			}
			if !errors.Is(err, errWouldBlock) {
				t.Fatal(err)
			}
		}
		return n
	}
	if n := fill(); n > quicFirst+quicFirstUrgent {
		t.Errorf("a stranger is kept %d bytes", n)
	}
	var shaking int
	for i := range byte(quicFew + 1) {
		if p := c.listener.places.Enter(netip.AddrFrom4([4]byte{198, 18, 0, i}), func() {}); p != nil {
			shaking++
			defer p.Leave()
		}
	}
	if n := fill(); n > (quicFirst+quicFirstUrgent)/8 {
		t.Errorf("beside %d handshakes a stranger is kept %d bytes", shaking, n)
	}
}
