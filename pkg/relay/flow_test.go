package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, setup{})
				a, b := r.pair()
				if first == "server" {
					a, b = b, a
				}
				must(t, a.write([]byte("question")))
				a.finish()
				got, err := b.receive(pace{r: rand.New(rand.NewPCG(1, 1)), chunk: 100})
				if string(got) != "question" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				time.Sleep(time.Hour) // a flow may stay half closed
				must(t, b.write([]byte("answer")))
				got, err = a.read(100)
				if string(got) != "answer" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
				b.finish()
				if _, err = a.read(1); !errors.Is(err, io.EOF) {
					t.Errorf("after the answer: %v", err)
				}
				a.wait(a.isClosed)
				b.wait(b.isClosed)
				synctest.Wait()
				if r.loop.doneOf(0) != 1 || r.loop.doneOf(1) != 1 {
					t.Error("not done on both sides")
				}
				r.stop()
			})
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whoever resets, the other party sees it, with the code.
func TestReset(t *testing.T) {
	for _, k := range []struct {
		name   string
		before func(client, server *duct)
		who    int
	}{
		{"client at rest", func(_, _ *duct) {}, 0},
		{"server at rest", func(_, _ *duct) {}, 1},
		{"client after its end", func(c, _ *duct) { c.finish() }, 0},
		{"server after its end", func(_, s *duct) { s.finish() }, 1},
		{"client with data under way", func(c, _ *duct) { _ = c.write(make([]byte, 60<<10)) }, 0},
		{"client whose data waits for credit", func(c, s *duct) { s.outMax = 0; go func() { _ = c.write(make([]byte, 1<<20)) }() }, 0},
		{"client whose data waits for credit later", func(c, s *duct) { s.outMax = 300 << 10; go func() { _ = c.write(content(3, 1<<20)) }() }, 0},
		{"server that does not read", func(c, _ *duct) { _ = c.write(content(1, 60<<10)); _ = c.write(content(2, 60<<10)) }, 1},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, setup{})
				client, server := r.pair()
				k.before(client, server)
				synctest.Wait()
				ends := [2]*duct{client, server}
				ends[k.who].reset()
				ends[0].wait(ends[0].isAborted)
				ends[1].wait(ends[1].isAborted)
				synctest.Wait()
				if got := r.loop.codesOf(k.who); got != "[abort]" {
					t.Errorf("codes %s", got)
				}
				r.stop()
			})
		})
	}
}

func TestDial(t *testing.T) {
	other := errors.New("something else")
	for _, k := range []struct {
		name    string
		dial    error // of Dial
		connect error // of the connection
		allow   bool
		want    string
	}{
		{"refused", nil, party.ErrRefused, true, "[refused]"},
		{"reset", nil, party.ErrReset, true, "[refused]"},
		{"silent", nil, party.ErrUnreachable, true, "[unreachable]"},
		{"failed otherwise", nil, other, true, "[unreachable]"},
		{"no route", party.ErrUnreachable, nil, true, "[unreachable]"},
		{"refused at once", party.ErrRefused, nil, true, "[refused]"},
		{"no port", other, nil, true, "[resources]"},
		{"denied", nil, nil, false, "[denied]"},
	} {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, setup{options: func(o *Options) {
					o.Allow = func(dst netip.AddrPort) bool { return k.allow && dst == serverAt }
				}})
				server := newDuct(1, 1, nil)
				server.pending = true
				r.mu.Lock()
				r.servers = func(dst, src netip.AddrPort) (*duct, error) {
					if dst != serverAt || src != clientAt {
						t.Errorf("dialled %v for %v", dst, src)
					}
					return server, k.dial
				}
				r.mu.Unlock()
				client := newDuct(10000, 1, nil)
				must(t, client.write(make([]byte, 10000)))
				r.client(client)
				synctest.Wait()
				if k.dial == nil && k.allow {
					if client.aborted {
						t.Error("reset before the server answered")
					}
					server.connect(k.connect)
				}
				client.wait(client.isAborted)
				synctest.Wait()
				if got := r.loop.codesOf(1); got != k.want {
					t.Errorf("codes %s, want %s", got, k.want)
				}
				r.stop()
			})
		})
	}
}

// Data may follow the open at once, and is kept until the server stands.
func TestEarlyData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{})
		server := newDuct(1000, 100<<10, nil)
		server.pending = true
		r.mu.Lock()
		r.servers = func(_, _ netip.AddrPort) (*duct, error) { return server, nil }
		r.mu.Unlock()
		client := newDuct(100<<10, 1000, nil)
		data := content(5, 90<<10)
		must(t, client.write(data))
		client.finish()
		r.client(client)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(server.out) > 0 {
			t.Error("written before the server stood")
		}
		server.connect(nil)
		got, err := server.receive(pace{r: rand.New(rand.NewPCG(1, 1)), chunk: 9000})
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
		}
		r.stop()
	})
}

// Every record is forged: after three attempts the flow is reset on both
// sides, and not one byte is delivered.
func TestForgedForGood(t *testing.T) {
	for _, slow := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, setup{slow: slow, loop: func(l *loop) { l.always = true }, options: func(o *Options) { o.Window = 1 + slow }})
			client, server := r.pair()
			must(t, client.write(content(1, 60<<10)))
			client.wait(client.isAborted)
			server.wait(server.isAborted)
			synctest.Wait()
			if len(server.out) > 0 {
				t.Errorf("%d forged bytes were delivered", len(server.out))
			}
			if got := r.loop.codesOf(1); got != "[protocol]" {
				t.Errorf("codes %s", got)
			}
			if s := r.workers[1].Status(); s.Forged != attempts || r.loop.rejects != attempts-1 {
				t.Errorf("%d refused, %d rewound", s.Forged, r.loop.rejects)
			}
			r.stop()
		})
	}
}

// Any one bit of a short exchange is flipped, once: it is refused, and all
// bytes arrive all the same.
func TestEveryBit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 40
		r := newRig(t, setup{})
		for bit := range (size + card.Overhead) * 8 {
			client, server := r.pair()
			data := content(uint64(bit), size)
			r.loop.mu.Lock()
			r.loop.piece = 1000
			r.loop.mu.Unlock()
			r.loop.flipOnce(bit)
			must(t, client.write(data))
			client.finish()
			got, err := server.receive(pace{r: rand.New(rand.NewPCG(1, 1)), chunk: 100})
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("bit %d: %x, %v", bit, got, err)
			}
			server.finish()
			client.wait(client.isClosed)
		}
		if r.loop.flipped != (size+card.Overhead)*8 || r.loop.rejects != r.loop.flipped {
			t.Errorf("%d bits flipped, %d records refused", r.loop.flipped, r.loop.rejects)
		}
		r.stop()
	})
}

// A record that needs fewer bytes than its header says, at the end.
func TestTruncated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{})
		w := r.workers[1]
		tun := r.loop.ends[1]
		ev := func(v stream.Event) {
			v.From, v.Flow = tun, 900
			w.Deliver([]stream.Event{v})
		}
		ev(stream.Event{Kind: stream.EventOpen, Dst: serverAt, Src: clientAt})
		server := <-r.dials
		for range attempts {
			ev(stream.Event{Kind: stream.EventData, Seg: bufferOf(0, 100, 0, 0, 1, 2, 3)})
			ev(stream.Event{Kind: stream.EventFin})
			synctest.Wait()
			ev(stream.Event{Kind: stream.EventRewind}) // the loop knows no flow 900, so it does not
		}
		server.wait(server.isAborted)
		if server.outFin || len(server.out) > 0 {
			t.Error("something of a cut stream was delivered")
		}
		if s := w.Status(); s.Resets["protocol"] != 1 {
			t.Errorf("%+v", s)
		}
		r.stop()
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{})
		var ducts []*duct
		for i := range 20 {
			client, server := r.pair()
			_ = client.write(content(uint64(i), 50<<10))
			ducts = append(ducts, client, server)
		}
		r.stop()
		for _, d := range ducts {
			if !d.aborted {
				t.Error("a party was not aborted")
			}
		}
		for i, w := range r.workers {
			s := w.Status()
			if s.Resets["stopping"]+s.PeerResets["stopping"] != 20 {
				t.Errorf("worker %d: %+v", i, s)
			}
		}
		late := newDuct(1, 1, nil)
		r.client(late)
		if !late.aborted {
			t.Error("a stopped worker took a connection")
		}
		r.workers[0].Deliver([]stream.Event{{Kind: stream.EventData, Seg: bufferOf(1, 2, 3), From: r.loop.ends[0]}})
		r.workers[0].box.noted(&flow{})
	})
}

func TestPollerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBell()
		w, err := New(Options{Poller: b, Card: inlineCard(t), Ring: card.NewRings(card.Edge).Get})
		must(t, err)
		boom := errors.New("boom")
		b.fail <- boom
		if err := w.Run(t.Context()); !errors.Is(err, boom) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// TestClientOfAnEndedSession: a client whose connection has come to the worker when its
// session ends is reset. Nobody would ever say anything of its flow.
func TestClientOfAnEndedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBell()
		w, err := New(Options{Poller: b, Card: inlineCard(t), Ring: card.NewRings(card.Edge).Get})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- w.Run(ctx) }()
		d, tun := newDuct(1, 1, nil), &sieve{ended: true}
		w.Accept(d, serverAt, clientAt, tun)
		synctest.Wait()
		if d.mu.Lock(); !d.aborted {
			t.Error("the client waits for good")
		}
		d.mu.Unlock()
		if n := w.Flows(); n != 0 {
			t.Errorf("%d flows", n)
		}
		cancel()
		must(t, <-over)
	})
}

func TestFlowsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{options: func(o *Options) { o.Flows = 3 + o.Index }})
		var clients []*duct
		for range 5 {
			d := newDuct(1, 1, nil)
			r.client(d)
			clients = append(clients, d)
		}
		synctest.Wait()
		for i, d := range clients {
			if d.aborted != (i >= 3) {
				t.Errorf("client %d: aborted %v", i, d.aborted)
			}
		}
		for i := range stream.ID(3) { // the cloud has room for one more
			r.workers[1].Deliver([]stream.Event{{Kind: stream.EventOpen, Flow: 500 + i, Dst: serverAt, Src: clientAt, From: r.loop.ends[1]}})
		}
		synctest.Wait()
		for i, want := range []uint64{2, 2} {
			if s := r.workers[i].Status(); s.Resets["resources"] != want || s.Flows != 3+i {
				t.Errorf("worker %d: %+v", i, s)
			}
		}
		r.stop()
	})
}

// TestDialsThatFailAreToldOnce: a peer whose flows cannot be dialled, as those to IPv6
// addresses where there is no route, does not fill the log.
func TestDialsThatFailAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := newRig(t, setup{options: func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&out, nil)) }})
		r.mu.Lock()
		r.servers = func(netip.AddrPort, netip.AddrPort) (*duct, error) { return nil, party.ErrUnreachable }
		r.mu.Unlock()
		for i := range stream.ID(100) {
			r.workers[1].Deliver([]stream.Event{{Kind: stream.EventOpen, Flow: 1 + i, Dst: serverAt, Src: clientAt, From: r.loop.ends[1]}})
		}
		synctest.Wait()
		r.stop()
		if n := r.workers[1].Status().Resets["unreachable"]; n != 100 {
			t.Errorf("%d flows refused", n)
		}
		if n := strings.Count(out.String(), "cannot dial"); n != 1 {
			t.Errorf("100 flows have written %d lines:\n%.500s", n, out.String())
		}
	})
}

// TestForgersAreToldOnce: a peer that seals nothing right does not fill the log.
func TestForgersAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := newRig(t, setup{options: func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&out, nil)) }})
		w := r.workers[1]
		ev := func(id stream.ID, v stream.Event) {
			v.From, v.Flow = r.loop.ends[1], id
			w.Deliver([]stream.Event{v})
		}
		const flows = 20
		for id := range stream.ID(flows) {
			ev(900+id, stream.Event{Kind: stream.EventOpen, Dst: serverAt, Src: clientAt})
			server := <-r.dials
			for range attempts {
				ev(900+id, stream.Event{Kind: stream.EventData, Seg: bufferOf(0, 0, 0, 0)}) // no record is so short
				synctest.Wait()
				ev(900+id, stream.Event{Kind: stream.EventRewind})
			}
			server.wait(server.isAborted)
		}
		r.stop()
		if n := w.Status().Resets["protocol"]; n != flows {
			t.Errorf("%d flows were reset", n)
		}
		if n := strings.Count(out.String(), "refused for good"); n != 1 {
			t.Errorf("%d flows have written %d lines:\n%.500s", flows, n, out.String())
		}
	})
}

// A flow that is opened twice is a broken peer.
func TestOpenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{})
		_, server := r.pair()
		synctest.Wait()
		r.workers[1].Deliver([]stream.Event{{Kind: stream.EventOpen, Flow: 1, Dst: serverAt, Src: clientAt, From: r.loop.ends[1]}})
		server.wait(server.isAborted)
		r.stop()
	})
}

// Without keys there is no flow, on either side.
func TestNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{loop: func(l *loop) { l.secret = nil }})
		client := newDuct(1, 1, nil)
		r.client(client)
		client.wait(client.isAborted)
		r.workers[1].Deliver([]stream.Event{{Kind: stream.EventOpen, Flow: 1, Dst: serverAt, Src: clientAt, From: r.loop.ends[1]}})
		synctest.Wait()
		for _, w := range r.workers {
			if s := w.Status(); s.Flows != 0 {
				t.Errorf("%+v", s)
			}
		}
		if s := r.workers[1].Status(); s.Resets["lost"] != 1 {
			t.Errorf("%+v", s)
		}
		r.stop()
	})
}

// Keys are renewed while flows stand: a flow goes on over ten hours.
func TestLongFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{})
		client, server := r.pair()
		for hour := range 12 {
			must(t, client.write([]byte{byte(hour)}))
			if got, err := server.read(1); err != nil || got[0] != byte(hour) {
				t.Fatalf("hour %d: %v, %v", hour, got, err)
			}
			time.Sleep(time.Hour)
		}
		ring, err := r.workers[0].o.Ring(r.loop.ends[0])
		must(t, err)
		if seal, _ := ring.Epochs(); seal != 11 {
			t.Errorf("sealing in epoch %d after 12 hours", seal)
		}
		r.stop()
	})
}

func TestOptions(t *testing.T) {
	good := Options{Poller: newBell(), Card: inlineCard(t), Ring: card.NewRings(card.Edge).Get}
	for name, change := range map[string]func(*Options){
		"poller": func(o *Options) { o.Poller = nil }, "card": func(o *Options) { o.Card = nil },
		"ring": func(o *Options) { o.Ring = nil }, "window": func(o *Options) { o.Window = 256 },
		"negative window": func(o *Options) { o.Window = -1 }, "budget": func(o *Options) { o.Budget = -1 },
		"flows": func(o *Options) { o.Flows = -1 },
	} {
		o := good
		if change(&o); err(New(o)) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	w, e := New(good)
	must(t, e)
	if w.o.Window != DefaultWindow || w.o.Budget != DefaultBudget || w.o.Flows != DefaultFlows {
		t.Errorf("defaults: %+v", w.o)
	}
}

func err(_ *Worker, err error) error { return err }
