package split

import (
	"testing"
	"time"

	"hawser/pkg/party"
)

// TestProvenGrow: where a crowd has all that buffers may grow by, one that is read
// begins small, and grows once more was read than a client's own buffers take; what it
// had is free again.
func TestProvenGrow(t *testing.T) {
	const buffer, most = 64 << 10, 512 << 10
	l := newLab(t, true)
	o := l.options(0, 1)
	o.Buffer, o.MaxBuffer, o.MaxGrowth = buffer, buffer, most
	conns := make(chan *Conn, 1)
	s, _ := l.start(o, func(c *Conn) { conns <- c })
	s.growth.conns.Store(1 << 20)
	s.growth.taken.Store(4 * most)
	client := l.dial(anywhere(false, 4711))
	_ = client.SetWriteDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = client.Write(random(4 * provenAfter)) }()
	c := <-conns
	size := func() int64 { return c.ep.SocketOptions().GetReceiveBufferSize() }
	p := make([]byte, 1<<10)
	read := func(upTo int) {
		for int(c.passed) < upTo {
			n, err := c.Read(p)
			if err != nil && err != party.ErrAgain {
				t.Fatal(err)
			}
			if n == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if read(provenAfter - len(p)); size() != leastBuffer || s.growth.sure.Load() != 0 {
		t.Errorf("before: %d bytes, %d counted, want %d and none", size(), s.growth.sure.Load(), leastBuffer)
	}
	read(provenAfter)
	for rest := 2 * provenAfter; rest > 0; { // passed counts no further
		n, err := c.Read(p)
		if err != nil && err != party.ErrAgain {
			t.Fatal(err)
		}
		if rest -= n; n == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if size() != buffer || s.growth.sure.Load() != buffer-leastBuffer {
		t.Errorf("then: %d bytes, %d counted, want %d and %d", size(), s.growth.sure.Load(), buffer, buffer-leastBuffer)
	}
	c.Abort()
	if got, sure := s.growth.taken.Load(), s.growth.sure.Load(); got != 4*most || sure != 0 {
		t.Errorf("afterwards: %d and %d bytes are taken, want %d and none", got, sure, 4*most)
	}
	s.growth.taken.Store(0)
}
