package splice

import (
	"testing"
)

// ask makes a flow up to the SYN that is passed on.
func ask(t testing.TB, u setup) (*world, tcp) {
	w := newWorld(t, u.six)
	w.asks(u)
	return w, w.one()
}

func (w *world) asks(u setup) {
	w.Helper()
	syn := tcp{src: w.c, dst: w.s, flags: flagSYN, seq: u.iss, window: 64000, opts: u.offers.appendTo(nil)}
	if v, _ := w.handle(syn); v != Foreign {
		w.Fatalf("verdict %d for a new SYN", v)
	}
	if !w.table.Ask(w.now, packetOf(syn.packet())) {
		w.Fatal("not taken")
	}
}

// answers is the server's SYN-ACK.
func (w *world) answers(u setup) {
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagSYN | flagACK, seq: u.srv, ack: u.iss + 1, window: 32000, opts: u.answers.appendTo(nil)})
}

// TestAsk: the client hears nothing before the server has answered, so that its round trip
// is the way's, and then what the server can do; its ACK is the server's.
func TestAsk(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		u.answers.MSS, u.answers.Scale = 1400, 0
		w, syn := ask(t, u)
		if o := parseOptions(syn.opts); syn.dst != w.s || syn.flags != flagSYN || syn.seq != u.iss || syn.window != 64000 || o.Scale != 9 || !o.SACK || o.Val != 100 {
			t.Errorf("SYN to the server: %+v", syn)
		}
		w.swallow(tcp{src: w.c, dst: w.s, flags: flagSYN, seq: u.iss, window: 64000, opts: u.offers.appendTo(nil)})
		if s := w.took(); len(s) != 0 {
			t.Errorf("the SYN again is answered: %+v", s)
		}
		w.answers(u)
		s := w.one()
		if o := parseOptions(s.opts); s.dst != w.c || s.flags != flagSYN|flagACK || s.seq != u.srv || s.ack != u.iss+1 || s.window != 32000 ||
			o.MSS != 1400 || o.Scale != 0 || !o.SACK || o.Val != 7000 || o.Ecr != 100 {
			t.Errorf("SYN-ACK to the client: %+v, %+v", s, o)
		}
		w.answers(u) // as the client's ACK was lost
		if again := w.one(); again.seq != s.seq || again.dst != w.c {
			t.Errorf("the SYN-ACK again: %+v", again)
		}
		w.swallow(w.fromClient(0, u.iss+1, u.srv+77, "forged"))
		if pending, open := w.door.counts(); pending != 1 || open != 0 {
			t.Errorf("%d pending, %d open", pending, open)
		}
		// The client's first segment is its ACK, or brings it.
		a := w.forward(w.fromClient(flagPSH, u.iss+1, u.srv+1, "hello", appendStamps(nil, 101, 7000)...))
		if o := parseOptions(a.opts); a.dst != w.s || a.seq != u.iss+1 || a.ack != u.srv+1 || a.window != 1000 || string(a.data) != "hello" || o.Val != 101 || o.Ecr != 7000 {
			t.Errorf("to the server: %+v", a)
		}
		// Windows are the server's own, to the byte.
		if b := w.forward(w.fromServer(0, u.srv+1, u.iss+6, "hi", appendStamps(nil, 7001, 101)...)); b.window != 2000 || b.seq != u.srv+1 || b.ack != u.iss+6 {
			t.Errorf("to the client: %+v", b)
		}
		if s := w.took(); len(s) != 0 {
			t.Errorf("the table says of its own: %+v", s)
		}
		if c := w.table.Counters(); c.Opened != 1 || c.Begun != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// TestAskPlain: of a server without options the client is promised none, and no timestamps
// have to be made.
func TestAskPlain(t *testing.T) {
	u := modern()
	u.answers = Options{MSS: 536, Scale: NoScale}
	w, _ := ask(t, u)
	w.answers(u)
	if o := parseOptions(w.one().opts); o.MSS != 536 || o.Scale != NoScale || o.SACK || o.Stamps {
		t.Errorf("the client is promised %+v", o)
	}
	w.forward(w.fromClient(0, u.iss+1, u.srv+1, ""))
	if s := w.forward(w.fromServer(0, u.srv+1, u.iss+1, "data")); len(s.opts) != 0 || s.window != 2000 {
		t.Errorf("to the client: %+v", s)
	}
}

// TestAskNoServer: a refusal is the client's, in the numbers of its SYN; of a server that
// is silent the client hears nothing, as without an edge, and may ask anew.
func TestAskNoServer(t *testing.T) {
	both(t, func(t *testing.T, u setup) {
		for name, end := range map[string]func(*world){
			"refused": func(w *world) {
				w.swallow(tcp{src: w.s, dst: w.hub, flags: flagRST | flagACK, ack: u.iss + 1})
			},
			"unreachable": func(w *world) { w.icmp(3, 1, u.iss) },
			"silent": func(w *world) {
				for range 3 {
					w.due()
					if s := w.one(); s.flags != flagSYN || s.dst != w.s {
						t.Errorf("SYN again: %+v", s)
					}
				}
				w.due()
			},
		} {
			w, _ := ask(t, u)
			end(w)
			s := w.took()
			if name == "silent" {
				if len(s) != 0 {
					t.Errorf("silent: %+v", s)
				}
			} else if len(s) != 1 || s[0].dst != w.c || s[0].flags != flagRST|flagACK || s[0].ack != u.iss+1 {
				t.Errorf("%s: the client gets %+v", name, s)
			}
			if w.table.Flows() != 0 {
				t.Errorf("%s: %d flows", name, w.table.Flows())
			}
			w.asks(u)
		}
	})
}

// TestAskGivenUp: the server of a client that has given up, begins anew, or never answers
// the SYN-ACK is reset.
func TestAskGivenUp(t *testing.T) {
	u := modern()
	for name, end := range map[string]func(*world){
		"reset": func(w *world) { w.swallow(tcp{src: w.c, dst: w.s, flags: flagRST, seq: u.iss + 1}) },
		"anew": func(w *world) {
			if v, _ := w.handle(tcp{src: w.c, dst: w.s, flags: flagSYN, seq: 77, opts: u.offers.appendTo(nil)}); v != Foreign {
				t.Errorf("verdict %d for another SYN", v)
			}
		},
		"silent": func(w *world) {
			for range retries {
				w.due()
				if s := w.one(); s.dst != w.c || s.flags != flagSYN|flagACK {
					t.Errorf("SYN-ACK again: %+v", s)
				}
			}
			w.due()
		},
	} {
		w, _ := ask(t, u)
		w.answers(u)
		w.took()
		end(w)
		if s := w.one(); s.dst != w.s || s.flags != flagRST || s.seq != u.iss+1 {
			t.Errorf("%s: the server gets %+v", name, s)
		}
		if c := w.table.Counters(); w.table.Flows() != 0 || c.Abandoned != 1 {
			t.Errorf("%s: %d flows, %+v", name, w.table.Flows(), c)
		}
	}
	w, _ := ask(t, u)
	w.answers(u)
	w.took()
	w.swallow(tcp{src: w.s, dst: w.hub, flags: flagRST, seq: u.srv + 1})
	if s := w.one(); s.dst != w.c || s.flags&flagRST == 0 || s.seq != u.srv+1 || w.table.Flows() != 0 {
		t.Errorf("a server that takes its answer back: the client gets %+v", s)
	}
}
