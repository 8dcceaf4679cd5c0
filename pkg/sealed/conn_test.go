package sealed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/sock"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// bench is a connection whose worker and peer are the test.
type bench struct {
	t       testing.TB
	poller  *sock.Poller
	port    *Port
	lane    *Lane
	conn    *conn
	peer    net.Conn
	far     *Association
	events  []stream.Event
	records []byte // delivered
	count   Counters
}

const benchFlow = 5

// plenty is a budget that nobody spends.
func plenty(int) int64 { return 1 << 40 }

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t}
	var err error
	if b.poller, err = sock.NewPoller(); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, gateway := couple(t)
	b.far = gateway
	b.port = NewPort(Options{Poller: b.poller, Deliver: b.deliver, Budget: NewBudget(plenty), Counters: &b.count})
	client.gateway = ln.Addr().(*net.TCPAddr).AddrPort()
	b.lane = newLane(b.port, client)
	client.lanes = []*Lane{b.lane}
	b.lane.Post([]stream.Command{{Kind: stream.CmdOpen, Flow: benchFlow, Dst: Service(0)}})
	b.conn = b.lane.conns[benchFlow]
	if b.peer, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.peer.Close()
		b.lane.Post([]stream.Command{{Kind: stream.CmdReset, Flow: benchFlow}})
		b.port.Close()
		if err := b.poller.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) deliver(events []stream.Event) {
	for _, e := range events {
		if e.Kind == stream.EventData {
			b.records = append(b.records, e.Seg.P...)
			e.Seg.Release()
			e.Seg = buffer.Seg{}
		}
		b.events = append(b.events, e)
	}
}

// until lets the poller work until ok.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for limit := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(limit) {
			b.t.Fatalf("not within a minute: %s", what)
		}
		if err := b.poller.Wait(10 * time.Millisecond); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) saw(k stream.EventKind) bool {
	return slices.ContainsFunc(b.events, func(e stream.Event) bool { return e.Kind == k })
}

// record has the form of one; only the card would know better.
func record(n int, fill byte) []byte {
	r := bytes.Repeat([]byte{fill}, card.Overhead+n)
	binary.BigEndian.PutUint16(r, uint16(len(r)-card.HeaderLen))
	r[2], r[3] = 0, 0
	return r
}

// Records come through whole and in order however the bytes are cut, and the
// end after them (PROTOCOL.md 7.5).
func TestRecordsHoweverCut(t *testing.T) {
	for most, large := range map[int]bool{buffer.Plain: false, buffer.Most: true} {
		t.Run(fmt.Sprint(most), func(t *testing.T) { recordsHoweverCut(t, most, large) })
	}
}

func recordsHoweverCut(t *testing.T, most int, large bool) {
	b := newBench(t)
	b.lane.a.large = large
	rng := rand.New(rand.NewPCG(3, 4))
	var all []byte
	for i := range 60 {
		n := []int{1, 100, 3000, most, 1 + rng.IntN(most)}[i%5]
		all = append(all, record(n, byte(i))...)
	}
	sent := append(bytes.Clone(all), b.far.appendEnd(nil, benchFlow, uint64(len(all)))...)
	go func() {
		for len(sent) > 0 {
			n := min(len(sent), []int{1, 3, 5, 4096, 40_000}[rng.IntN(5)])
			if _, err := b.peer.Write(sent[:n]); err != nil {
				return
			}
			sent = sent[n:]
		}
	}()
	done := 0
	b.until("end", func() bool {
		b.conn.consumed(len(b.records) - done)
		done = len(b.records)
		b.port.deliver()
		if b.conn.ahead > window+card.MaxRecord+scratchSize {
			t.Fatalf("%d bytes ahead of the worker", b.conn.ahead)
		}
		return b.saw(stream.EventFin) || b.saw(stream.EventReset)
	})
	if !bytes.Equal(b.records, all) || b.saw(stream.EventReset) {
		t.Errorf("%d bytes delivered of %d", len(b.records), len(all))
	}
	if b.conn.slab != nil {
		t.Error("a connection at rest holds a slab")
	}
}

// A worker that consumes nothing stops the reading at the window.
func TestWindowBoundsWhatIsAhead(t *testing.T) {
	b := newBench(t)
	go func() {
		r := record(buffer.Plain, 1)
		for range 400 {
			if _, err := b.peer.Write(r); err != nil {
				return
			}
		}
	}()
	b.until("window", func() bool { return b.conn.ahead >= window })
	for range 50 {
		if err := b.poller.Wait(2 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if most := window + card.MaxRecord + scratchSize; b.conn.ahead > most {
		t.Errorf("%d bytes ahead, at most %d wanted", b.conn.ahead, most)
	}
}

// What is not a record, comes behind an end, or ends without one, resets the
// flow and is counted.
func TestBrokenStreams(t *testing.T) {
	whole := record(100, 1)
	for name, c := range map[string]struct {
		send                func(b *bench) []byte
		tampered, truncated uint64
	}{
		"long header":        {func(*bench) []byte { return []byte{0xff, 0xff, 0, 0} }, 1, 0},
		"large, version 1":   {func(*bench) []byte { return record(buffer.Plain+1, 1) }, 1, 0},
		"short header":       {func(*bench) []byte { return []byte{0, 3, 0, 0} }, 1, 0},
		"flags":              {func(*bench) []byte { return []byte{0, 40, 9, 0} }, 1, 0},
		"forged end":         {func(*bench) []byte { return append([]byte{0, 16, endFlags, 0}, make([]byte, 16)...) }, 1, 0},
		"end too early":      {func(b *bench) []byte { return append(bytes.Clone(whole), b.far.appendEnd(nil, benchFlow, 0)...) }, 1, 0},
		"more after the end": {func(b *bench) []byte { return append(b.far.appendEnd(nil, benchFlow, 0), whole...) }, 1, 0},
		"no end":             {func(*bench) []byte { return whole }, 0, 1},
		"inside a record":    {func(*bench) []byte { return whole[:50] }, 0, 1},
		"inside a header":    {func(*bench) []byte { return whole[:2] }, 0, 1},
		"inside an end":      {func(b *bench) []byte { return b.far.appendEnd(nil, benchFlow, 0)[:19] }, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if _, err := b.peer.Write(c.send(b)); err != nil {
				t.Fatal(err)
			}
			if err := b.peer.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			b.until("reset", func() bool { return b.saw(stream.EventReset) })
			if g, n := b.count.Tampered.Load(), b.count.Truncated.Load(); g != c.tampered || n != c.truncated {
				t.Errorf("%d tampered, %d truncated", g, n)
			}
			if len(b.lane.conns) != 0 {
				t.Error("the connection is still there")
			}
		})
	}
}

// The join comes first, records follow within the credit, the end last.
func TestSends(t *testing.T) {
	b := newBench(t)
	b.until("credit", func() bool { return b.saw(stream.EventCredit) })
	r := record(5000, 3)
	b.lane.Post([]stream.Command{
		{Kind: stream.CmdSend, Flow: benchFlow, Seg: buffer.Copy(r)},
		{Kind: stream.CmdSend, Flow: benchFlow, Seg: buffer.Copy(r)},
		{Kind: stream.CmdFin, Flow: benchFlow},
	})
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(b.peer)
		got <- all
	}()
	var all []byte
	b.until("end", func() bool {
		select {
		case all = <-got:
			return true
		default:
			return false
		}
	})
	want := wire.JoinSize + 2*len(r) + wire.EndSize
	if len(all) != want {
		t.Fatalf("%d bytes, want %d", len(all), want)
	}
	j, err := wire.ParseJoin(all)
	if err != nil || b.far.admit(j, all[:wire.JoinSize]) != nil {
		t.Errorf("join %+v, %v", j, err)
	}
	if !bytes.Equal(all[wire.JoinSize:want-wire.EndSize], append(bytes.Clone(r), r...)) {
		t.Error("records differ")
	}
	if !b.far.checkEnd(all[want-wire.EndSize:], benchFlow, uint64(2*len(r))) {
		t.Error("the end is not authentic")
	}
	if b.conn.out != nil || b.conn.prelude != nil {
		t.Error("a connection at rest holds buffers")
	}
}

// FuzzConn feeds any bytes to a connection's parser: it never delivers what
// has not a record's form, and holds at most one record.
func FuzzConn(f *testing.F) {
	_, gateway := couple(f)
	f.Add(record(10, 1), uint16(3), false)
	f.Add(append(record(10, 1), gateway.appendEnd(nil, benchFlow, 30)...), uint16(100), false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, uint16(1), false)
	f.Add(append(gateway.appendEnd(nil, benchFlow, 0), record(10, 1)...), uint16(7), true)
	f.Fuzz(func(t *testing.T, in []byte, cut uint16, again bool) {
		var delivered []byte
		p := NewPort(Options{Budget: NewBudget(plenty), Counters: &Counters{}})
		client, _ := couple(t)
		l := newLane(p, client)
		s, err := socket(t, p)
		if err != nil {
			t.Skip(err)
		}
		c := l.add(benchFlow, s)
		if again {
			client.again, client.gate, c.ended = true, &Gate{}, true
		}
		for at := 0; at < len(in) && !c.over && !c.stopped(); {
			n := min(len(in)-at, 1+int(cut))
			if c.slab != nil {
				n = copy(c.slab.Bytes()[c.have:c.need+card.HeaderLen], in[at:at+n])
				if c.have += n; c.have >= c.need {
					c.complete()
				}
			} else {
				b := append(c.head[:c.headed:c.headed], in[at:at+n]...)
				c.headed = 0
				c.parse(b)
			}
			at += n
		}
		for _, e := range p.events {
			delivered = append(delivered, e.Seg.P...)
			e.Seg.Release()
		}
		if !bytes.HasPrefix(in, delivered) {
			t.Error("delivered what did not come")
		}
		for rest := delivered; len(rest) > 0; {
			h, err := card.ParseHeader(rest)
			if err != nil || h.Len > len(rest) {
				t.Fatalf("delivered no record: %v", err)
			}
			rest = rest[h.Len:]
		}
		c.abort()
	})
}

// socket is a dial to nowhere, which the parser does not use.
func socket(t *testing.T, p *Port) (*sock.Conn, error) {
	poller, err := sock.NewPoller()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { poller.Close() })
	p.o.Poller = poller
	return sock.Dial(poller, netip.MustParseAddrPort("127.0.0.1:9"), 0, "")
}
