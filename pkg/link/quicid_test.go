package link

import (
	"context"
	"net"
	"sync"
	"testing"
)

// sniffed keeps the first datagram that comes.
type sniffed struct {
	net.PacketConn
	mu    sync.Mutex
	first []byte
}

func (s *sniffed) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.first == nil {
		s.first = append([]byte{}, p[:n]...)
	}
	return n, from, err
}

// TestNoConnectionID: packets to the edge carry no connection ID, as the first one
// shows, whose header says how long that is (RFC 9000 section 17.2).
func TestNoConnectionID(t *testing.T) {
	c := startCloud(t, loopback, nil)
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sniffed{PacketConn: udp}
	edge, _, err := c.dialer(QUIC, func(o *DialerOptions) {
		o.packets = func(context.Context) (net.PacketConn, error) { return s, nil }
	}).Dial(context.Background(), sampleHello())
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close(nil)
	defer (<-c.conns).Close(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	const long, at = 0x80, 5
	if len(s.first) <= at || s.first[0]&long == 0 {
		t.Fatalf("%d bytes came first, with no long header", len(s.first))
	}
	if n := s.first[at]; n != 0 {
		t.Errorf("the ID takes %d bytes of a packet", n)
	}
}
