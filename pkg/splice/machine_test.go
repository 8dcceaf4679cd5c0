package splice

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func modern() setup {
	return setup{iss: 1000, isn: 5000, srv: 900000, offers: full(100), answers: full(7000)}
}

// both runs a test for IPv4 and IPv6.
func both(t *testing.T, run func(*testing.T, setup)) {
	for _, six := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6=%v", six), func(t *testing.T) {
			u := modern()
			u.six = six
			run(t, u)
		})
	}
}

// TestHandshake: split.md's zero-window handshake, then the server's, then the
// update that lets the client go.
func TestHandshake(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		w, s := greet(t, u)
		o := parseOptions(s.opts)
		if s.flags != flagSYN|flagACK || s.seq != u.isn || s.ack != u.iss+1 || s.window != 0 {
			t.Errorf("SYN-ACK: %+v", s)
		}
		mss := uint16(1460)
		if u.six {
			mss = 1440
		}
		if o.MSS != mss || o.Scale != 7 || !o.SACK || !o.Stamps || o.Ecr != 100 {
			t.Errorf("options of the SYN-ACK: %+v", o)
		}
		w.swallow(tcp{src: w.c, dst: w.s, flags: flagSYN, seq: u.iss, window: 64000, opts: u.offers.appendTo(nil)})
		if again := w.one(); again.seq != s.seq || again.flags != s.flags {
			t.Errorf("the SYN-ACK sent again: %+v", again)
		}
		w.swallow(w.fromClient(0, u.iss+1, u.isn+1, "", appendStamps(nil, 101, o.Val)...))
		syn := w.one()
		so := parseOptions(syn.opts)
		if syn.flags != flagSYN || syn.seq != u.iss || syn.dst != w.s || syn.window != 0xffff {
			t.Errorf("SYN to the server: %+v", syn)
		}
		if so.MSS != 1460 || so.Scale != 9 || !so.SACK || !so.Stamps || so.Val != 101 {
			t.Errorf("options of the SYN: %+v", so)
		}
		w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
		sent := w.took()
		if len(sent) != 2 {
			t.Fatalf("%d segments", len(sent))
		}
		toServer, toClient := sent[0], sent[1]
		if toServer.seq != u.iss+1 || toServer.ack != u.srv+1 || toServer.window != 1000 || parseOptions(toServer.opts).Ecr != 7000 {
			t.Errorf("ACK to the server: %+v", toServer)
		}
		if toClient.seq != u.isn+1 || toClient.ack != u.iss+1 || toClient.window != 32000>>7 || parseOptions(toClient.opts).Val != o.Val {
			t.Errorf("window update: %+v", toClient)
		}
	})
}

// TestOpen: a guard's handshake is taken over with the numbers that it has used.
func TestOpen(t *testing.T) {
	w := newWorld(t, false)
	told := Options{MSS: 1460, Scale: 5, SACK: true, Stamps: true, Val: 42}
	if !w.table.Open(w.now, Client{Addr: w.c, Server: w.s, ISS: 10, Ours: 20, Window: 1000, Offered: full(99), Told: told}) {
		t.Fatal("not taken")
	}
	if s := w.one(); s.flags != flagSYN || s.seq != 10 || parseOptions(s.opts).Val != 99 {
		t.Errorf("SYN: %+v", s)
	}
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: 500, ack: 11, window: 640, opts: full(1).appendTo(nil)})
	// The client may have nothing to say, and the server begins: it must know the window.
	if s := w.took(); len(s) != 2 || s[0].seq != 11 || s[0].window != 1000 || s[1].seq != 21 || s[1].window != 640>>5 || parseOptions(s[1].opts).Val != 42 {
		t.Errorf("after the answer: %+v", s)
	}
}

// TestWaiting: before there is a server no data is taken, and probes are told
// that the window is shut.
func TestWaiting(t *testing.T) {
	u := modern()
	w, _ := call(t, u)
	for name, s := range map[string]tcp{
		"probe":     w.fromClient(0, u.iss, u.isn+1, ""),
		"violation": w.fromClient(flagPSH, u.iss+1, u.isn+1, "data against the window"),
		"FIN":       w.fromClient(flagFIN, u.iss+1, u.isn+1, ""),
	} {
		w.swallow(s)
		if a := w.one(); a.dst != w.c || a.flags != flagACK || a.window != 0 || a.seq != u.isn+1 || a.ack != u.iss+1 {
			t.Errorf("%s is answered with %+v", name, a)
		}
	}
	w.swallow(w.fromClient(0, u.iss+1, u.isn+1, ""))
	w.swallow(w.fromClient(0, u.iss+1, u.isn+77, "forged"))
	if s := w.took(); len(s) != 0 {
		t.Errorf("answers to what needs none: %+v", s)
	}
	if c := w.table.Counters(); c.Discarded != 1 {
		t.Errorf("discarded %d segments, want 1", c.Discarded)
	}
}

// TestNoServer: refusal, silence and an ICMP error reset the client, each with
// its counter, and nothing stays.
func TestNoServer(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		for name, end := range map[string]func(*world){
			"refused": func(w *world) {
				w.swallow(tcp{src: w.s, dst: w.hub, flags: flagRST | flagACK, ack: u.iss + 99})
				w.swallow(tcp{src: w.s, dst: w.hub, flags: flagRST | flagACK, ack: u.iss + 1})
			},
			"silent": func(w *world) {
				for range 3 { // after 1, 3 and 7 s
					w.due()
					if s := w.one(); s.flags != flagSYN || s.seq != u.iss {
						t.Errorf("SYN again: %+v", s)
					}
				}
				w.due()
			},
			"unreachable": func(w *world) { w.icmp(3, 1, u.iss) },
		} {
			w, _ := call(t, u)
			end(w)
			if s := w.one(); s.dst != w.c || s.flags != flagRST|flagACK || s.seq != u.isn+1 || s.ack != u.iss+1 {
				t.Errorf("%s: the client gets %+v", name, s)
			}
			c := w.table.Counters()
			if w.table.Flows() != 0 || map[string]uint64{"refused": c.Refused, "silent": c.TimedOut, "unreachable": c.Unreachable}[name] != 1 {
				t.Errorf("%s: %d flows, counters %+v", name, w.table.Flows(), c)
			}
			if v, _ := w.handle(w.fromClient(0, u.iss+1, u.isn+1, "")); v != Foreign {
				t.Errorf("%s: verdict %d for what comes after", name, v)
			}
		}
	})
}

// due lets time pass to the next deadline and sweeps.
func (w *world) due() {
	w.Helper()
	d, ok := w.table.Deadline()
	if !ok {
		w.Fatal("no deadline")
	}
	w.now = d
	w.table.Sweep(w.now)
}

// TestClientGivesUp: a reset before the server has answered reaches it.
func TestClientGivesUp(t *testing.T) {
	u := modern()
	w, _ := call(t, u)
	w.swallow(tcp{src: w.c, dst: w.s, flags: flagRST, seq: u.iss})
	w.swallow(tcp{src: w.c, dst: w.s, flags: flagRST, seq: u.iss + 1<<17})
	if w.table.Flows() != 1 || len(w.took()) != 0 {
		t.Error("a forged reset ended the flow, or was answered")
	}
	// One that has sent what was dropped counts that: it is asked back.
	w.swallow(tcp{src: w.c, dst: w.s, flags: flagRST, seq: u.iss + 5})
	a := w.one()
	if a.dst != w.c || a.flags != flagACK || a.window != 0 || a.seq != u.isn+1 || a.ack != u.iss+1 || w.table.Flows() != 1 {
		t.Errorf("a reset in doubt is answered by %+v, %d flows", a, w.table.Flows())
	}
	w.swallow(tcp{src: w.c, dst: w.s, flags: flagRST, seq: a.ack})
	if s := w.one(); s.dst != w.s || s.flags != flagRST || s.seq != u.iss+1 {
		t.Errorf("the server gets %+v", s)
	}
	if c := w.table.Counters(); w.table.Flows() != 0 || c.Abandoned != 1 {
		t.Errorf("%d flows, %+v", w.table.Flows(), c)
	}
	w, _ = greet(t, u)
	for range retries {
		w.due()
		if s := w.one(); s.flags != flagSYN|flagACK || s.seq != u.isn || s.window != 0 {
			t.Errorf("SYN-ACK again: %+v", s)
		}
	}
	w.due()
	if w.table.Flows() != 0 || len(w.took()) != 0 {
		t.Error("an unanswered SYN-ACK did not end silently")
	}
}

// TestStrayAnswer: an answer of an earlier connection is reset, and the call
// goes on (RFC 9293 section 3.10.7.3).
func TestStrayAnswer(t *testing.T) {
	u := modern()
	w, _ := call(t, u)
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: 3, ack: u.iss + 50})
	if s := w.one(); s.flags != flagRST || s.seq != u.iss+50 || s.dst != w.s {
		t.Errorf("got %+v", s)
	}
	if w.table.Flows() != 1 {
		t.Error("the call was given up")
	}
}

// TestAnswerAgain: a SYN-ACK sent again is acknowledged with what has been
// reached meanwhile, and is not shown to the client.
func TestAnswerAgain(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	w.forward(w.fromClient(0, u.iss+1, u.isn+1, "hello", appendStamps(nil, 105, 1)...))
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
	if s := w.one(); s.dst != w.s || s.flags != flagACK || s.seq != u.iss+6 || s.ack != u.srv+1 || parseOptions(s.opts).Val != 105 {
		t.Errorf("answered with %+v", s)
	}
}

// TestSYNAgain: a SYN on an open flow is challenged (RFC 5961 section 4); after
// the reset that a client sends then, and after a close, it begins anew.
func TestSYNAgain(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	syn := tcp{src: w.c, dst: w.s, flags: flagSYN, seq: 777777, window: 64000}
	w.swallow(syn)
	challenge := w.one()
	if challenge.dst != w.c || challenge.flags != flagACK || challenge.seq != u.isn+1 || challenge.ack != u.iss+1 {
		t.Errorf("challenged with %+v", challenge)
	}
	w.forward(tcp{src: w.c, dst: w.s, flags: flagRST, seq: challenge.ack})
	if v, _ := w.handle(syn); v != Foreign || w.table.Flows() != 0 {
		t.Errorf("verdict %d, %d flows", v, w.table.Flows())
	}
	w = closed(t, u)
	if v, _ := w.handle(syn); v != Foreign || w.table.Flows() != 0 {
		t.Errorf("after a close: verdict %d, %d flows", v, w.table.Flows())
	}
}

// closed makes a flow whose ends have closed, the client first.
func closed(t testing.TB, u setup) *world {
	w := spliced(t, u)
	w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, ""))
	w.forward(w.fromServer(flagFIN, u.srv+1, u.iss+2, ""))
	w.forward(w.fromClient(0, u.iss+2, u.isn+2, ""))
	return w
}

// TestClose: half-close, then close; late segments still pass for a minute.
func TestClose(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, "bye"))
	w.forward(w.fromServer(0, u.srv+1, u.iss+5, ""))
	at := uint32(0)
	for range 20 { // the other half goes on for longer than it may be idle
		w.now += halfIdle / 2
		w.table.Sweep(w.now)
		s := w.forward(w.fromServer(0, u.srv+1+at, u.iss+5, "more"))
		if s.seq != u.isn+1+at {
			t.Fatalf("half-closed: %+v", s)
		}
		at += 4
		w.forward(w.fromClient(0, u.iss+5, u.isn+1+at, ""))
	}
	if w.table.Counters().Closed != 0 {
		t.Error("closed too early")
	}
	w.forward(w.fromServer(flagFIN, u.srv+1+at, u.iss+5, ""))
	w.forward(w.fromClient(0, u.iss+5, u.isn+2+at, ""))
	if w.table.Counters().Closed != 1 {
		t.Error("not closed")
	}
	w.now += endedIdle / 2
	w.table.Sweep(w.now)
	w.forward(w.fromServer(flagFIN, u.srv+1+at, u.iss+5, "")) // the last ACK was lost
	w.now += endedIdle + 2*grace
	w.table.Sweep(w.now)
	if w.table.Flows() != 0 {
		t.Error("not forgotten")
	}
	if _, more := w.table.Deadline(); more {
		t.Error("an empty table has a deadline")
	}
}

// TestSimultaneousClose: FINs cross, then their acknowledgements.
func TestSimultaneousClose(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	w.forward(w.fromClient(flagFIN, u.iss+1, u.isn+1, ""))
	w.forward(w.fromServer(flagFIN, u.srv+1, u.iss+1, ""))
	w.forward(w.fromClient(0, u.iss+2, u.isn+2, ""))
	if w.table.Counters().Closed != 0 {
		t.Error("closed with one FIN unacknowledged")
	}
	w.forward(w.fromServer(0, u.srv+2, u.iss+2, ""))
	if w.table.Counters().Closed != 1 {
		t.Error("not closed")
	}
}

// TestReset: a reset passes with the receiver's number and ends the flow soon;
// a forged one, which the ends go on after, does not.
func TestReset(t *testing.T) {
	u := modern()
	w := spliced(t, u)
	if s := w.forward(tcp{src: w.s, dst: w.hub, flags: flagRST, seq: u.srv + 1}); s.flags != flagRST || s.seq != u.isn+1 || s.ack != 0 {
		t.Errorf("the client gets %+v", s)
	}
	w.forward(w.fromClient(0, u.iss+1, u.isn+1, "still here"))
	w.now += 10 * resetIdle
	w.table.Sweep(w.now)
	if w.table.Flows() != 1 {
		t.Fatal("a forged reset ended the flow")
	}
	w.forward(tcp{src: w.c, dst: w.s, flags: flagRST | flagACK, seq: u.iss + 11, ack: u.isn + 1})
	w.now += resetIdle + 2*grace
	w.table.Sweep(w.now)
	if c := w.table.Counters(); w.table.Flows() != 0 || c.Closed != 1 {
		t.Errorf("%d flows, %+v", w.table.Flows(), c)
	}
}

// TestForgedEnds: resets and FINs with numbers that the other end does not take
// pass, for it to judge, and do not end an idle flow.
func TestForgedEnds(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		for _, far := range []uint32{2, 1 << 27, 1 << 31, 1<<32 - 1<<27} {
			w := spliced(t, u)
			w.forward(w.fromClient(0, u.iss+1, u.isn+1, "question"))
			w.forward(w.fromServer(0, u.srv+1, u.iss+9, "answer"))
			w.forward(w.fromClient(0, u.iss+9, u.isn+7, ""))
			if far == 2 {
				far = -far // not far, but behind
			}
			w.forward(w.fromServer(flagFIN, u.srv+7+far, u.iss+9, ""))
			w.forward(w.fromClient(flagFIN, u.iss+9+far, u.isn+7, ""))
			w.forward(tcp{src: w.s, dst: w.hub, flags: flagRST, seq: u.srv + 7 + far})
			w.forward(tcp{src: w.c, dst: w.s, flags: flagRST | flagACK, seq: u.iss + 9 + far, ack: u.isn + 7})
			w.now += openIdle - time.Minute
			w.table.Sweep(w.now)
			if w.table.Flows() != 1 {
				t.Errorf("%#x away: the flow is forgotten", far)
			}
		}
	})
}

// TestForgedNumbers: segments with numbers that no window allows pass, and the flow
// still knows its ends: a reset that fits them alone does not end it, and its real
// end is seen.
func TestForgedNumbers(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		for _, far := range []uint32{1 << 27, 1 << 30, 1<<31 - 100} {
			w := spliced(t, u)
			w.forward(w.fromClient(0, u.iss+1, u.isn+1, "question"))
			w.forward(w.fromServer(0, u.srv+1, u.iss+9, "answer"))
			w.forward(w.fromClient(0, u.iss+9+far, u.isn+7, "x"))
			w.forward(w.fromServer(0, u.srv+7, u.iss+9+far, ""))
			w.forward(w.fromServer(0, u.srv+7+far, u.iss+9, "x"))
			w.forward(w.fromClient(0, u.iss+9, u.isn+7+far, ""))
			w.forward(tcp{src: w.s, dst: w.hub, flags: flagRST, seq: u.srv + 7 + far})
			w.forward(tcp{src: w.c, dst: w.s, flags: flagRST | flagACK, seq: u.iss + 9 + far, ack: u.isn + 7})
			w.now += openIdle - time.Minute
			w.table.Sweep(w.now)
			if w.table.Flows() != 1 {
				t.Errorf("%#x away: the flow is forgotten", far)
				continue
			}
			w.forward(w.fromClient(flagFIN, u.iss+9, u.isn+7, ""))
			w.forward(w.fromServer(flagFIN, u.srv+7, u.iss+10, ""))
			w.forward(w.fromClient(0, u.iss+10, u.isn+8, ""))
			if w.table.Counters().Closed != 1 {
				t.Errorf("%#x away: the end was not seen", far)
			}
		}
	})
}

// TestIdle: an open flow lives as long as a NAT must let it (RFC 5382 REQ-5).
func TestIdle(t *testing.T) {
	w := spliced(t, modern())
	w.now += 2*time.Hour + 3*time.Minute
	w.table.Sweep(w.now)
	if w.table.Flows() != 1 {
		t.Fatal("forgotten too early")
	}
	w.now += 2 * time.Minute
	w.table.Sweep(w.now)
	if c := w.table.Counters(); w.table.Flows() != 0 || c.Idle != 1 {
		t.Errorf("%d flows, %+v", w.table.Flows(), c)
	}
}

// TestServerIsTheHub: nobody is connected to the hub's own address. What the table would
// send there comes back to it as from a new client, for which it would do the same.
func TestServerIsTheHub(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		w := newWorld(t, u.six)
		hub := hub4
		if u.six {
			hub = hub6
		}
		w.s = netip.AddrPortFrom(hub, 443)
		w.swallow(tcp{src: w.c, dst: w.s, flags: flagSYN, seq: u.iss, window: 64000, opts: u.offers.appendTo(nil)})
		if v, _ := w.handle(w.fromClient(0, u.iss+1, u.isn+1, "")); v != Foreign {
			t.Errorf("verdict %d for a segment of no flow", v)
		}
		// The kernel may have answered the SYN, during a flood.
		if w.table.Open(w.now, Client{Addr: w.c, Server: w.s, ISS: u.iss, Ours: u.isn, Offered: u.offers, Told: full(300)}) {
			t.Error("a flow to the hub")
		}
		if s, n := w.took(), w.table.Flows(); len(s) > 0 || n > 0 {
			t.Errorf("%d flows, sent %+v", n, s)
		}
	})
}
