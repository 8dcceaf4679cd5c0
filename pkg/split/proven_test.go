package split

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/party"
	"hawser/pkg/proof"
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
	_ = client.SetWriteDeadline(time.Now().Add(ample))
	go func() { _, _ = client.Write(random(4 * proof.After)) }()
	c := <-conns
	size := func() int64 { return c.ep.SocketOptions().GetReceiveBufferSize() }
	p := make([]byte, 1<<10)
	read := func(n int) {
		for n > 0 {
			got, err := c.Read(p[:min(len(p), n)])
			if err != nil && err != party.ErrAgain {
				t.Fatal(err)
			}
			if n -= got; got == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	if read(proof.After - len(p)); size() != leastBuffer || s.growth.sure.Sum(s.now()) != 0 {
		t.Errorf("before: %d bytes, %d counted, want %d and none", size(), s.growth.sure.Sum(s.now()), leastBuffer)
	}
	read(2 * proof.After)
	if size() != buffer || s.growth.sure.Sum(s.now()) != buffer-leastBuffer {
		t.Errorf("then: %d bytes, %d counted, want %d and %d", size(), s.growth.sure.Sum(s.now()), buffer, buffer-leastBuffer)
	}
	c.Abort()
	if got, sure := s.growth.taken.Load(), s.growth.sure.Sum(s.now()); got != 4*most || sure != 0 {
		t.Errorf("afterwards: %d and %d bytes are taken, want %d and none", got, sure, 4*most)
	}
	s.growth.taken.Store(0)
}

// TestProofsLapse: connections that are read no more leave what is meant for those that
// are to others, one that is read on keeps it, and all together take no more than the most.
func TestProofsLapse(t *testing.T) {
	const most, part = 512 << 10, 64 << 10
	synctest.Test(t, func(t *testing.T) {
		s := &Stack{opts: Options{}.withDefaults(), clock: newClock()}
		s.Resize(most)
		s.growth.taken.Store(4 * most) // by others
		// come is a wave of connections that are read until they may not grow by more.
		come := func() (grown int, all []*Conn) {
			for {
				c := &Conn{stack: s}
				c.pass(proof.After)
				if !c.allows(part) {
					return grown, append(all, c)
				}
				c.grow(part)
				grown, all = grown+part, append(all, c)
			}
		}
		first, crowd := come()
		if first != most/2 {
			t.Fatalf("the first have %d bytes, want %d", first, most/2)
		}
		reader := crowd[0]
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			reader.pass(proof.After / 50)
			if !reader.read.Holds(s.now()) {
				t.Fatal("one that is read on counts no more")
			}
		}
		if second, _ := come(); second != most/2-part {
			t.Errorf("those that come after a crowd that is stuck have %d bytes, want %d", second, most/2-part)
		}
		for range 10 {
			time.Sleep(20 * time.Second)
			come()
		}
		if taken := s.growth.taken.Load(); taken < 5*most || taken > 5*most+part {
			t.Errorf("%d bytes are taken, want %d", taken, 5*most)
		}
		for _, c := range crowd {
			c.strip()
		}
		if sum := s.growth.sure.Sum(s.now()); sum != 0 {
			t.Errorf("%d bytes are counted for nobody", sum)
		}
	})
}
