package splice

import (
	"testing"
	"time"
)

// TestHalfClosedIsProbed: of a flow of which one end has sent its FIN the other is asked for a
// word long before connection tracking has forgotten it, and the flow lives while that answers.
func TestHalfClosedIsProbed(t *testing.T) {
	const tracked = time.Minute // by Linux, nf_conntrack_tcp_timeout_close_wait
	for _, carried := range []bool{false, true} {
		for _, u := range []setup{modern(), {six: true, iss: 1000, isn: 5000, srv: 900000, offers: Options{Scale: NoScale}, answers: Options{Scale: NoScale}}} {
			for _, from := range []side{client, server} {
				var w *world
				var c *carrier
				if carried {
					w, c = shunted(t, u)
				} else {
					w = spliced(t, u)
				}
				probed, answer := w.fromServer(0, u.srv+1, u.iss+2, ""), tcp{}
				if from == client {
					w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, ""))
					w.forward(probed) // acknowledges the FIN
				} else {
					probed = w.fromClient(0, u.iss+1, u.isn+2, "")
					w.forward(w.fromServer(flagFIN, u.srv+1, u.iss+1, ""))
					w.forward(probed)
				}
				for range 100 {
					for spoke := w.now; len(w.sent) == 0; {
						at, _ := w.table.Deadline()
						if at-spoke > tracked/2 {
							t.Fatalf("not probed within %v", at-spoke)
						}
						if c != nil {
							c.only().Quiet = at - spoke
						}
						w.now = at
						w.table.Sweep(at)
					}
					p := w.one()
					if from == client && (p.dst != w.s || p.seq != u.iss+1 || p.ack != u.srv+1) ||
						from == server && (p.dst != w.c || p.seq != u.isn+1 || p.ack != u.iss+1) || p.flags != flagACK || len(p.data) > 0 {
						t.Fatalf("probe: %+v", p)
					}
					w.now += time.Second
					answer = w.forward(probed)
					if from == client && (answer.seq != u.isn+1 || answer.ack != u.iss+2) || from == server && (answer.seq != u.iss+1 || answer.ack != u.srv+2) {
						t.Fatalf("the answer is passed on as %+v", answer)
					}
				}
				began := w.now
				for w.table.Flows() > 0 {
					at, ok := w.table.Deadline()
					if !ok || w.now-began > time.Hour {
						t.Fatalf("who does not answer is not forgotten within an hour")
					}
					if c != nil {
						c.only().Quiet = at - began
					}
					w.now = at
					w.table.Sweep(w.now)
				}
				if gone := w.now - began; gone < halfIdle || w.table.Counters().Idle != 1 {
					t.Errorf("who does not answer is forgotten after %v", gone)
				}
			}
		}
	}
}
