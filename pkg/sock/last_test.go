package sock

import (
	"errors"
	"io"
	"net"
	"testing"

	"hawser/pkg/party"
)

// TestLastWords: what a server said before it reset the connection can be read, also when
// a write has found the reset, and before an event has told of either.
func TestLastWords(t *testing.T) {
	r := newRig(t)
	gone := make(chan struct{})
	c, err := Dial(r.p, kernelServer(t, "tcp", "127.0.0.1:0", func(s *net.TCPConn) {
		_, _ = s.Write([]byte("one"))
		_, _ = io.ReadFull(s, make([]byte, 1))
		_, _ = s.Write([]byte("two"))
		_ = s.SetLinger(0)
		s.Close()
		close(gone)
	}), 0, "")
	must(t, err)
	e := r.watch(c)
	must(t, e.connected())
	e.wait(party.Readable)
	p := make([]byte, 100)
	if n, err := e.Read(p); string(p[:n]) != "one" || err != nil || !c.dry {
		t.Fatalf("read %q, %v", p[:n], err)
	}
	_, err = c.Write([]byte("x"))
	must(t, err)
	<-gone
	if _, err := c.Writev([][]byte{[]byte("y")}); !errors.Is(err, party.ErrReset) {
		t.Errorf("write: %v", err)
	}
	if n, err := e.Read(p); string(p[:n]) != "two" || err != nil {
		t.Errorf("read %q, %v", p[:n], err)
	}
	for range 2 {
		if n, err := e.Read(p); n > 0 || !errors.Is(err, party.ErrReset) {
			t.Errorf("read %q, %v", p[:n], err)
		}
	}
}
