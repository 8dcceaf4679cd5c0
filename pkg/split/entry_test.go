package split

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hawser/pkg/guard"
)

// TestEntries: while enough handshakes are under way a client whose server is there
// waits with a closed window, and can be reset; when one has ended it gets through,
// with all that it has sent. In strict mode nobody waits.
func TestEntries(t *testing.T) {
	l := newLab(t, true)
	p := newPump(t)
	conns := make(chan *Conn, 1)
	o := l.guarded(guard.ZeroWindow, guard.Limits{})
	s, _ := l.start(o, func(c *Conn) {
		c.Open(-1)
		if c.Local().Port() == 81 {
			conns <- c
			return
		}
		p.echo(c, nil)
	})
	under := func(i int) stack.TransportEndpointID {
		return stack.TransportEndpointID{LocalPort: 9, RemotePort: uint16(i + 1)}
	}
	for i := range quickMost {
		if a := s.door.enter(under(i), true); a != doorOpen {
			t.Fatalf("the door's answer is %d", a)
		}
	}
	queued := func(n int) {
		t.Helper()
		waitFor(t, "those that wait", func() bool {
			s.keeper.mu.Lock()
			defer s.keeper.mu.Unlock()
			got := 0
			for w := s.keeper.entries.oldest; w != nil; w = w.near[byEntry].newer {
				got++
			}
			return got == n
		})
	}
	refused, first, second := l.dial(anywhere(false, 81)), l.dial(anywhere(false, 80)), l.dial(anywhere(true, 80))
	queued(3)
	done := make(chan error, 2)
	go func() { done <- roundTrip(first, random(100<<10)) }()
	go func() { done <- roundTrip(second, random(100<<10)) }()
	(<-conns).Abort()
	queued(2)
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one whose owner has gone: %v, want a reset", err)
	}
	select {
	case err := <-done:
		t.Errorf("one got through: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for i := range quickMost {
		s.door.leave(under(i))
	}
	s.keeper.enterNext()
	for range 2 {
		must(t, <-done)
	}
	queued(0)
	waitFor(t, "the door to be empty", s.door.empty)
	if s.door.quick != 0 {
		t.Errorf("%d handshakes are counted", s.door.quick)
	}
}

// TestEntriesAllAtOnce: many servers that answer at the same time make no more
// handshakes at a time than allowed, and all clients are served.
func TestEntriesAllAtOnce(t *testing.T) {
	const many = 2 * quickMost // the server is asked for so many at a time
	r := newTurns(t, guard.ZeroWindow)
	clients, errs := r.connect(1) // so that the server has answered, and is asked for many
	waitFor(t, "the first", func() bool { return len(r.out()) == 1 })
	r.out()[0].Open(-1)
	select {
	case c := <-clients:
		must(t, roundTrip(c, random(1000)))
	case err := <-errs:
		t.Fatal(err)
	}
	clients, errs = r.connect(many)
	waitFor(t, "all", func() bool { return len(r.out()) == many+1 })
	for _, c := range r.out()[1:] {
		c.Open(-1)
	}
	for range many {
		select {
		case c := <-clients:
			must(t, roundTrip(c, random(1000)))
		case err := <-errs:
			t.Fatal(err)
		}
	}
	r.s.keeper.mu.Lock()
	defer r.s.keeper.mu.Unlock()
	if r.s.keeper.entries.oldest != nil {
		t.Error("somebody still waits")
	}
}
