package link

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/apernet/quic-go"

	"hawser/pkg/wire"
)

// TestOtherProgram: that another program listens where the cloud should is told from a path on
// which nothing passes, by either transport.
func TestOtherProgram(t *testing.T) {
	edge, web := newParty(t), newParty(t)
	config := &tls.Config{Certificates: []tls.Certificate{web.cert}, NextProtos: []string{"h2", "h3"}}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	secure, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	udp, err := quic.ListenAddr("127.0.0.1:0", config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	old, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	go says(plain, func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) })
	go says(secure, func(c net.Conn) { _ = c.(*tls.Conn).Handshake() })
	go negotiates(old)
	for name, c := range map[string]struct {
		at net.Addr
		by Transport
	}{"HTTP": {plain.Addr(), TCP}, "HTTPS": {secure.Addr(), TCP}, "HTTP/3": {udp.Addr(), QUIC}, "another QUIC": {old.LocalAddr(), QUIC}} {
		d, err := NewDialer(DialerOptions{Link: "lte", Remote: addrPort(c.at), Transport: c.by, Certificate: edge.cert, PeerKey: readKey})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Dial(context.Background(), wire.Hello{Session: [16]byte{9}}); !Other(err) {
			t.Errorf("%s: %v: wanted to be told that it is no cloud", name, err)
		}
	}
}

// says does something with each connection.
func says(l net.Listener, do func(net.Conn)) {
	for c, err := l.Accept(); err == nil; c, err = l.Accept() {
		do(c)
		_ = c.Close()
	}
}

// negotiates answers each packet by a version that nobody speaks (RFC 9000 section 17.2.1).
func negotiates(udp net.PacketConn) {
	b := make([]byte, 2048)
	for n, from, err := udp.ReadFrom(b); err == nil; n, from, err = udp.ReadFrom(b) {
		to := b[5:n]
		to, from2 := to[:1+to[0]], to[1+to[0]:]
		answer := append([]byte{0xc0, 0, 0, 0, 0}, from2[:1+from2[0]]...)
		_, _ = udp.WriteTo(append(append(answer, to...), 0xba, 0xba, 0xba, 0xba), from)
	}
}
