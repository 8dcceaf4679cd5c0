package sealed

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// again is a gateway whose worker and client are the test.
type again struct {
	*bench
	gate *Gate
	raw  net.Conn // the client's connection
	up   *Association
}

func newAgain(t *testing.T, version uint16) *again {
	t.Helper()
	a := &again{bench: &bench{t: t}}
	var err error
	if a.poller, err = sock.NewPoller(); err != nil {
		t.Fatal(err)
	}
	client, gateway := couple(t)
	a.up, a.far = client, gateway
	a.port = NewPort(Options{Poller: a.poller, Deliver: a.deliver, Budget: NewBudget(plenty), Counters: &a.count})
	a.gate = NewGate(GateOptions{Counters: &a.count, Log: slog.New(slog.DiscardHandler)})
	a.gate.table[gateway.ID] = gateway
	a.lane = newLane(a.port, gateway)
	gateway.gate, gateway.again, gateway.lanes = a.gate, version >= wire.RelayVersionAgain, []*Lane{a.lane}
	gateway.servers = []*Server{NewServer(netip.MustParseAddrPort("127.0.0.1:9"))}
	l, err := sock.ListenGreeted(a.poller, netip.MustParseAddrPort("127.0.0.1:0"), func(c *sock.Conn) { a.gate.Greet(a.port, c) })
	if err != nil {
		t.Fatal(err)
	}
	if a.raw, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.raw.Close()
		l.Close()
		a.port.Close()
		a.gate.Close()
		for _, c := range a.lane.conns {
			c.abort()
		}
		if err := a.poller.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// say has the client send in pieces of n bytes.
func (a *again) say(n int, all ...[]byte) {
	a.t.Helper()
	for piece := range slices.Chunk(bytes.Join(all, nil), n) {
		if _, err := a.raw.Write(piece); err != nil {
			a.t.Fatal(err)
		}
		if err := a.poller.Wait(time.Millisecond); err != nil {
			a.t.Fatal(err)
		}
	}
}

// worked does a worker's part of a flow: what is there is consumed, our end comes.
func (a *again) worked(flow stream.ID, n int) {
	a.lane.Post([]stream.Command{{Kind: stream.CmdConsumed, Flow: flow, Bytes: n}, {Kind: stream.CmdFin, Flow: flow}})
}

func (a *again) done(flow stream.ID) {
	a.lane.Post([]stream.Command{{Kind: stream.CmdDone, Flow: flow}})
}

// ended waits for so many ends of the client.
func (a *again) ended(n int) {
	a.t.Helper()
	a.until(fmt.Sprintf("%d ends", n), func() bool { return a.ends() >= n })
}

func (a *again) ends() (n int) {
	for _, e := range a.events {
		if e.Kind == stream.EventFin {
			n++
		}
	}
	return n
}

// TestAgain: a connection carries one flow after another (PROTOCOL.md 7.6), however what
// the client sends is cut, also where the next join comes right behind the end, before
// the worker is done with the flow.
func TestAgain(t *testing.T) {
	for _, cut := range []int{1, 2, 3, 19, 21, 45, 47, 1000, 1 << 20} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) { carryThree(t, cut) })
	}
}

func carryThree(t *testing.T, cut int) {
	a := newAgain(t, wire.RelayVersionAgain)
	var want []byte
	flow := func(n uint64) (join, records, end []byte) {
		records = append(record(100*int(n), byte(n)), record(30, byte(n))...)
		want = append(want, records...)
		return a.up.appendJoin(nil, n, 0), records, a.up.appendEnd(nil, n, uint64(len(records)))
	}
	join, records, end := flow(1)
	a.say(cut, join, records)
	a.until("records", func() bool { return bytes.Equal(a.records, want) })
	for n := uint64(1); n < 3; n++ {
		a.worked(stream.ID(n), len(records))
		got := make([]byte, wire.EndSize)
		if _, err := io.ReadFull(a.raw, got); err != nil || !a.up.checkEnd(got, n, 0) {
			t.Fatalf("the gateway's end: %v", err)
		}
		last := end
		join, records, end = flow(n + 1)
		a.say(cut, last, join, records)
		a.ended(int(n))
		a.done(stream.ID(n))
		a.until("records", func() bool { return bytes.Equal(a.records, want) })
	}
	if n, joined := a.count.Again.Load(), a.count.Joined.Load(); n != 2 || joined != 3 {
		t.Errorf("%d of %d flows by a connection that had carried another", n, joined)
	}
	a.worked(3, len(records))
	a.say(cut, end)
	a.ended(3)
	a.done(3)
	if len(a.lane.conns) != 0 || len(a.port.arrivals) != 1 {
		t.Errorf("%d flows, %d connections at rest", len(a.lane.conns), len(a.port.arrivals))
	}
	a.raw.Close() // nothing follows, and that is no fault
	a.until("end", func() bool { return len(a.port.arrivals) == 0 })
	if a.saw(stream.EventReset) || a.count.Refused.Load()+a.count.Tampered.Load()+a.count.Truncated.Load() > 0 {
		t.Error("something was refused")
	}
}

// What comes behind a client's end and is no join that may come there ends the
// connection, and is counted.
func TestBehindTheEnd(t *testing.T) {
	first := func(a *again) {
		a.say(1<<20, a.up.appendJoin(nil, 1, 0), a.up.appendEnd(nil, 1, 0))
		a.ended(1)
	}
	for name, c := range map[string]struct {
		version           uint16
		do                func(a *again)
		refused, tampered uint64
	}{
		"another flow's records": {wire.RelayVersionAgain, func(a *again) {
			a.worked(1, 0)
			a.say(1<<20, record(100, 1))
			a.done(1)
		}, 1, 0},
		"a handshake": {wire.RelayVersionAgain, func(a *again) {
			a.worked(1, 0)
			a.done(1)
			a.say(1<<20, bytes.Repeat([]byte{tlsHandshake}, wire.JoinSize))
		}, 1, 0},
		"the same join": {wire.RelayVersionAgain, func(a *again) {
			a.worked(1, 0)
			a.done(1)
			a.say(1<<20, a.up.appendJoin(nil, 1, 0))
		}, 1, 0},
		"a version without": {wire.RelayVersionLarge, func(a *again) {
			a.worked(1, 0)
			a.say(1<<20, a.up.appendJoin(nil, 2, 0))
		}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgain(t, c.version)
			first(a)
			c.do(a)
			a.until("refusal", func() bool { return a.count.Refused.Load() == c.refused && a.count.Tampered.Load() == c.tampered })
			if len(a.lane.conns)+len(a.port.arrivals) != 0 {
				t.Error("the connection is still there")
			}
		})
	}
	t.Run("before ours", func(t *testing.T) {
		a := newAgain(t, wire.RelayVersionAgain)
		a.say(1<<20, a.up.appendJoin(nil, 1, 0), a.up.appendEnd(nil, 1, 0), a.up.appendJoin(nil, 2, 0))
		a.until("refusal", func() bool { return a.count.Tampered.Load() == 1 })
	})
	t.Run("a reset", func(t *testing.T) {
		a := newAgain(t, wire.RelayVersionAgain)
		first(a)
		if err := a.raw.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		a.raw.Close()
		a.until("reset", func() bool { return a.saw(stream.EventReset) })
	})
}

// finish ends the bench's flow well.
func (b *bench) finish(flow stream.ID) {
	b.t.Helper()
	b.lane.Post([]stream.Command{{Kind: stream.CmdFin, Flow: flow}})
	if _, err := b.peer.Write(b.far.appendEnd(nil, uint64(flow), 0)); err != nil {
		b.t.Fatal(err)
	}
	b.until("end", func() bool { return b.lane.conns[flow].fin })
	b.lane.Post([]stream.Command{{Kind: stream.CmdDone, Flow: flow}})
	b.until("all sent", func() bool { return b.lane.conns[flow] == nil })
}

// TestSpares: the client keeps a connection whose flow has ended well, and has the next
// flow join there; but not one that has ended or said something since, that is old, that
// leads to another gateway, or goes out from where this host is no more, nor with a
// gateway that does not know of it.
func TestSpares(t *testing.T) {
	next := func(b *bench) {
		b.lane.Post([]stream.Command{{Kind: stream.CmdOpen, Flow: 6, Dst: Service(0)}, {Kind: stream.CmdSend, Flow: 6, Seg: buffer.Copy(record(9, 9))}})
	}
	t.Run("kept", func(t *testing.T) {
		b := newBench(t)
		b.lane.a.again = true
		b.finish(benchFlow)
		s := b.port.spares[0].sock
		next(b)
		if c := b.lane.conns[6]; c.sock != s || len(b.port.spares) != 0 || b.count.Again.Load() != 1 {
			t.Error("not used again")
		}
		want := wire.JoinSize + wire.EndSize + wire.JoinSize + len(record(9, 9))
		got := make([]byte, want)
		if _, err := io.ReadFull(b.peer, got); err != nil {
			t.Fatal(err)
		}
		j, err := wire.ParseJoin(got[wire.JoinSize+wire.EndSize:])
		if err != nil || j.Flow != 6 || b.far.admit(j, got[wire.JoinSize+wire.EndSize:][:wire.JoinSize]) != nil {
			t.Errorf("join %+v, %v", j, err)
		}
		b.lane.Post([]stream.Command{{Kind: stream.CmdReset, Flow: 6}})
	})
	for name, spoil := range map[string]func(b *bench){
		"ended":          func(b *bench) { b.peer.Close() },
		"said something": func(b *bench) { _, _ = b.peer.Write([]byte{1}) },
		"old":            func(b *bench) { b.port.spares[0].since = time.Now().Add(-spareTime) },
		"another network": func(b *bench) {
			b.port.source = func(netip.AddrPort) netip.Addr { return netip.MustParseAddr("192.0.2.7") }
		},
		"no network": func(b *bench) {
			b.port.source = func(netip.AddrPort) netip.Addr { return netip.Addr{} }
		},
		"another gateway": func(b *bench) { b.port.spares[0].to = netip.MustParseAddrPort("127.0.0.2:1") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.lane.a.again = true
			b.finish(benchFlow)
			s := b.port.spares[0].sock
			spoil(b)
			if name == "ended" || name == "said something" {
				b.until("noticed", func() bool { return len(b.port.spares) == 0 })
			}
			next(b)
			if c := b.lane.conns[6]; c != nil && c.sock == s || b.count.Again.Load() != 0 || len(b.port.spares) != 0 {
				t.Error("used again")
			}
			b.lane.Post([]stream.Command{{Kind: stream.CmdReset, Flow: 6}})
		})
	}
	t.Run("ended with its flow", func(t *testing.T) {
		b := newBench(t)
		b.lane.a.again = true
		if _, err := b.peer.Write(b.far.appendEnd(nil, benchFlow, 0)); err != nil {
			t.Fatal(err)
		}
		b.peer.(*net.TCPConn).CloseWrite()
		b.until("end", func() bool { return b.conn.gone })
		b.lane.Post([]stream.Command{{Kind: stream.CmdFin, Flow: benchFlow}, {Kind: stream.CmdDone, Flow: benchFlow}})
		if b.lane.conns[benchFlow] != nil || len(b.port.spares) != 0 {
			t.Error("kept")
		}
	})
	t.Run("version 2", func(t *testing.T) {
		b := newBench(t)
		b.finish(benchFlow)
		if len(b.port.spares) != 0 {
			t.Error("kept")
		}
		if all, err := io.ReadAll(b.peer); err != nil || len(all) != wire.JoinSize+wire.EndSize {
			t.Errorf("%d bytes, %v", len(all), err)
		}
	})
	t.Run("too many", func(t *testing.T) {
		b := newBench(t)
		b.lane.a.again = true
		full := make([]*spare, mostSpares)
		for i := range full {
			full[i] = &spare{sock: b.conn.sock}
		}
		b.port.spares = full
		b.finish(benchFlow)
		if len(b.port.spares) != mostSpares {
			t.Error("kept one more")
		}
		b.port.spares = nil
	})
}

// TestJoinWaits: the join of a flow by a connection at rest waits for one look at what has come
// meanwhile, without sleep, so that what the client says at once goes with it; it does not
// wait longer.
func TestJoinWaits(t *testing.T) {
	for name, says := range map[string]bool{"says something": true, "says nothing": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.lane.a.again = true
			b.finish(benchFlow)
			b.lane.Post([]stream.Command{{Kind: stream.CmdOpen, Flow: 6, Dst: Service(0)}})
			c := b.lane.conns[6]
			defer b.lane.Post([]stream.Command{{Kind: stream.CmdReset, Flow: 6}})
			look := func() {
				if err := b.poller.Wait(time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			if look(); c.prelude == nil {
				t.Fatal("sent before one look")
			}
			if says {
				b.lane.Post([]stream.Command{{Kind: stream.CmdSend, Flow: 6, Seg: buffer.Copy(record(9, 9))}})
				if c.prelude != nil || c.out != nil {
					t.Error("what the client says is held, too")
				}
				return
			}
			if err := b.poller.Wait(0); err != nil || c.prelude != nil {
				t.Errorf("held beyond one look, %v", err)
			}
		})
	}
}
