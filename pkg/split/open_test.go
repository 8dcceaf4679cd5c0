package split

import (
	"net"
	"net/netip"
	"testing"

	"hawser/pkg/party"
)

// TestWindowsOpen: a party whose window was shut knows that it is open as soon as all that
// came is read, in whatever pieces, and does not have to ask.
func TestWindowsOpen(t *testing.T) {
	const size = 2 << 20
	for _, k := range []struct {
		name   string
		buffer int
	}{{"large", 128 << 10}, {"small", 16 << 10}} {
		t.Run(k.name, func(t *testing.T) {
			l := newLab(t, false)
			l.serve("198.18.2.2:9", func(c *net.TCPConn) {
				_, _ = c.Write(random(size))
				c.Close()
			})
			o := l.options(0, 1)
			s, _ := l.start(o, nil)
			if k.buffer < 128<<10 {
				s.growth.conns.Store(2 * s.growth.most.Load() / int64(k.buffer))
			}
			c, err := s.Dial(netip.MustParseAddrPort("198.18.2.2:9"), "")
			must(t, err)
			must(t, watch(t, c).connected())
			defer c.Abort()
			full := func() bool { return s.out.shut.waits(c.id()) }
			buf := make([]byte, 16<<10)
			got := 0
			if c.small != nil { // by what opens a buffer of which no segment was read
				waitFor(t, "a full buffer", full)
				// Where it came in many pieces these take more than a little larger buffer.
				for grown := 0; full() && grown < 4; grown++ {
					c.small.in.passed, c.small.in.since = c.small.in.size, s.millis()
					n, err := c.Read(buf[:1])
					must(t, err)
					got += n
				}
				if full() {
					t.Error("the party waits although the buffer has grown")
				}
			}
			for round := 0; got < size; round++ {
				waitFor(t, "a full buffer", func() bool { return full() || got+c.Waiting() == size })
				for empty := false; !empty && got < size; {
					n, err := c.Read(buf[:1<<(10+round%5)])
					got += n
					switch empty = c.Waiting() == 0; {
					case err != nil && err != party.ErrAgain:
						t.Fatal(err)
					case full() && c.Waiting() == 0:
						t.Fatalf("after %d bytes the party waits, and all is read", got)
					}
				}
			}
		})
	}
}
