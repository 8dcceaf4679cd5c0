package split

import (
	"testing"
	"time"

	"hawser/pkg/party"
)

// TestRoom: a connection says how much Write takes: all that its send buffer holds while
// nothing waits in it, nothing once it is full of what the client does not read, and what
// there is when he has read some.
func TestRoom(t *testing.T) {
	if newInside() == nil {
		t.Fatal("this netstack has not what is looked for")
	}
	l := newLab(t, true)
	o := l.options(0, 1)
	o.MaxGrowth = 1
	conns := make(chan *Conn, 1)
	s, _ := l.start(o, func(c *Conn) {
		c.Watch(nopReady)
		conns <- c
	})
	s.growth.conns.Store(1 << 20)
	client := l.dial(anywhere(false, 4711))
	c := <-conns
	if got := c.Room(); got != leastBuffer {
		t.Fatalf("an empty buffer has room for %d bytes, want %d", got, leastBuffer)
	}
	fill := func() (n int) {
		for quiet := 0; quiet < 100; quiet++ { // what the client's own buffers take leaves in several rounds
			got, err := c.Write(random(1 << 10))
			if err != nil && err != party.ErrAgain {
				t.Fatal(err)
			}
			if n += got; got > 0 {
				quiet = 0
			}
			time.Sleep(time.Millisecond)
		}
		return n
	}
	n := fill()
	if got := c.Room(); got != 0 {
		t.Errorf("a full buffer has room for %d bytes", got)
	}
	_ = client.SetReadDeadline(time.Now().Add(ample))
	for p := make([]byte, 64<<10); n > 0; {
		got, err := client.Read(p)
		must(t, err)
		n -= got
	}
	waitFor(t, "room", func() bool { return c.Room() >= leastBuffer }) // it has grown meanwhile
}
