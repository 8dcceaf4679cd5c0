package split

import (
	"net/netip"
	"testing"
	"time"

	"hawser/pkg/guard"
)

// acknowledging is a client's first segment after its SYN.
func (l *lockSeeker) acknowledging(e *guard.Ends, isn, cookie uint32) segment {
	l.t.Helper()
	frame := appendEther(nil, &link{hub: l.s.link.host, host: l.s.link.hub}, false)
	frame = (&guard.Segment{Flags: guard.FlagACK, Seq: isn + 1, Ack: cookie + 1, Window: 100, Scale: guard.NoScale}).Append(frame, e, false, guard.ToServer)
	p, v := parseFrame(frame, len(frame), testHost)
	s, ok := segmentOf(p, frame[etherLen:], nil, vnetHeader{})
	if v != verdictPass || !ok {
		l.t.Fatalf("the segment is not one: verdict %d", v)
	}
	return s
}

// TestNoPlaceIsAnsweredAgain: a client that there was no place for says nothing more where
// its server is to speak first. The SYN-ACK comes again then, so that it asks anew, but not
// to one that has its place, or was reset.
func TestNoPlaceIsAnsweredAgain(t *testing.T) {
	l := newLockSeeker(t)
	k, hello := l.s.keeper, guard.Hello{ISN: 1000, MSS: 1460, Scale: guard.NoScale}
	gate := NewGate(guard.ZeroWindow, guard.Limits{Pending: 1})
	k.opts.Gate = gate
	asks := func(port uint16) (again bool) {
		e := guard.Ends{ClientPort: port, ServerPort: 80}
		put(&e.Client, []byte{10, 0, 0, 2})
		put(&e.Server, []byte{10, 0, 0, 1})
		answer := k.turn(time.Now()).Answer(&e, hello, guard.Offer{MSS: 1460}, k.clock())
		l.s.syns.remember(&e, false, &answer, time.Now())
		s := l.acknowledging(&e, hello.ISN, answer.Seq)
		k.admit(&e, hello, false, &s)
		return l.s.syns.awaits(&e, answer.Seq+1)
	}
	if asks(1) || len(l.conns) != 1 {
		t.Errorf("one that has its place is answered again, %d flows", len(l.conns))
	}
	if !asks(2) || len(l.conns) != 1 {
		t.Errorf("one without a place is not answered again, %d flows", len(l.conns))
	}
	l.conns[0].Abort()
	if asks(2) || len(l.conns) != 2 {
		t.Errorf("one that has its place then is answered again, %d flows", len(l.conns))
	}
	l.conns[1].Refuse(true)
	l.conns[1].Abort()
	if asks(3) || len(l.conns) != 2 {
		t.Errorf("one that was reset is answered again, %d flows", len(l.conns))
	}
}

// TestSplicedIsAnsweredOnce: a client whose connection goes around the tunnel has its SYN-ACK.
func TestSplicedIsAnsweredOnce(t *testing.T) {
	l := newLab(t, true)
	l.serve(serverAt(false, 7), echoServer)
	o := l.guarded(guard.Auto, guard.Limits{})
	o.Direct = func(_, _ netip.AddrPort) bool { return true }
	s, _ := l.start(o, func(c *Conn) { t.Error("a connection reached netstack"); c.Abort() })
	c := l.dial(serverAt(false, 7))
	must(t, roundTrip(c, random(1000)))
	e := guard.Ends{ServerPort: 7, ClientPort: netip.MustParseAddrPort(c.LocalAddr().String()).Port()}
	put(&e.Client, netip.MustParseAddrPort(c.LocalAddr().String()).Addr().AsSlice())
	put(&e.Server, server4.AsSlice())
	s.syns.mu.Lock()
	kept := *s.syns.recent
	s.syns.mu.Unlock()
	kept.Each(time.Now().Add(time.Minute), func(again *guard.Ends, _ bool, _ *guard.Segment) {
		if *again == e {
			t.Error("its SYN-ACK is to be sent again")
		}
	})
}
