package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/apernet/quic-go"
)

// stranger is a connection whose end has a key that the cloud does not know. Close its socket.
func (c *cloud) stranger() (*quic.Conn, *quicSocket) {
	c.t.Helper()
	own, err := openQUIC(context.Background(), "udp4", ":0", socket{})
	if err != nil {
		c.t.Fatal(err)
	}
	v := &verdict{peerKey: readKey}
	conn, err := own.transport.Dial(context.Background(), net.UDPAddrFromAddrPort(c.listener.Addr()), v.config(newParty(c.t).cert), quicConfig())
	if err != nil {
		own.close()
		c.t.Fatal(err)
	}
	return conn, own
}

// TestStrangersHeap: a stranger that sends on what nobody reads is ended, within its window:
// what comes in frames of a byte takes 200 times as much as windows count.
func TestStrangersHeap(t *testing.T) {
	c := startCloud(t, loopback, nil)
	conn, own := c.stranger()
	defer own.close()
	stream, err := conn.OpenUniStreamSync(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= strangerMost && err == nil; n += 1 << 10 {
		_, err = stream.Write(make([]byte, 1<<10))
	}
	select {
	case f := <-c.failures:
		if !errors.Is(f, errHeaps) {
			t.Errorf("it ended with %v", f)
		}
	case <-time.After(ample):
		t.Error("it goes on")
	}
}

// TestStrangersWindow: who has shown any key and says no HELLO makes a cloud keep little.
func TestStrangersWindow(t *testing.T) {
	c := startCloud(t, loopback, nil)
	fill := func() (n int) {
		t.Helper()
		conn, own := c.stranger()
		defer own.close()
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
				if app := new(quic.ApplicationError); errors.As(err, &app) && app.Remote {
					return n // it was ended for that
				}
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
