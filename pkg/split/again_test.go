package split

import (
	"testing"
	"time"

	"hawser/pkg/guard"
)

// TestSYNAgain: after a SYN between the ends of a connection its first segment begins
// another one. One of the connection that is there does not, although its numbers may by
// chance be those of a cookie; least of all where it was the connection's own SYN, which has
// come twice or late.
func TestSYNAgain(t *testing.T) {
	const old, fresh = 100, 5000
	for _, c := range []struct {
		name string
		isn  uint32 // of the SYN that comes
		then action
	}{{"its own", old, pass}, {"another, and the old one goes on", 9000, pass}, {"the new one's", fresh, swallow}} {
		t.Run(c.name, func(t *testing.T) {
			l := newLockSeeker(t)
			k := l.s.keeper
			w := l.flow().ward
			w.flow = guard.NewAsked(guard.Hello{ISN: old, MSS: 1460, Scale: guard.NoScale})
			w.flow.Join(0)
			cookie, _ := k.turn(time.Now()).Bake(&w.ends, guard.Hello{ISN: fresh, MSS: 1460, Scale: guard.NoScale}, false, 0)
			// The server's numbers have come to where the cookie is.
			w.flow.Outbound(tcpHeader(0, 0), 0, false)
			sent := tcpHeader(0, 0)
			sent.SetSequenceNumber(cookie + 1)
			w.flow.Outbound(sent, 0, false)
			frame := appendEther(nil, &link{hub: l.s.link.host, host: l.s.link.hub}, false)
			frame = (&guard.Segment{Flags: guard.FlagACK, Seq: fresh + 1, Ack: cookie + 1, Window: 100, Scale: guard.NoScale}).Append(frame, &w.ends, false, guard.ToServer)
			p, v := parseFrame(frame, len(frame), testHost)
			s, ok := segmentOf(p, frame[etherLen:], nil, vnetHeader{})
			if v != verdictPass || !ok {
				t.Fatalf("the segment is not one: verdict %d", v)
			}
			if k.knock(&w.ends, c.isn) != known {
				t.Fatal("the ends are not known")
			}
			if got := k.inbound(&s); got != c.then || (k.flows[w.ends] == w) != (c.then == pass) {
				t.Errorf("the segment was judged %d, want %d; %d flows were replaced", got, c.then, k.count.replaced.Load())
			}
		})
	}
}
