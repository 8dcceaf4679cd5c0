package split

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"hawser/pkg/guard"
)

// orphanEndpoint is an endpoint for whose party something waits.
type orphanEndpoint struct {
	tcpip.Endpoint
	left  int
	reset bool
}

func (e *orphanEndpoint) Abort() { e.left, e.reset = 0, true }

// TestOrphans: of what was closed, those lose what waits for them that take nothing while
// there is too much, the oldest first, and any where there is far too much; who takes a
// little, has little left or has all, and those that are few, do not.
func TestOrphans(t *testing.T) {
	const (
		most  = 100_000
		each  = leastBuffer + most/10
		never = 0
		stuck = int64(orphanStuck / time.Millisecond)
	)
	for name, c := range map[string]struct {
		come  int   // as many, one per 100 ms
		every int64 // milliseconds
		takes func(e *orphanEndpoint)
		reset int // how many
	}{
		"few":              {9, 1000, nil, never},
		"many at once":     {70, 1, nil, never},
		"many that stay":   {40, 1000, nil, 40 - 10},
		"take a little":    {70, 1000, func(e *orphanEndpoint) { e.left-- }, never},
		"have little left": {500, 1000, func(e *orphanEndpoint) { e.left = leastBuffer }, never},
		"far too many":     {200, 200, func(e *orphanEndpoint) { e.left-- }, 200 - 10*orphanTimes},
	} {
		t.Run(name, func(t *testing.T) {
			o := orphans{waiting: func(ep tcpip.Endpoint) int { return ep.(*orphanEndpoint).left }}
			var all []*orphanEndpoint
			now, ended := int64(1<<40), uint64(0)
			for range c.come {
				for _, e := range all {
					if c.takes != nil && !e.reset {
						c.takes(e)
					}
				}
				now += c.every
				e := &orphanEndpoint{left: each}
				all = append(all, e)
				ended += o.add(e, most, now)
			}
			reset := 0
			for i, e := range all {
				if e.reset {
					reset++
				}
				if e.reset != (i < reset) {
					t.Errorf("not the oldest are reset: %d, %v", i, e.reset)
				}
			}
			if reset != c.reset || uint64(reset) != ended {
				t.Errorf("%d are reset, %d are counted, want %d", reset, ended, c.reset)
			}
			for _, e := range all {
				e.left = 0
			}
			if o.look(most, now+stuck); len(o.all) != 0 || o.bytes != 0 {
				t.Errorf("%d are kept, with %d bytes, when all is over", len(o.all), o.bytes)
			}
		})
	}
}

// TestOrphansAreFew: those that have all are not kept for long.
func TestOrphansAreFew(t *testing.T) {
	o := orphans{waiting: func(ep tcpip.Endpoint) int { return ep.(*orphanEndpoint).left }}
	for i := range 10_000 {
		e := &orphanEndpoint{left: leastBuffer + 1}
		o.add(e, 1<<40, int64(i))
		if e.left = 0; len(o.all) > 100 {
			t.Fatalf("%d are kept", len(o.all))
		}
	}
}

// TestClosedAndNotRead: clients that ask for much, have no more to say and read nothing of
// it have no more than their part of the memory, however many connections they make; one
// that reads has all of it.
func TestClosedAndNotRead(t *testing.T) {
	const growth, size = 32 << 10, 64 << 10
	l := newLab(t, true)
	conns := make(chan *Conn, 1)
	o := l.guarded(guard.Auto, guard.Limits{})
	o.MaxGrowth = growth
	s, _ := l.start(o, func(c *Conn) { c.Open(-1); conns <- c })
	data := random(size)
	answered := func(buffer int) *net.TCPConn {
		c := l.dial(anywhere(false, 80))
		must(t, c.SetReadBuffer(buffer))
		must(t, c.CloseWrite())
		w := watch(t, <-conns)
		if _, err := w.read(1); err != io.EOF {
			t.Fatalf("read: %v, want EOF", err)
		}
		n, err := w.conn.Write(data)
		if n != size {
			t.Fatalf("%d bytes fit the send buffer, %v", n, err)
		}
		must(t, w.conn.CloseWrite())
		w.conn.Close()
		return c
	}
	reads := answered(1 << 20)
	var first *net.TCPConn
	for i := 0; s.Stats().OrphanResets == 0; i++ {
		if i == 1000 {
			t.Fatal("nobody is reset")
		}
		if c := answered(2 << 10); first == nil {
			first = c
		}
	}
	sum := 0
	for _, ep := range s.net.Load().RegisteredEndpoints() {
		sum += s.left(ep.(tcpip.Endpoint))
	}
	if most := orphanTimes*growth + 2*size; sum > most {
		t.Errorf("%d bytes wait, want %d at most", sum, most)
	}
	if _, err := io.Copy(io.Discard, first); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the first that read nothing: %v, want a reset", err)
	}
	if n, err := io.Copy(io.Discard, reads); n != size || err != nil {
		t.Errorf("who reads has %d bytes, %v, want %d", n, err, size)
	}
}
