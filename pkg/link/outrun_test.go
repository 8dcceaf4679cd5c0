package link

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/wire"
)

func TestOutrun(t *testing.T) {
	now, keep := time.Now(), 25*time.Second
	edge, other := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8")
	var o outrun
	o.answered(netip.AddrFrom16(edge.As16()), now, keep)
	for _, c := range []struct {
		name  string
		from  netip.Addr
		begin time.Duration // after the answer
		err   error
		want  bool
	}{
		{"began before", edge, -20 * time.Second, ErrSilent, true},
		{"began while WELCOME was under way", edge, outrunMost - 1, ErrPeerClosed, true},
		{"reset", edge, 0, syscall.ECONNRESET, true},
		{"began later", edge, outrunMost, ErrPeerClosed, false},
		{"of somebody else", other, 0, ErrPeerClosed, false},
		{"wrong key", edge, 0, ErrPeerKey, false},
		{"refused", edge, 0, &Refusal{Status: wire.StatusBusy}, false},
		{"well", edge, 0, nil, false},
	} {
		if got := o.left(c.from, now.Add(c.begin), c.err); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	o.answered(other, now.Add(keep+1), keep)
	if len(o.last) != 1 {
		t.Errorf("%d answers are kept", len(o.last))
	}
}

// TestLeftAttempts: an edge leaves attempts to connect when another one has been quicker, which
// its cloud takes for no failure. That of a stranger is one.
func TestLeftAttempts(t *testing.T) {
	for name, answered := range map[string]bool{"of an edge": true, "of a stranger": false} {
		t.Run(name, func(t *testing.T) {
			c := startCloud(t, loopback, func(_ *cloud, o *ListenOptions) { o.Timeout = 300 * time.Millisecond })
			silent, closed := c.knock(), c.knock()
			defer silent.Close()
			if answered {
				edge, _, err := c.dialer(TCP, nil).Dial(context.Background(), sampleHello())
				if err != nil {
					t.Fatal(err)
				}
				defer edge.Close(nil)
				defer (<-c.conns).Close(nil)
			}
			closed.Close()
			c.listener.active.Wait() // silent's has its time
			want := uint64(2)
			if answered {
				want = 0
			}
			if got := c.counters.Failed.Load(); got != want || len(c.failures) != int(want) {
				t.Errorf("%d failures are counted and %d told, want %d", got, len(c.failures), want)
			}
		})
	}
}

// knock makes a TCP connection that says nothing, of which the handshake has begun.
func (c *cloud) knock() net.Conn {
	c.t.Helper()
	before := c.listener.places.Taken()
	conn, err := net.Dial("tcp", c.listener.Addr().String())
	if err != nil {
		c.t.Fatal(err)
	}
	for c.listener.places.Taken() == before {
		time.Sleep(time.Millisecond)
	}
	return conn
}
