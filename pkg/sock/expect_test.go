package sock

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"hawser/pkg/party"
)

// accepted returns a connection that a listener of the rig has accepted, and
// its client.
func (r *rig) accepted() (*end, net.Conn) {
	r.t.Helper()
	var got *Conn
	l, err := ListenGreeted(r.p, netip.MustParseAddrPort("127.0.0.1:0"), func(c *Conn) { got = c })
	must(r.t, err)
	r.t.Cleanup(l.Close)
	client, err := net.Dial("tcp", l.Addr().String())
	must(r.t, err)
	r.t.Cleanup(func() { client.Close() })
	_, err = client.Write([]byte("hello"))
	must(r.t, err)
	for limit := time.Now().Add(time.Minute); got == nil; {
		must(r.t, r.p.Wait(time.Second))
		if time.Now().After(limit) {
			r.t.Fatal("not accepted within a minute")
		}
	}
	return r.watch(got), client
}

// What is expected and does not come fails the connection; Relax and a closed
// connection end that.
func TestExpect(t *testing.T) {
	r := newRig(t)
	late, _ := r.accepted()
	relaxed, _ := r.accepted()
	closed, _ := r.accepted()
	for _, e := range []*end{late, relaxed, closed} {
		e.Expect()
		e.Expect() // has no further effect
	}
	relaxed.Relax()
	closed.Abort()
	r.p.dials.expire(time.Now().Add(DialTimeout - time.Second))
	if late.bits&party.Hangup != 0 {
		t.Error("ended too early")
	}
	r.p.dials.expire(time.Now().Add(DialTimeout + time.Second))
	if _, err := late.Read(make([]byte, 9)); late.bits&party.Hangup == 0 || !errors.Is(err, party.ErrUnreachable) {
		t.Errorf("bits %b, read %v", late.bits, err)
	}
	buf := make([]byte, 9)
	if n, err := relaxed.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("relaxed: %q, %v", buf[:n], err)
	}
	if !r.p.dials.empty() {
		t.Error("the queue is not empty")
	}
}

// A connection of which something is expected again and again, as of those that carry one
// flow after another, is in the queue once, and has its time from the last one on.
func TestExpectAgain(t *testing.T) {
	r := newRig(t)
	often, _ := r.accepted()
	for range 100 {
		often.Expect()
		often.Relax()
	}
	other, _ := r.accepted()
	other.Expect()
	often.Expect()
	often.deadline = often.deadline.Add(DialTimeout)
	if n := len(r.p.dials.waits); n != 2 {
		t.Errorf("%d places", n)
	}
	r.p.dials.expire(time.Now().Add(DialTimeout + time.Second))
	if often.failure != nil || !errors.Is(other.failure, party.ErrUnreachable) {
		t.Errorf("the one %v, the other %v", often.failure, other.failure)
	}
	r.p.dials.expire(time.Now().Add(2*DialTimeout + time.Second))
	if !errors.Is(often.failure, party.ErrUnreachable) || !r.p.dials.empty() {
		t.Error("it goes on waiting")
	}
}

// A socket that has left belongs to the caller, with what it was sent.
func TestLeave(t *testing.T) {
	r := newRig(t)
	e, client := r.accepted()
	fd, err := e.Leave()
	must(t, err)
	defer syscall.Close(fd)
	buf := make([]byte, 9)
	if n, err := syscall.Read(fd, buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := e.Read(buf); !errors.Is(err, party.ErrReset) {
		t.Errorf("after it has left: %v", err)
	}
	e.Abort() // leaves the socket alone
	if _, err := client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}

// One that still waits does not keep those that came after it and wait no more; they stay in
// the order of their deadlines.
func TestDialsBehindASilentOne(t *testing.T) {
	var q dialQueue
	first := &Conn{waiting: true, deadline: time.Unix(1, 0)}
	q.add(first)
	for i := range 100_000 {
		c := &Conn{waiting: true, deadline: time.Unix(2+int64(i), 0)}
		q.add(c)
		c.waiting = i%10_000 == 0
		if len(q.waits) > 100 {
			t.Fatalf("%d connections are kept behind one that waits, after %d", len(q.waits), i+1)
		}
	}
	if q.waits[0].conn != first || !slices.IsSortedFunc(q.waits, func(a, b wait) int { return a.at.Compare(b.at) }) {
		t.Error("the order is lost")
	}
}
